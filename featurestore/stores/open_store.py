"""The online store that the settings name."""

from featurestore.stores.stored import OnlineStore
from headrace.errors import SettingRefused
from headrace.settings import Settings


def open_store(settings: Settings, project: str) -> OnlineStore:
    """Open the online store for writing.

    Args:
        settings: ``online_uri`` names it: a path, or a ``redis://`` URL.
        project: the Feast project.

    Raises:
        OnlineStoreFailed: if it cannot be opened or reached.
        SettingRefused: if it is ``feast``: a store that only Feast knows is written by Feast.
    """
    if settings.online_uri == "feast":
        raise SettingRefused(
            "HEADRACE_ONLINE_STORE",
            "feast",
            "only Feast can write the store that feature_store.yaml names: use its own materialize "
            "and push, or name a path or a redis:// URL here",
        )
    if "://" in settings.online_uri:
        from featurestore.stores.redis_store import RedisStore

        return RedisStore(settings.online_uri, project)
    from featurestore.stores.sqlite_store import SqliteStore

    return SqliteStore(settings.online_path, project)
