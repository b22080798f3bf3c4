"""``ModelSpec``: everything that is true of a model before it is trained.

A data scientist writes one frozen spec in ``models/NAME.py``. A wrong or missing field fails when
the module is imported, with a sentence that says what to write.
"""

import importlib
import pkgutil
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from headrace.errors import SpecRefused, UnknownName
from headrace.missing import Policy
from headrace.names import checked_name
from headrace.part import Part
from headrace.trainers import (
    BundleNode,
    EnsembleTrainer,
    FunctionNode,
    GraphTrainer,
    Member,
    OnnxModel,
    SklearnTrainer,
    TorchTrainer,
    Trainer,
    XGBoostTrainer,
)

__all__ = [
    "BundleNode",
    "DriftPolicy",
    "EnsembleTrainer",
    "FunctionNode",
    "Gate",
    "GraphTrainer",
    "LabelSource",
    "Member",
    "Metric",
    "ModelSpec",
    "OnnxModel",
    "Part",
    "RequestField",
    "RolloutPolicy",
    "SklearnTrainer",
    "Task",
    "TimeHoldout",
    "TorchTrainer",
    "XGBoostTrainer",
    "load_spec",
    "model_names",
]

Metric = Literal["roc_auc", "log_loss", "brier", "rmse", "mae"]
Task = Literal["binary", "regression"]
_METRICS_OF: dict[str, set[str]] = {
    "binary": {"roc_auc", "log_loss", "brier"},
    "regression": {"rmse", "mae"},
}


class RequestField(Part):
    """A value that the caller sends with each request, and that the input table has as a column."""

    name: str
    dtype: Literal["float64", "int64", "string", "timestamp"] = "float64"
    description: str = Field(description="what it is, with its unit")
    at_least: float | None = Field(None, description="smallest value that is accepted")
    at_most: float | None = Field(None, description="largest value that is accepted")
    one_of: tuple[str, ...] | tuple[int, ...] | None = Field(
        None, min_length=1, description="the values that are accepted; None: any within bounds"
    )

    @model_validator(mode="after")
    def _one_of_fits(self) -> Self:
        if self.one_of is None:
            return self
        if (self.at_least, self.at_most) != (None, None):
            raise ValueError(f"request field {self.name}: write either one_of or bounds")
        wanted = {"string": str, "int64": int}.get(self.dtype)
        if wanted is None or not all(type(value) is wanted for value in self.one_of):
            raise ValueError(
                f"request field {self.name}: one_of lists strings of a string field or whole "
                f"numbers of an int64 field, and this one is {self.dtype}"
            )
        return self


class LabelSource(Part):
    """Where the labels lie: one row an outcome."""

    table: str = Field(description="table of the offline store")
    entity_keys: tuple[str, ...] = Field(min_length=1, description="join keys of the features")
    event_timestamp: str = Field(description="column: the moment of prediction, UTC")
    created_timestamp: str = Field(description="column: when the outcome was known, UTC")
    column: str = Field(description="the label")


class TimeHoldout(Part):
    """Train on what came first, test on what came last."""

    days: int = Field(31, ge=1, description="length of the holdout at the end of the window")


class Gate(Part):
    """A floor or a ceiling that a metric of the holdout must keep, overall or in each slice."""

    metric: Metric
    at_least: float | None = None
    at_most: float | None = None
    by: str | None = Field(None, description="entity key whose every value must keep it")
    minimum_rows: int = Field(500, ge=1, description="smaller slices are not judged")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"gate on {self.metric}: write either at_least or at_most")
        return self


class DriftPolicy(Part):
    """How far columns may move before a window counts as drifted."""

    psi: float = Field(0.2, gt=0, description="PSI in nats above which a column has drifted")
    drifted_share: float = Field(
        0.3, gt=0, le=1, description="share of drifted columns from which the window has drifted"
    )
    false_alarm_rate: float = Field(
        0.01, gt=0, lt=1, description="chance that sampling noise alone makes any column drift"
    )


class RolloutPolicy(Part):
    """What a challenger must show before it becomes champion."""

    metric: Metric = "roc_auc"
    minimum_gain: float = Field(0.0, ge=0, description="gain over the champion, metric's unit")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the interval around the gain")


class ModelSpec(Part):
    """Everything that is true of a model before it is trained."""

    name: str
    description: str = Field(min_length=10, description="one sentence for the model card")
    owner: str = Field(min_length=1, description="who answers for it")
    feature_service: str | None = Field(
        None,
        description="name of a Feast feature service; None: the model sees request fields alone",
    )
    label: LabelSource
    scoring_table: str = Field(description="table of the rows that batch prediction scores")
    task: Task = "binary"
    request: tuple[RequestField, ...] = ()
    transforms: tuple[str, ...] = Field((), description="names in featurestore/transforms/")
    inputs_from_request: tuple[str, ...] = Field(
        (), description="request fields that the model sees as they are"
    )
    missing: dict[str, Policy] = Field(
        default_factory=dict,
        description="by view or view.feature: last_known, error, or a number to stand for it",
    )
    trainer: Trainer = XGBoostTrainer()
    validation: TimeHoldout = TimeHoldout()
    gates: tuple[Gate, ...] = Field(min_length=1)
    drift: DriftPolicy = DriftPolicy()
    rollout: RolloutPolicy = RolloutPolicy()

    def __init__(self, **fields: Any) -> None:
        """Check every field; ``SpecRefused`` says which one is wrong and what to write."""
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecRefused(str(fields.get("name", "?")), _sentence(error)) from error

    @model_validator(mode="after")
    def _fits_itself(self) -> Self:
        checked_name("model", self.name)
        fields = {f.name: f for f in self.request}
        for name in self.inputs_from_request:
            if name not in fields:
                raise ValueError(f"inputs_from_request names {name!r}, which request does not have")
            if fields[name].dtype not in ("float64", "int64"):
                raise ValueError(f"inputs_from_request names {name!r}, which is not a number")
        for gate in self.gates:
            if gate.metric not in _METRICS_OF[self.task]:
                raise ValueError(f"a {self.task} model has no metric {gate.metric!r}")
            if gate.by is not None and gate.by not in self.label.entity_keys:
                raise ValueError(f"gate by {gate.by!r}: it is none of the label's entity keys")
        if self.rollout.metric not in _METRICS_OF[self.task]:
            raise ValueError(f"a {self.task} model has no metric {self.rollout.metric!r}")
        return self


def model_names() -> list[str]:
    """The names of the specs in ``models/``, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(importlib.import_module("models").__path__))


def load_spec(name: str) -> ModelSpec:
    """Return the ``spec`` of ``models/NAME.py``.

    Raises:
        UnknownName: if there is no such model.
        SpecRefused: if the module cannot be imported, has no ``spec``, or a wrong one.
    """
    checked_name("model", name)
    if name not in model_names():
        raise UnknownName("model", name, model_names())
    try:
        found = getattr(importlib.import_module(f"models.{name}"), "spec", None)
    except (SyntaxError, ImportError, NameError) as error:
        raise SpecRefused(name, f"models/{name}.py cannot be imported: {error}") from error
    except ValidationError as error:  # of a part of the spec: a trainer, a gate ...
        raise SpecRefused(name, f"{error.title}: {_sentence(error)}") from error
    if not isinstance(found, ModelSpec):
        raise SpecRefused(name, f"models/{name}.py must define spec = ModelSpec(...)")
    if found.name != name:
        raise SpecRefused(name, f"models/{name}.py names its spec {found.name!r}; use one name")
    return found


def _sentence(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(str(step) for step in item["loc"])
        parts.append(f"{where}: {item['msg']}" if where else item["msg"])
    return "; ".join(parts).replace("Value error, ", "")
