"""The same join dealt out by entity, for views that are too large for one memory, and for clusters.

For each view the entities are dealt into shares. A job joins one share of one view: it goes through
all rows, keeps those whose entity is its own, and writes what it found with each row's number. What
belongs to a row is then put together by number, chunk after chunk. An entity's rows and values are
all in one share and keep their order there, so a job finds for a row what a join of everything
finds, and the result has the same bytes. Jobs know nothing of each other and may run anywhere,
in any order, twice.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pydantic import AwareDatetime

from featurestore.columns import microseconds
from featurestore.errors import RowsLost
from featurestore.join.certificate import Certificate, SourceRead
from featurestore.join.keys import RowKeys
from featurestore.join.out_of_core import (
    CHUNK_ROWS,
    chunks,
    span_of_rows,
    write_joined,
    write_parquet,
)
from featurestore.join.pit import JoinedView
from featurestore.join.reach import OpenView, open_view
from featurestore.join.shares import EntityShare
from headrace.plan import ViewRead
from headrace.spec import Part

_ROW, _EVENT, _REASON = "row", "event time", "reason"
_PART_ROWS = 65_536


class ShareJob(Part):
    """One share of one view, to be joined to all rows of its entities."""

    rows_uri: str
    read: ViewRead
    offline_uri: str
    timestamp: str
    span: tuple[AwareDatetime, AwareDatetime] | None
    share: EntityShare
    chunk_rows: int
    part_uri: str
    """Where to write what is found."""


def share_jobs(
    rows_uri: str,
    views: Sequence[ViewRead],
    offline_uri: str,
    work_uri: str,
    *,
    timestamp: str,
    shares: int,
    chunk_rows: int = CHUNK_ROWS,
) -> tuple[ShareJob, ...]:
    """The jobs of a join, view by view, each view's shares in order.

    ``work_uri`` is a folder of the join's own, which all who run jobs can write to, for their
    parts. One of ``shares`` shares of the largest view is what a worker must hold. The other
    arguments are those of ``featurestore.join.out_of_core.write_historical_features``.
    """
    span = span_of_rows(rows_uri, timestamp)
    return tuple(
        ShareJob(
            rows_uri=rows_uri,
            read=read,
            offline_uri=offline_uri,
            timestamp=timestamp,
            span=span,
            share=EntityShare(number=number, of=shares),
            chunk_rows=chunk_rows,
            part_uri=f"{work_uri}/{read.view}.{number}-of-{shares}.parquet",
        )
        for read in views
        for number in range(shares)
    )


def join_share(job: ShareJob) -> SourceRead:
    """Do one job, and say what was read of the view; only share 0 hashes it.

    Safe to run twice: the part is written whole or not at all, and its bytes are always the same.
    """
    hashes = job.share.number == 0
    view = open_view(
        job.offline_uri, job.read, job.span, share=job.share, as_arrow=True, fingerprint=hashes
    )
    write_parquet(_found(job, view), job.part_uri)
    return view.source


def put_together(
    jobs: Sequence[ShareJob], sources: Sequence[SourceRead], out_uri: str
) -> Certificate:
    """Write the rows with what all jobs found, and return the certificate.

    Args:
        jobs: all of a join, as ``share_jobs`` gives them; their parts are there.
        sources: what ``join_share`` returned for each.
        out_uri: the Parquet file to write, whole or not at all.

    Raises:
        RowsLost: if a part does not have what it must.
        StorageFailed: if a part cannot be read, or the result cannot be written.
    """
    views = [job.read for job in jobs if job.share.number == 0]
    firsts = [s for job, s in zip(jobs, sources, strict=True) if job.share.number == 0]
    timestamp = jobs[0].timestamp
    return write_joined(_joined(jobs, views), views, out_uri, sources=firsts, timestamp=timestamp)


def _found(job: ShareJob, view: OpenView) -> Iterator[pa.Table]:
    """What the job's share has for its rows, chunk by chunk."""
    columns = list(dict.fromkeys([*job.read.key_names, job.timestamp]))
    first = 0
    for rows in chunks(job.rows_uri, job.chunk_rows, columns=columns):
        mine = job.share.places(RowKeys(rows), job.read.join_keys)
        own = rows.take(pa.array(mine))
        joined = view.join(RowKeys(own), microseconds(own, "rows", job.timestamp))
        yield pa.table(
            {
                _ROW: mine + first,
                _EVENT: joined.event_times.view(np.int64),
                _REASON: joined.reasons,
                **joined.columns,
            }
        )
        first += rows.num_rows


def _joined(
    jobs: Sequence[ShareJob], views: Sequence[ViewRead]
) -> Iterator[tuple[pa.Table, list[JoinedView]]]:
    streams = {
        view.view: [_Part(job.part_uri) for job in jobs if job.read == view] for view in views
    }
    first = 0
    for rows in chunks(jobs[0].rows_uri, jobs[0].chunk_rows):
        end = first + rows.num_rows
        yield rows, [_of_rows(streams[view.view], view, first, end) for view in views]
        first = end


def _of_rows(parts: Sequence["_Part"], view: ViewRead, first: int, end: int) -> JoinedView:
    """What the parts of a view have for rows ``first`` to ``end``, in the rows' order."""
    found = pa.concat_tables(part.below(end) for part in parts)
    order = np.argsort(found[_ROW].to_numpy())
    found = found.take(pa.array(order))
    if not np.array_equal(found[_ROW].to_numpy(), np.arange(first, end)):
        raise RowsLost(view.view, first, end, found.num_rows)
    return JoinedView(
        columns={name: found[name].combine_chunks() for name in view.columns},
        event_times=found[_EVENT].to_numpy().view("datetime64[us]"),
        reasons=found[_REASON].to_numpy(),
    )


class _Part:
    """A part, read from its beginning to its end, some rows at a time."""

    def __init__(self, uri: str) -> None:
        self._pieces = chunks(uri, _PART_ROWS)
        self._held = next(self._pieces)

    def below(self, end: int) -> pa.Table:
        """The next rows, up to row number ``end``."""
        taken = []
        while True:
            cut = int(np.searchsorted(self._held[_ROW].to_numpy(), end))
            taken.append(self._held.slice(0, cut))
            self._held = self._held.slice(cut)
            if self._held.num_rows:
                break
            following = next(self._pieces, None)
            if following is None:
                break
            self._held = following
        return pa.concat_tables(taken)
