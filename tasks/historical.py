"""The point-in-time join on a Dask cluster, for rows or views that one machine does not hold.

Workers need only the project installed and the storage; what they exchange are addresses. The
result has the same bytes as ``featurestore.join.out_of_core`` writes in one process.
"""

from collections.abc import Sequence

from featurestore.join.by_entity import join_share, put_together, share_jobs
from featurestore.join.certificate import Certificate
from featurestore.join.out_of_core import CHUNK_ROWS
from headrace.plan import ViewRead
from headrace.settings import Settings
from tasks.clusters import Call, cluster

SHARES_A_WORKER = 2
"""So that a worker that is done early has more to do, and one that dies costs less."""


def write_historical_features(
    settings: Settings,
    rows_uri: str,
    views: Sequence[ViewRead],
    out_uri: str,
    *,
    timestamp: str,
    work_uri: str,
    shares: int | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Certificate:
    """Join rows on the cluster that the settings name, dealt out by entity.

    Safe to run twice, and when workers die: each part and the result are written whole or not at
    all, and are the same each time.

    ``work_uri`` is a folder of the join's own for its parts, which workers can write to; delete it
    afterwards. Each view's entities are dealt into ``shares`` shares, two a worker unless told. The
    other arguments are those of ``featurestore.join.out_of_core.write_historical_features``.

    Raises:
        ClusterUnreachable: if no scheduler answers.
        SchemaMismatch, UnknownName, StorageFailed: as in one process.
    """
    sources = {}
    with cluster(settings) as compute:
        jobs = share_jobs(
            rows_uri,
            views,
            settings.uri("offline"),
            work_uri,
            timestamp=timestamp,
            shares=shares or SHARES_A_WORKER * compute.workers,
            chunk_rows=chunk_rows,
        )
        for done in compute.run(
            Call(f"join-{number}", join_share, (job,)) for number, job in enumerate(jobs)
        ):
            if done.error:
                raise done.error
            sources[done.key] = done.result
    return put_together(jobs, [sources[f"join-{n}"] for n in range(len(jobs))], out_uri)
