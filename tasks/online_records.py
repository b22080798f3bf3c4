"""What the online store says of the views in it, for checks and listings: nothing is written."""

from featurestore.stores.open_store import open_store
from featurestore.stores.stored import StoredView
from headrace.settings import Settings


def online_records(settings: Settings, project: str) -> dict[str, StoredView] | None:
    """The record of each view in the online store; None for a store that keeps no records.

    Raises:
        OnlineStoreFailed: if the store cannot be reached or read.
    """
    if settings.online_uri == "feast":
        return None
    if "://" not in settings.online_uri and not settings.online_path.exists():
        return {}  # opening it would make it
    store = open_store(settings, project)
    try:
        return store.views()
    finally:
        store.close()
