"""The online store that the settings name."""

from featurestore.stored import OnlineStore
from headrace.settings import Settings


def open_store(settings: Settings, project: str) -> OnlineStore:
    """Open the online store for writing.

    Args:
        settings: ``online_uri`` names it: a path, or a ``redis://`` URL.
        project: the Feast project.

    Raises:
        OnlineStoreFailed: if it cannot be opened or reached.
    """
    if "://" in settings.online_uri:
        from featurestore.redis_store import RedisStore

        return RedisStore(settings.online_uri, project)
    from featurestore.sqlite_store import SqliteStore

    return SqliteStore(settings.online_path, project)
