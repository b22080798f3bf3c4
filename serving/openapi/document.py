"""The document itself: every part's paths and schemas, put together."""

from typing import Any

from serving.openapi import jobs, plain, rows, v2
from serving.openapi.describe import array, content, obj, operation, ref
from serving.served import ServedModel

_BOOLEAN = {"type": "boolean"}


def document(model: ServedModel, *, max_rows: int, with_jobs: bool) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of what is served now.

    Args:
        model: what answers where a request names no model.
        max_rows: the most rows in one request.
        with_jobs: whether the server takes jobs.
    """
    manifest = model.predictor.bundle.manifest
    paths = plain.paths(model) | (jobs.paths() if with_jobs else {}) | v2.paths(model)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": model.release.endpoint,
            "version": model.version,
            "description": f"Model {manifest.model}, revision {model.release.revision}. Send "
            "entity keys and request fields, or raw features.",
        },
        "paths": paths | _server_paths(),
        "components": {
            "schemas": rows.schemas(model, max_rows=max_rows)
            | plain.schemas(model)
            | (jobs.schemas() if with_jobs else {})
            | v2.schemas(model)
            | {"V2Server": v2.server_schema(), "Health": _HEALTH}
        },
    }


def _server_paths() -> dict[str, Any]:
    def get(name: str, summary: str, good: Any, also: Any = None) -> dict[str, Any]:
        return {"get": operation(name, summary, tag="server", good=good, also=also)}

    ready, health = content(obj({"ready": _BOOLEAN})), content(ref("Health"))
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "/v2/health/live": get("live", "The process answers", content(obj({"live": _BOOLEAN}))),
        "/v2/health/ready": get("server_ready", "Requests should come here", ready, {503: ready}),
        "/health": get("health", "The server and its parts", health, {503: health}),
        "/metrics": get("metrics", "Prometheus metrics", text),
    }


_HEALTH = obj(
    {
        "status": {"type": "string", "enum": ["ok", "degraded", "draining", "unavailable"]},
        "ready": _BOOLEAN,
        "redis": {"type": "string", "enum": ["ok", "failing"]},
        "model": {"type": ["object", "null"]},
        "cache_hit_rate": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "release": {"type": ["object", "null"]},
        "online_store": {"type": "object"},
        "models": array({"type": "object"}),
    }
)
