"""Feast's objects in Headrace's words: what a view reads, what a service takes, what both say.

Feast itself is not imported here: its objects come in, ours go out, and what Headrace does not
have is refused by name, with what to write instead.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from featurestore.catalog.catalog import ServiceView
from featurestore.catalog.descriptions import (
    Description,
    Descriptions,
    EntityDescription,
    FeatureDescription,
    ViewDescription,
)
from featurestore.errors import DefinitionsRefused
from featurestore.offline.tables import SUFFIX
from headrace.plan import FeatureRead, JoinKey, KeyType, ValueType, ViewRead

_KEY_TYPES: tuple[str, ...] = get_args(KeyType)
_VALUE_TYPE: TypeAdapter[ValueType] = TypeAdapter(ValueType)
_SOURCE = re.compile(r"(?:.*/)?offline/([a-z0-9][a-z0-9._-]*)" + re.escape(SUFFIX))


def view_read(view: Any, entities: Mapping[str, Any]) -> ViewRead:
    """A Feast feature view as the read that Headrace makes of it.

    Args:
        view: as defined, or as Feast's registry gives it back.
        entities: Feast's entities by name.

    Raises:
        DefinitionsRefused: if the view uses what Headrace does not have.
    """
    source = file_source(view)
    if source.field_mapping:
        raise DefinitionsRefused(
            view.name, "its source maps fields; name the columns in the table as the features are"
        )
    ttl = view.ttl.total_seconds() if view.ttl else 0.0
    return ViewRead(
        view=view.name,
        table=_table(view.name, source.path),
        join_keys=tuple(_join_key(view.name, name, entities) for name in view.entities),
        event_timestamp=source.timestamp_field,
        created_timestamp=source.created_timestamp_column or None,
        ttl_seconds=ttl or None,  # Feast's zero means no limit
        features=tuple(_feature(view.name, source, feature) for feature in view.features),
    )


def file_source(view: Any) -> Any:
    """The ``FileSource`` that the view's history comes from; that of its push source if it has one.

    Raises:
        DefinitionsRefused: for a view with another source, or of one of Feast's own versions.
    """
    source, stream = view.batch_source, view.stream_source
    if stream is not None and type(stream).__name__ != "PushSource":
        raise DefinitionsRefused(
            view.name, f"its source is a {type(stream).__name__}; use a FileSource or a PushSource"
        )
    if source is None or getattr(source, "file_options", None) is None:
        raise DefinitionsRefused(
            view.name, f"its source must be FileSource(path='offline/<table>{SUFFIX}')"
        )
    if view.version != "latest":
        raise DefinitionsRefused(
            view.name,
            f"it asks for Feast's version {view.version}, of which only one can be live; write a "
            f"second view, such as {view.name}_v2",
        )
    return source


def service_views(
    service: Any, views: Mapping[str, ViewRead], on_demand: Sequence[str]
) -> tuple[ServiceView, ...]:
    """The views that a Feast feature service takes features of, in its order.

    Args:
        service: as applied, so that Feast has resolved what it names by text.
        views: the known feature views.
        on_demand: names of on-demand views, which Feast computes and Headrace passes over.

    Raises:
        DefinitionsRefused: for a view that is renamed, pinned to a version or not there.
    """
    for projection in service.feature_view_projections:
        if projection.name_alias or projection.join_key_map or projection.version_tag is not None:
            raise DefinitionsRefused(
                service.name,
                f"{projection.name} is renamed or pinned to a version of Feast's; "
                "use the view under its own name",
            )
        if projection.name not in views and projection.name not in on_demand:
            raise DefinitionsRefused(
                service.name, f"it lists {projection.name}, which is no view of the definitions"
            )
    return tuple(
        ServiceView(view=p.name, features=tuple(feature.name for feature in p.features))
        for p in service.feature_view_projections
        if p.name in views
    )


def descriptions(
    entities: Mapping[str, Any], views: Mapping[str, Any], services: Mapping[str, Any]
) -> Descriptions:
    """What the definitions say of themselves."""
    return Descriptions(
        entities={
            name: EntityDescription(
                **_said(entity), join_key=entity.join_key, dtype=entity.value_type.name
            )
            for name, entity in entities.items()
            if entity.value_type.name in _KEY_TYPES
        },
        views={
            name: ViewDescription(
                **_said(view),
                entities=tuple(view.entities),
                features={
                    field.name: FeatureDescription(description=field.description, tags=field.tags)
                    for field in view.features
                },
            )
            for name, view in views.items()
        },
        services={name: Description(**_said(service)) for name, service in services.items()},
    )


def _said(named: Any) -> dict[str, Any]:
    return {"description": named.description, "owner": named.owner, "tags": dict(named.tags)}


def _table(view: str, path: str) -> str:
    found = _SOURCE.fullmatch(path)
    if found is None:
        raise DefinitionsRefused(
            view, f"its source must be FileSource(path='offline/<table>{SUFFIX}'), not {path!r}"
        )
    return found.group(1)


def _join_key(view: str, name: str, entities: Mapping[str, Any]) -> JoinKey:
    if name not in entities:
        what = "it has no entity" if name == "__dummy" else f"there is no entity {name}"
        raise DefinitionsRefused(view, f"{what}; give it one that definitions/ names")
    entity = entities[name]
    dtype = entity.value_type.name
    if dtype not in _KEY_TYPES:
        raise DefinitionsRefused(
            f"{view}.{entity.join_key}", f"type {dtype} is no key; use {', '.join(_KEY_TYPES)}"
        )
    return JoinKey(name=entity.join_key, dtype=dtype)


def _feature(view: str, source: Any, field: Any) -> FeatureRead:
    dtype = field.dtype.to_value_type().name
    try:
        _VALUE_TYPE.validate_python(dtype)
    except ValidationError as error:
        raise DefinitionsRefused(
            f"{view}.{field.name}", f"type {dtype} is not kept; use Bytes, or another type"
        ) from error
    if field.name in (source.timestamp_field, source.created_timestamp_column):
        raise DefinitionsRefused(
            f"{view}.{field.name}", "that is a time column of its source; it can be no feature"
        )
    return FeatureRead(name=field.name, dtype=dtype)
