"""What a run's features come from, as it stood when the run was planned.

Other features give other predictions, so the stamps are part of every shard's name, and a shard
looks at them again before and after it scores: it holds what its name says, or it is not written.
"""

from featurestore.offline.tables import table_uris
from headrace import storage
from headrace.errors import HeadraceError
from headrace.plan import FeaturePlan
from headrace.settings import Settings
from tasks.batch.job import Features, Job
from tasks.online_records import online_records


class FeaturesChanged(HeadraceError):
    """Features that were written while a run scored with them."""

    def __init__(self, source: str) -> None:
        self.source = source
        super().__init__(
            f"{source}, which features are read from, was written while it was used for scoring. "
            "Run the command again once it stands still; what is committed stays as it is."
        )


def feature_stamps(settings: Settings, plan: FeaturePlan, features: Features) -> dict[str, str]:
    """What changes whenever the features that a plan reads do.

    Returns:
        By file of the offline store its size and time or ETag; by view of the online store how far
        it was materialised. A store that only Feast knows keeps no such record, so runs with it
        share shards although its values may have changed.

    Raises:
        UnknownName: if a table is not there.
        StorageFailed, OnlineStoreFailed: if the store cannot be asked.
    """
    if features == "offline":
        root = settings.uri("offline")
        tables = dict.fromkeys(view.table for view in plan.views)
        uris = [uri for table in tables for uri in table_uris(root, table)]
        return {uri.removeprefix(f"{root}/"): storage.stamp(uri) for uri in uris}
    if features == "online" and plan.views:
        records = online_records(settings, plan.project) or {}
        found = {view.view: records.get(view.view) for view in plan.views}
        return {name: f"{one.tag.hex()} {one.until_us}" for name, one in found.items() if one}
    return {}


def check_stamps(settings: Settings, job: Job, plan: FeaturePlan) -> None:
    """Raise ``FeaturesChanged`` unless everything stands as it did when the run was planned."""
    if not job.stamps:
        return
    found = feature_stamps(settings, plan, job.features)
    for source in sorted({*job.stamps, *found}):
        if job.stamps.get(source) != found.get(source):
            raise FeaturesChanged(source)
