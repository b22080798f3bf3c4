"""Gather what is known of the features: definitions, stores, the last check, and who reads them.

Plain functions for a command that must answer at once: nothing here starts a flow, and Feast is
imported only where the definitions have changed since somebody compiled them.
"""

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from featurestore.catalog.catalog import Catalog, load_catalog, service_reads
from featurestore.catalog.discovery import (
    FeatureEntry,
    Listing,
    ReaderEntry,
    ServiceEntry,
    TransformEntry,
    ViewEntry,
    describe,
    search,
)
from featurestore.errors import OnlineStoreFailed
from featurestore.offline.tables import table_span
from featurestore.stores.stored import StoredView
from headrace import storage
from headrace.bundle import read_manifest
from headrace.errors import BundleRefused, HeadraceError
from headrace.plan import FeaturePlan, ViewRead
from headrace.settings import Settings
from headrace.spec import ModelSpec, load_spec, model_names
from headrace.transform import Transform, all_transforms
from monitoring.feature_report import FeatureHealth, FeatureReport
from tasks.feature_health import latest_report
from tasks.online_records import online_records, state_of
from tasks.readers import live_readers

__all__ = ["describe", "gather", "listing_of", "search", "write_page"]

Reading = list[tuple[ReaderEntry, FeaturePlan]]
"""Models that read features, each with its plan."""


class _Known(NamedTuple):
    """What every entry is made of."""

    settings: Settings
    catalog: Catalog
    records: dict[str, StoredView] | None
    report: FeatureReport | None
    reading: Reading
    specs: tuple[ModelSpec, ...]


def gather(settings: Settings, *, versions: bool = False) -> Listing:
    """Return the listing of every view and service of the definitions.

    Raises:
        DefinitionsRefused: if the definitions cannot be used.
    """
    return listing_of(settings, load_catalog(settings), versions=versions)


def listing_of(settings: Settings, catalog: Catalog, *, versions: bool = False) -> Listing:
    """Return the listing of a catalog's views and services.

    Args:
        settings: where everything is.
        catalog: the compiled definitions.
        versions: ask the model registry too which of its versions read what; takes seconds.
    """
    problems: list[str] = []
    reading = list(_running(settings, catalog))
    known = _Known(
        settings=settings,
        catalog=catalog,
        records=_records(settings, catalog, problems),
        report=latest_report(settings),
        reading=reading + (_registered(settings, catalog) if versions else []),
        specs=tuple(load_spec(model) for model in model_names()),
    )
    return Listing(
        project=catalog.project,
        definitions_sha256=catalog.definitions_sha256,
        views=tuple(_view(known, view) for view in catalog.views),
        services=tuple(_service(known, name) for name in sorted(catalog.services)),
        transforms=tuple(_transform(known, made) for made in all_transforms()),
        checked_at=known.report.at if known.report else None,
        problems=tuple(problems),
    )


def write_page(settings: Settings, listing: Listing) -> str:
    """Write the page of a listing and return where. Safe to run twice: it is replaced."""
    from featurestore.catalog.discovery_page import page

    uri = settings.uri("reports", "features.html")
    storage.write_atomic(uri, page(listing, made_at=datetime.now(UTC)).encode())
    return uri


def _records(
    settings: Settings, catalog: Catalog, problems: list[str]
) -> dict[str, StoredView] | None:
    try:
        return online_records(settings, catalog.project)
    except OnlineStoreFailed as error:  # what is defined can be listed all the same
        problems.append(str(error))
        return None


def _running(settings: Settings, catalog: Catalog) -> Iterator[tuple[ReaderEntry, FeaturePlan]]:
    for reader in live_readers(settings):
        yield (
            ReaderEntry(
                model=reader.model,
                digest=reader.digest,
                where=f"{reader.role} of {reader.endpoint}",
                as_defined=_as_defined(catalog, reader.plan),
            ),
            reader.plan,
        )


def _registered(settings: Settings, catalog: Catalog) -> Reading:
    from registry.models import ModelRegistry

    registry, found = ModelRegistry(settings.registry_uri), []
    for version in registry.all_versions():
        try:
            plan = read_manifest(settings.uri("bundles"), version.digest).plan
        except BundleRefused:
            continue  # registered long ago, and its bundle cleared away: it reads nothing here
        entry = ReaderEntry(
            model=version.name,
            digest=version.digest,
            where=f"version {version.version}",
            as_defined=_as_defined(catalog, plan),
        )
        found.append((entry, plan))
    return found


def _as_defined(catalog: Catalog, plan: FeaturePlan) -> bool:
    if plan.feature_service is None:
        return True  # it reads nothing that could be defined otherwise
    if plan.feature_service not in catalog.services or plan.project != catalog.project:
        return False
    now = plan.model_copy(update={"views": service_reads(catalog, plan.feature_service)})
    return now.reads_sha256 == plan.reads_sha256


def _view(known: _Known, read: ViewRead) -> ViewEntry:
    catalog, report, records = known.catalog, known.report, known.records
    said = catalog.described.views[read.view]
    sources = [name for name, views in catalog.push_sources.items() if read.view in views]
    services = [n for n, parts in catalog.services.items() if read.view in {p.view for p in parts}]
    stored = (records or {}).get(read.view)
    checked = _checked(report, read.view)
    return ViewEntry(
        name=read.view,
        description=said.description,
        owner=said.owner,
        tags=said.tags,
        entities=said.entities,
        join_keys=tuple(f"{key.name} {key.dtype}" for key in read.join_keys),
        table=read.table,
        push_source=sources[0] if sources else None,
        event_timestamp=read.event_timestamp,
        created_timestamp=read.created_timestamp,
        ttl_seconds=read.ttl_seconds,
        newest_event=_newest(known.settings, read),
        online=state_of(records, read.view),
        online_until=stored.until if stored else None,
        online_newest_event=stored.newest_event if stored else None,
        features=tuple(
            FeatureEntry(
                name=feature.name,
                column=column,
                dtype=feature.dtype,
                description=said.features[feature.name].description,
                tags=said.features[feature.name].tags,
                null_rate=checked[feature.name].null_rate if feature.name in checked else None,
                psi=checked[feature.name].psi if feature.name in checked else None,
            )
            for column, feature in zip(read.columns, read.features, strict=True)
        ),
        services=tuple(sorted(services)),
        readers=tuple(
            entry
            for entry, plan in known.reading
            if read.view in {view.view for view in plan.views}
        ),
        findings=tuple(f.sentence for f in report.findings if f.view == read.view)
        if report
        else (),
    )


def _service(known: _Known, name: str) -> ServiceEntry:
    catalog = known.catalog
    said = catalog.described.services[name]
    return ServiceEntry(
        name=name,
        description=said.description,
        owner=said.owner,
        tags=said.tags,
        views={part.view: part.features for part in catalog.services[name]},
        on_demand=catalog.on_demand.get(name, ()),
        models=tuple(spec.name for spec in known.specs if spec.feature_service == name),
        readers=tuple(entry for entry, plan in known.reading if plan.feature_service == name),
    )


def _transform(known: _Known, made: Transform) -> TransformEntry:
    return TransformEntry(
        name=made.name,
        description=inspect.cleandoc(made.function.__doc__ or "").partition("\n\n")[0],
        inputs=made.inputs,
        source_sha256=made.source_sha256,
        models=tuple(spec.name for spec in known.specs if made.name in spec.transforms),
    )


def _checked(report: FeatureReport | None, view: str) -> dict[str, FeatureHealth]:
    found = [health for health in report.views if health.view == view] if report else []
    return {feature.name: feature for health in found for feature in health.features}


def _newest(settings: Settings, read: ViewRead) -> datetime | None:
    try:
        return table_span(settings.uri("offline"), read.table, read.event_timestamp)[1]
    except HeadraceError:  # no table yet, or a damaged one: check_features says which
        return None
