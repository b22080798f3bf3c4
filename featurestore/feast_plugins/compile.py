"""Compile the Feast definitions into a ``Catalog``; the door to Feast itself.

The definitions are ordinary modules of Feast objects; applying them also writes Feast's own
registry and online tables, so Feast's tools see the same features as Headrace.
"""

import importlib
import pkgutil
import sqlite3
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.catalog.catalog import (
    REPOSITORY,
    Catalog,
    definitions_sha256,
    load_catalog,
    mark_applied,
    repository_folder,
)
from featurestore.errors import DefinitionsRefused, OnlineStoreFailed
from featurestore.feast_plugins.configuration import CONFIG, feast_configuration
from featurestore.feast_plugins.objects import descriptions, file_source, service_views, view_read
from headrace.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureStore

_REFUSED = ("StreamFeatureView", "BatchFeatureView", "LabelView")


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
    configuration = feast_configuration(settings, repository_folder(repository))
    mark_applied(settings, None)  # until Feast's registry is whole again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast warns about its own dependencies
        objects = _definitions(repository)
        entities = _named(objects, "Entity")
        views = _named(objects, "FeatureView")
        services = _named(objects, "FeatureService")
        on_demand = tuple(_named(objects, "OnDemandFeatureView"))
        reads = {name: view_read(view, entities) for name, view in views.items()}
        _place_sources(settings, views.values())
        _apply(settings, _store(settings, configuration), objects)
        catalog = Catalog(
            project=configuration["project"],
            definitions_sha256=digest,
            views=tuple(reads.values()),
            services={n: service_views(s, reads, on_demand) for n, s in services.items()},
            on_demand={n: names for n, s in services.items() if (names := _listed(s, on_demand))},
            push_sources=_push_sources(views),
            described=descriptions(entities, views, services),
        )
    mark_applied(settings, digest)
    return catalog


def feast_store(settings: Settings, *, repository: str = REPOSITORY) -> "FeatureStore":
    """Return Feast's own store with the definitions as they stand now, applied if need be.

    Raises:
        DefinitionsRefused: if the definitions cannot be used.
    """
    load_catalog(settings, repository=repository)
    return _store(settings, feast_configuration(settings, repository_folder(repository)))


def _store(settings: Settings, configuration: dict[str, Any]) -> "FeatureStore":
    from feast import FeatureStore, RepoConfig
    from feast.errors import FeastError

    try:
        config = RepoConfig(**configuration)
        config.repo_path = settings.home  # where a relative path of the file counts from
        return FeatureStore(config=config)
    except (FeastError, ValueError) as error:
        raise DefinitionsRefused(CONFIG, error) from error


def _definitions(repository: str) -> list[Any]:
    """The Feast objects of all modules of ``definitions/``, imported anew.

    A process that lives long may have imported an older version: it must not be compiled under the
    hash of the files as they are now.
    """
    from feast import Entity, FeatureService, FeatureView, OnDemandFeatureView

    package = f"{repository}.definitions"
    for name in [n for n in sys.modules if n == package or n.startswith(package + ".")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    folder = importlib.import_module(package).__path__
    names = sorted(module.name for module in pkgutil.walk_packages(folder, package + "."))
    found = [o for name in names for o in vars(importlib.import_module(name)).values()]
    for other in found:
        if type(other).__name__ in _REFUSED:
            raise DefinitionsRefused(
                other.name,
                f"it is a {type(other).__name__}; write a FeatureView, and what is computed at "
                "request time as a transform in featurestore/transforms/",
            )
    kinds = (Entity, FeatureView, FeatureService, OnDemandFeatureView)
    objects = list({id(o): o for o in found if isinstance(o, kinds)}.values())
    _refuse_doubles(objects)
    return objects


def _named(objects: Iterable[Any], kind: str) -> dict[str, Any]:
    return {o.name: o for o in objects if type(o).__name__ == kind}


def _refuse_doubles(objects: Iterable[Any]) -> None:
    seen: set[tuple[str, str]] = set()
    for named in objects:
        name = (type(named).__name__, named.name)
        if name in seen:
            raise DefinitionsRefused(named.name, f"there are two {name[0]} objects of this name")
        seen.add(name)


def _listed(service: Any, on_demand: Sequence[str]) -> tuple[str, ...]:
    return tuple(p.name for p in service.feature_view_projections if p.name in on_demand)


def _push_sources(views: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, view in views.items():
        if view.stream_source is not None:
            source = view.stream_source.name
            found[source] = (*found.get(source, ()), name)
    return found


def _place_sources(settings: Settings, views: Iterable[Any]) -> None:
    # Definitions say "offline/x.parquet"; where that lies is a setting, maybe another machine. Two
    # views may share a source, which must be placed once.
    sources = {id(source): source for source in map(file_source, views)}
    for source in sources.values():
        if not source.file_options.uri.startswith("offline/"):
            raise DefinitionsRefused(source.name, "its path must start with offline/")
        uri = settings.uri(source.file_options.uri)
        source.file_options.uri = uri if "://" in uri else str(Path(uri).absolute())


def _apply(settings: Settings, store: "FeatureStore", objects: list[Any]) -> None:
    from feast.errors import FeastError

    if settings.online_uri == str(settings.online_path):  # a file, not an address
        settings.online_path.parent.mkdir(parents=True, exist_ok=True)
    settings.home.mkdir(parents=True, exist_ok=True)
    try:
        # Nothing is deleted: an older model may still read a view that is no longer defined.
        store.apply(objects)
    except (FeastError, ValueError) as error:
        raise DefinitionsRefused(CONFIG, error) from error
    except sqlite3.Error as error:
        raise OnlineStoreFailed("make Feast's tables in", settings.online_path, error) from error
