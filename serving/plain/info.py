"""``GET /api/v1/model/info``: what a model is, what it takes, and where it comes from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from headrace.bundle import CARD, OUTPUT
from serving.fields import Field
from serving.outputs import RANGES

if TYPE_CHECKING:
    from headrace.plan import FeaturePlan
    from serving.served import ServedModel


def model_info(model: "ServedModel") -> dict[str, Any]:
    """Return everything that a caller may want to know of ``model``."""
    bundle = model.predictor.bundle
    manifest = bundle.manifest
    return {
        "model": model.release.endpoint,
        "version": model.version,
        "digest": bundle.digest,
        "revision": model.release.revision,
        "released": model.release.model_dump(
            mode="json", include={"moved_at", "moved_by", "reason"}
        ),
        "trained_as": manifest.model,
        "task": manifest.task,
        "runtime": manifest.runtime,
        "inputs": {
            "fields": [_field(field) for field in model.schema.fields],
            "features": list(_features(manifest.plan)),
        },
        "output": _output(manifest.task),
        "metrics": manifest.metrics,
        "parameters": manifest.parameters,
        "lineage": manifest.lineage.model_dump(mode="json"),
        "plan": _plan(manifest.plan),
        "card": bytes(bundle.files[CARD]).decode(errors="replace"),
    }


def _field(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "type": field.kind,
        "description": field.description,
        "is_key": field.is_key,
        "may_be_null": field.is_key,
        "at_least": field.at_least,
        "at_most": field.at_most,
        "one_of": field.one_of,
    }


def _features(plan: "FeaturePlan") -> Iterator[dict[str, str]]:
    """The columns that the model sees, in their order, and what gives each its value."""
    for view in plan.views:
        for column in view.number_columns:
            yield {"name": column, "from": "view", "source": view.view}
    for name in plan.inputs_from_request:
        yield {"name": name, "from": "request", "source": name}
    for pin in plan.transforms:
        yield {"name": pin.output, "from": "transform", "source": pin.name}


def _output(task: str) -> dict[str, Any]:
    low, high = RANGES[task][:2] if task in RANGES else (None, None)
    return {"name": OUTPUT, "type": "float32", "at_least": low, "at_most": high}


def _plan(plan: "FeaturePlan") -> dict[str, Any]:
    return {
        "feature_service": plan.feature_service,
        "event_timestamp": plan.event_timestamp,
        "reads_sha256": plan.reads_sha256,
        "views": [
            {
                "view": view.view,
                "join_keys": [key.model_dump() for key in view.join_keys],
                "ttl_seconds": view.ttl_seconds,
                "features": [feature.model_dump() for feature in view.features],
            }
            for view in plan.views
        ],
        "transforms": [pin.model_dump() for pin in plan.transforms],
    }
