"""``FeaturePlan``: what one model version reads, and in which order, with no feature store import.

Compiled from the Feast definitions when a model is trained and kept in its bundle. Training,
batch prediction and the server all follow the same plan, so they cannot disagree.
"""

import hashlib
from functools import cached_property
from typing import Any, Literal, get_args

from pydantic import SerializerFunctionWrapHandler, model_serializer

from headrace.errors import BundleRefused
from headrace.missing import MissingRule
from headrace.spec import Part, RequestField
from headrace.transform import Transform, find_transform

KeyType = Literal["STRING", "INT32", "INT64"]
NumberType = Literal["FLOAT", "DOUBLE", "INT32", "INT64", "BOOL"]
# Feast's names. What is no number is read as Python objects and can only feed a transform.
ObjectType = Literal[
    "BYTES", "STRING", "UNIX_TIMESTAMP", "ZONED_TIMESTAMP", "UUID", "TIME_UUID", "DECIMAL", "JSON",
    "BYTES_LIST", "STRING_LIST", "INT32_LIST", "INT64_LIST", "DOUBLE_LIST", "FLOAT_LIST",
    "BOOL_LIST", "UNIX_TIMESTAMP_LIST", "UUID_LIST", "TIME_UUID_LIST", "DECIMAL_LIST", "JSON_LIST",
    "BYTES_SET", "STRING_SET", "INT32_SET", "INT64_SET", "DOUBLE_SET", "FLOAT_SET",
    "BOOL_SET", "UNIX_TIMESTAMP_SET", "UUID_SET", "TIME_UUID_SET", "DECIMAL_SET",
    "MAP", "MAP_LIST", "SCALAR_MAP", "STRUCT", "STRUCT_LIST", "VALUE_LIST", "VALUE_SET",
]  # fmt: skip
ValueType = NumberType | ObjectType
NUMBERS = frozenset(get_args(NumberType))
"""The types whose values are columns of float64, and may be inputs of a model."""


class JoinKey(Part):
    """A column that names an entity, with Feast's name of its type."""

    name: str
    dtype: KeyType = "STRING"


class FeatureRead(Part):
    """One feature of a view; its column is ``<view>__<name>``."""

    name: str
    dtype: ValueType


class ViewRead(Part):
    """One read: the latest values of a feature view for an entity."""

    view: str
    table: str
    """The table of the offline store that the view's values come from."""
    join_keys: tuple[JoinKey, ...]
    """In the order of the entity columns in requests; the store sorts them itself."""
    event_timestamp: str
    """The table's column that says when a value was true."""
    created_timestamp: str | None
    """The one that says when it was written; None: a value is known at its event time."""
    ttl_seconds: float | None
    """How old a value may be; None: any age."""
    features: tuple[FeatureRead, ...]
    last_known: bool = False
    """Whether an older value is used all the same, and labelled so."""

    @model_serializer(mode="wrap")
    def _without_default(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _left_out(dump(self), "last_known")  # as before there were policies: hashes stay

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns this read makes."""
        return tuple(f"{self.view}__{feature.name}" for feature in self.features)

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Those of ``columns`` that are numbers, and so may be inputs of a model."""
        return tuple(f"{self.view}__{f.name}" for f in self.features if f.dtype in NUMBERS)

    @property
    def known_timestamp(self) -> str:
        """The column that says from when on a value could be known."""
        return self.created_timestamp or self.event_timestamp

    @property
    def timestamps(self) -> tuple[str, ...]:
        """The time columns of the table: event and, if it has one, created."""
        return tuple(dict.fromkeys((self.event_timestamp, self.known_timestamp)))

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the join keys."""
        return tuple(key.name for key in self.join_keys)


class TransformPin(Part):
    """A request-time feature, pinned by the hash of its source."""

    name: str
    inputs: tuple[str, ...]
    output: str
    source_sha256: str


class FeaturePlan(Part):
    """Everything between a request and the model's input matrix."""

    project: str
    """The Feast project, part of the online store's table names."""
    feature_service: str | None
    """None: a model of request fields alone."""
    definitions_sha256: str
    """The hash of the feature definitions that the plan was compiled from."""
    event_timestamp: str
    """The request column with the moment of prediction; ages are measured against it."""
    views: tuple[ViewRead, ...]
    request: tuple[RequestField, ...]
    inputs_from_request: tuple[str, ...]
    transforms: tuple[TransformPin, ...]
    missing: tuple[MissingRule, ...] = ()
    """What becomes of rows without a value."""

    @model_serializer(mode="wrap")
    def _without_default(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _left_out(dump(self), "missing")

    @cached_property
    def defaults(self) -> dict[str, float]:
        """By column what stands for a missing value; what is said of a feature comes first."""
        found: dict[str, float] = {}
        for rule in sorted(self.missing, key=lambda rule: rule.feature is not None):
            if rule.default is None:
                continue
            view = next(view for view in self.views if view.view == rule.view)
            columns = [f"{rule.view}__{rule.feature}"] if rule.feature else view.number_columns
            found |= dict.fromkeys(columns, rule.default)
        return found

    @cached_property
    def required(self) -> tuple[MissingRule, ...]:
        """The rules by which a row without a value is refused."""
        return tuple(rule for rule in self.missing if rule.default is None)

    @property
    def columns(self) -> tuple[str, ...]:
        """The model's input columns, in order."""
        read = tuple(column for view in self.views for column in view.number_columns)
        return read + self.inputs_from_request + tuple(pin.output for pin in self.transforms)

    @property
    def reads_sha256(self) -> str:
        """The hash of exactly what is read: views, tables, keys, features, types and TTLs.

        ``definitions_sha256`` changes with every definition; this one only with those that matter
        to this model.
        """
        parts = [self.project, *(view.model_dump_json() for view in self.views)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def needs_moment(self) -> bool:
        """Whether a row's moment changes its inputs: features are read, or a transform takes it."""
        taken = {name for pin in self.transforms for name in pin.inputs}
        return bool(self.views) or self.event_timestamp in taken

    @property
    def entity_keys(self) -> tuple[str, ...]:
        """Every join key once, in order of first use."""
        return tuple(dict.fromkeys(key for view in self.views for key in view.key_names))


def _left_out(dumped: dict[str, Any], name: str) -> dict[str, Any]:
    """A dump without a field that has nothing to say."""
    return dumped if dumped.get(name) else {k: v for k, v in dumped.items() if k != name}


def pin(transform: Transform) -> TransformPin:
    """The pin of a transform as its source stands now."""
    return TransformPin(
        name=transform.name,
        inputs=transform.inputs,
        output=transform.output,
        source_sha256=transform.source_sha256,
    )


def pinned_transforms(plan: FeaturePlan, digest: str) -> list[Transform]:
    """Return the plan's transforms, refusing any whose source is not the pinned one.

    Raises:
        BundleRefused: naming the transform that has changed since the bundle was built.
    """
    found = [find_transform(wanted.name) for wanted in plan.transforms]
    for have, wanted in zip(found, plan.transforms, strict=True):
        if pin(have) != wanted:
            raise BundleRefused(
                digest,
                f"transform {wanted.name} is not the one it was trained with "
                f"(source {have.source_sha256[:12]}, pinned {wanted.source_sha256[:12]})",
            )
    return found
