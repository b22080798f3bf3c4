"""What the online store says of the views in it, for checks and listings: nothing is written."""

from contextlib import closing

from featurestore.stores.open_store import open_store
from featurestore.stores.stored import StoredView
from headrace.settings import Settings
from monitoring.feature_report import OnlineState


def online_records(settings: Settings, project: str) -> dict[str, StoredView] | None:
    """The record of each view in the online store; None for a store that keeps no records.

    Raises:
        OnlineStoreFailed: if the store cannot be reached or read.
    """
    if settings.online_uri == "feast":
        return None
    if "://" not in settings.online_uri and not settings.online_path.exists():
        return {}  # opening it would make it
    with closing(open_store(settings, project)) as store:
        return store.views()


def state_of(records: dict[str, StoredView] | None, view: str) -> OnlineState:
    """Whether the online store has a view, by what ``online_records`` returned."""
    if records is None:
        return "unknown"
    if view not in records:
        return "missing"
    return "loading" if records[view].loading else "there"
