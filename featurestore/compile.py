"""Compile the Feast definitions into a ``Catalog``. Feast is imported here and in the plug-in only.

The definitions are ordinary modules of Feast objects; applying them also writes Feast's own
registry and online tables, so Feast's tools see the same features as Headrace.
"""

import importlib
import pkgutil
import sqlite3
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from featurestore.catalog import (
    CONFIG,
    REPOSITORY,
    Catalog,
    ServiceView,
    definitions_sha256,
    repository_folder,
)
from featurestore.errors import DefinitionsRefused, OnlineStoreFailed
from featurestore.offline import SUFFIX
from headrace.plan import FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings

_LOSES_ROWS = ("file", "dask", "feast.infra.offline_stores.dask.DaskOfflineStore", None)
_KEY_TYPES = ("STRING", "INT32", "INT64")


def compile_definitions(settings: Settings, *, repository: str = REPOSITORY) -> Catalog:
    """Apply the definitions to Feast's registry and return them as a catalog.

    Takes seconds, and hundreds of megabytes that stay with the process: call ``load_catalog``,
    which does this once for each version of the definitions.

    Args:
        settings: says where Feast's registry, the online store and the offline tables are.
        repository: the package with ``feature_store.yaml`` and ``definitions/``.

    Raises:
        DefinitionsRefused: for a configuration or definition that cannot be used.
        OnlineStoreFailed: if Feast cannot make its online tables.
    """
    digest = definitions_sha256(repository)
    configuration = _configuration(settings, repository)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast warns about its own dependencies
        objects = _definitions(repository)
        _apply(settings, configuration, objects)
        entities = {e.name: e for e in objects if type(e).__name__ == "Entity"}
        views = [o for o in objects if type(o).__name__ == "FeatureView"]
        services = [o for o in objects if type(o).__name__ == "FeatureService"]
        return Catalog(
            project=configuration["project"],
            definitions_sha256=digest,
            views=tuple(view_read(view, entities) for view in views),
            services={service.name: _service_views(service) for service in services},
        )


def view_read(view: Any, entities: dict[str, Any]) -> ViewRead:
    """A Feast feature view as the read that Headrace makes of it.

    Raises:
        DefinitionsRefused: if the view uses what Headrace does not have.
    """
    source = view.batch_source
    if not source.created_timestamp_column or source.field_mapping:
        raise DefinitionsRefused(
            view.name, "its source must name a created_timestamp_column and map no fields"
        )
    ttl = view.ttl.total_seconds() if view.ttl else 0.0
    return ViewRead(
        view=view.name,
        table=source.path.rsplit("/", 1)[-1].removesuffix(SUFFIX),
        join_keys=tuple(_join_key(view.name, entities[name]) for name in view.entities),
        event_timestamp=source.timestamp_field,
        created_timestamp=source.created_timestamp_column,
        ttl_seconds=ttl or None,  # Feast's zero means no limit
        features=tuple(_feature(view.name, feature) for feature in view.features),
    )


def _join_key(view: str, entity: Any) -> JoinKey:
    dtype = entity.value_type.name
    if dtype not in _KEY_TYPES:
        raise DefinitionsRefused(
            f"{view}.{entity.join_key}", f"type {dtype} is no key; use {', '.join(_KEY_TYPES)}"
        )
    return JoinKey(name=entity.join_key, dtype=dtype)


def _feature(view: str, field: Any) -> FeatureRead:
    dtype = field.dtype.to_value_type().name
    if dtype not in ("FLOAT", "DOUBLE", "INT32", "INT64", "BOOL"):
        raise DefinitionsRefused(
            f"{view}.{field.name}", f"type {dtype} is no number; use Float64, Int64 or Bool"
        )
    return FeatureRead(name=field.name, dtype=dtype)


def _service_views(service: Any) -> tuple[ServiceView, ...]:
    for projection in service.feature_view_projections:
        if projection.name_alias or projection.join_key_map:
            raise DefinitionsRefused(
                service.name, f"{projection.name} is renamed; use the view under its own name"
            )
    return tuple(
        ServiceView(view=p.name, features=tuple(feature.name for feature in p.features))
        for p in service.feature_view_projections
    )


def _configuration(settings: Settings, repository: str) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    path = repository_folder(repository) / CONFIG
    try:
        found = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise DefinitionsRefused(str(path), f"it is not YAML: {error}") from error
    _check_configuration(str(path), found)
    found["registry"] = str(settings.home / "feature_registry.db")
    found["online_store"] = {"type": "sqlite", "path": str(settings.online_path)}
    return dict(found)


def _check_configuration(path: str, found: Any) -> None:
    if not isinstance(found, dict) or not isinstance(found.get("project"), str):
        raise DefinitionsRefused(path, "it must name a project")
    offline = found.get("offline_store")
    kind = offline.get("type") if isinstance(offline, dict) else offline
    if kind in _LOSES_ROWS:
        raise DefinitionsRefused(
            path,
            f"offline_store {kind or 'left out'} means Feast's dask store, which loses rows; "
            "write type: featurestore.feast_plugin.HeadraceOfflineStore",
        )
    online = found.get("online_store") or {}
    if (online.get("type") if isinstance(online, dict) else online) != "sqlite":
        raise DefinitionsRefused(path, "online_store must be of type sqlite")
    if found.get("entity_key_serialization_version", 3) != 3:
        raise DefinitionsRefused(path, "entity_key_serialization_version must be 3")


def _definitions(repository: str) -> list[Any]:
    """The Feast objects of all modules of ``definitions/``, imported anew.

    A process that lives long may have imported an older version: it must not be compiled under the
    hash of the files as they are now.
    """
    from feast import Entity, FeatureService, FeatureView

    package = f"{repository}.definitions"
    for name in [n for n in sys.modules if n == package or n.startswith(package + ".")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    folder = importlib.import_module(package).__path__
    names = sorted(module.name for module in pkgutil.walk_packages(folder, package + "."))
    found = [o for name in names for o in vars(importlib.import_module(name)).values()]
    for other in found:
        if type(other).__name__ in ("OnDemandFeatureView", "StreamFeatureView", "BatchFeatureView"):
            raise DefinitionsRefused(
                other.name,
                f"it is a {type(other).__name__}; write a FeatureView, and what is computed at "
                "request time as a transform in featurestore/transforms/",
            )
    kinds = (Entity, FeatureView, FeatureService)
    objects = list({id(o): o for o in found if isinstance(o, kinds)}.values())
    _refuse_doubles(objects)
    return objects


def _refuse_doubles(objects: Iterable[Any]) -> None:
    seen: set[tuple[str, str]] = set()
    for named in objects:
        name = (type(named).__name__, named.name)
        if name in seen:
            raise DefinitionsRefused(named.name, f"there are two {name[0]} objects of this name")
        seen.add(name)


def _apply(settings: Settings, configuration: dict[str, Any], objects: list[Any]) -> None:
    from feast import FeatureStore, RepoConfig
    from feast.errors import FeastError

    settings.online_path.parent.mkdir(parents=True, exist_ok=True)
    settings.home.mkdir(parents=True, exist_ok=True)
    for view in objects:
        if type(view).__name__ == "FeatureView":
            _place_source(settings, view)
    try:
        FeatureStore(config=RepoConfig(**configuration)).apply(objects)
    except (FeastError, ValueError) as error:
        raise DefinitionsRefused(CONFIG, error) from error
    except sqlite3.Error as error:
        raise OnlineStoreFailed("make Feast's tables in", settings.online_path, error) from error


def _place_source(settings: Settings, view: Any) -> None:
    # Definitions say "offline/x.parquet"; where that lies is a setting, maybe another machine.
    options = getattr(view.batch_source, "file_options", None)
    if options is None or not options.uri.startswith("offline/"):
        raise DefinitionsRefused(
            view.name, f"its source must be FileSource(path='offline/<table>{SUFFIX}')"
        )
    options.uri = settings.uri(options.uri)
