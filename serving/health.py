"""What ``/health`` says: the model, the release it follows, the online store and the log."""

import time
from typing import Any

import numpy as np

from monitoring.inference_log import InferenceLog
from serving.dataplane import ServedModel, read_features
from serving.errors import OnlineStoreFailing
from serving.followed import Endpoint


def report(endpoint: Endpoint, log: InferenceLog) -> dict[str, Any]:
    """Return the state of the server; ``status`` is ``degraded`` where any part of it fails."""
    model = endpoint.current
    online_store = _ask_store(model)
    failing = endpoint.refused or endpoint.unreachable or online_store["reason"]
    return {
        "status": "degraded" if failing else "ok",
        "model": {
            "name": model.predictor.bundle.manifest.model,
            "version": model.version,
            "digest": model.predictor.digest,
            "inputs": len(model.predictor.columns),
        },
        "release": {
            **model.release.model_dump(mode="json"),
            "refused": endpoint.refused,
            "unreachable": endpoint.unreachable,
        },
        "online_store": online_store,
        "inference_log": {"written_rows": log.written_rows, "dropped_rows": log.dropped_rows},
    }


def _ask_store(model: ServedModel) -> dict[str, Any]:
    """Look one entity up in every view; it need not exist, only the store must answer."""
    keys = {key.name: key for view in model.predictor.plan.views for key in view.join_keys}
    wanted = {name: ["" if key.dtype == "STRING" else 0] for name, key in keys.items()}
    at = np.array([time.time_ns() // 1000], "datetime64[us]")
    try:
        read_features(model, wanted, at)
    except OnlineStoreFailing as error:
        return {"status": "failing", "reason": str(error.reason)}
    # A reader that degrades gives rows without values instead of an error.
    return {"status": "failing" if model.reader.failure else "ok", "reason": model.reader.failure}
