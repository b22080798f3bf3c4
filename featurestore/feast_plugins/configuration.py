"""What Feast is told: ``feature_store.yaml``, with the places of this machine put in.

The file says what belongs to the project; where the registry, the tables and the online store lie
is said by the settings, so that the same definitions run on a laptop and on a cluster.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from featurestore.errors import DefinitionsRefused
from headrace.errors import SettingRefused
from headrace.settings import Settings

CONFIG = "feature_store.yaml"
_LOSES_ROWS = ("file", "dask", "feast.infra.offline_stores.dask.DaskOfflineStore", None)
# Feast's own stores, written by Headrace's rule: a late event never overwrites a newer one.
_SQLITE = "featurestore.feast_plugins.online_store.HeadraceSqliteOnlineStore"
_REDIS = "featurestore.feast_plugins.online_store.HeadraceRedisOnlineStore"


def feast_configuration(settings: Settings, folder: Path) -> dict[str, Any]:
    """Return the fields of Feast's ``RepoConfig``.

    Args:
        settings: says where the registry and the online store are.
        folder: where ``feature_store.yaml`` lies.

    Raises:
        DefinitionsRefused: if the file is missing, no YAML, or asks for what cannot be used.
        SettingRefused: for a Redis URL that Feast has no words for.
    """
    import yaml  # type: ignore[import-untyped]

    path = folder / CONFIG
    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise DefinitionsRefused(str(path), error.strerror or error) from error
    except yaml.YAMLError as error:
        raise DefinitionsRefused(str(path), f"it is not YAML: {error}") from error
    _check(str(path), found)
    found["registry"] = str(settings.home / "feature_registry.db")
    if settings.online_uri != "feast":
        found["online_store"] = online_configuration(settings)
    elif not found.get("online_store"):
        raise DefinitionsRefused(
            str(path), "HEADRACE_ONLINE_STORE is 'feast', so it must name an online_store"
        )
    return dict(found)


def online_configuration(settings: Settings) -> dict[str, Any]:
    """Feast's words for the SQLite file or the Redis server that the settings name."""
    if "://" not in settings.online_uri:
        return {"type": _SQLITE, "path": str(settings.online_path)}
    return {"type": _REDIS, "connection_string": connection_string(settings.online_uri)}


def connection_string(url: str) -> str:
    """A Redis URL as Feast writes it.

    >>> connection_string("rediss://ann:secret@cache:6380/2")
    'cache:6380,db=2,username="ann",password="secret",ssl=true'
    """
    parts = urlsplit(url)
    host = parts.hostname or "127.0.0.1"
    if ":" in host:
        from featurestore.stores.resp import (
            shown,  # brings hiredis, which no other reader of this needs
        )

        place = shown(url)
        raise SettingRefused(
            "HEADRACE_ONLINE_STORE", place, "Feast takes no IPv6 address here; write a host name"
        )
    words = [f"{host}:{parts.port or 6379}", f"db={parts.path.strip('/') or 0}"]
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value:
            words.append(f"{name}={_quoted(unquote(value))}")
    return ",".join(words + ["ssl=true"] * (parts.scheme == "rediss"))


def _quoted(text: str) -> str:
    # Feast splits at commas and reads each value as JSON: unquoted, the password 1e3 is a number.
    return json.dumps(text).replace(",", "\\u002c")


def _check(path: str, found: Any) -> None:
    if not isinstance(found, dict) or not isinstance(found.get("project"), str):
        raise DefinitionsRefused(path, "it must name a project")
    offline = found.get("offline_store")
    kind = offline.get("type") if isinstance(offline, dict) else offline
    if kind in _LOSES_ROWS:
        raise DefinitionsRefused(
            path,
            f"offline_store {kind or 'left out'} means Feast's dask store, which loses rows; "
            "write type: featurestore.feast_plugins.offline_store.HeadraceOfflineStore",
        )
    if found.get("entity_key_serialization_version", 3) != 3:
        raise DefinitionsRefused(path, "entity_key_serialization_version must be 3")
