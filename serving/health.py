"""``/health`` for people and load balancers, ``/v2/health/*`` for the V2 protocol.

What the server knows itself is told as it is now. What has to be asked, the online store first of
all, is asked on a thread and at most once a second, however many ask for it.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.errors import HeadraceError
from serving.exchange import json_response, request_id
from serving.probe import Probe

if TYPE_CHECKING:
    from headrace.plan import JoinKey
    from monitoring.inference_log import InferenceLog
    from serving.endpoint import Endpoint
    from serving.repository import ModelRepository
    from serving.results.batch import Results
    from serving.served import ServedModel


class Health:
    """The state of one server process."""

    def __init__(
        self,
        repository: "ModelRepository",
        *,
        is_draining: Callable[[], bool],
        parts: Mapping[str, Callable[[], Any]],
    ) -> None:
        """Tell of a server.

        Args:
            repository: its models.
            is_draining: whether it is about to end.
            parts: by name, what further parts of the server say of themselves; may block.
        """
        self._repository, self._is_draining, self._parts = repository, is_draining, parts
        self._asked = Probe(self._ask)

    def routes(self) -> list[Route]:
        """The routes, for the web framework."""
        return [
            Route("/health", self._health),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
        ]

    @property
    def is_ready(self) -> bool:
        """Whether requests should come here: a model answers, and the server is not about to end.

        A failing online store is no reason: all servers have the same one, and without any server
        requests of raw features would fail too.
        """
        return not self._is_draining() and any(e.current for e in self._endpoints())

    async def report(self) -> dict[str, Any]:
        """Return the state of the server and of its parts."""
        endpoints = self._endpoints()
        stores, parts = await self._asked.answer()
        reason = next(filter(None, stores.values()), None)
        first = endpoints[0] if endpoints else None
        return {
            "status": self._status(endpoints, reason),
            "ready": self.is_ready,
            # Called so wherever it is Redis or not: where dashboards look for it.
            "redis": "failing" if reason else "ok",
            "model": _model(first.current) if first and first.current else None,
            "cache_hit_rate": _hit_rate(endpoints),
            "release": _release(first) if first else None,
            "online_store": {"status": "failing" if reason else "ok", "reason": reason},
            "models": [_state(endpoint) for endpoint in endpoints],
            **parts,
        }

    def _status(self, endpoints: "Iterable[Endpoint]", store_fails: str | None) -> str:
        if self._is_draining():
            return "draining"
        if not self.is_ready:
            return "unavailable"
        fails = store_fails or any(e.refused or e.unreachable or e.reason for e in endpoints)
        return "degraded" if fails else "ok"

    def _endpoints(self) -> "list[Endpoint]":
        return list(self._repository.endpoints.values())

    def _ask(self) -> tuple[dict[str, str | None], dict[str, Any]]:
        models = [endpoint.current for endpoint in self._endpoints()]
        stores = {m.release.endpoint: _ask_store(m) for m in models if m is not None}
        return stores, {name: say() for name, say in self._parts.items()}

    async def _health(self, request: Request) -> Response:
        return self._json(await self.report(), request)

    async def _live(self, request: Request) -> Response:
        content = msgspec.json.encode({"live": True})
        return json_response(content, request_id=request_id(request))

    async def _ready(self, request: Request) -> Response:
        return self._json({"ready": self.is_ready}, request)

    def _json(self, content: dict[str, Any], request: Request) -> Response:
        status = 200 if content["ready"] else 503
        encoded = msgspec.json.encode(content)
        return json_response(encoded, status=status, request_id=request_id(request))


def health_parts(
    log: "InferenceLog", results: "Results | None", *, workers: int
) -> dict[str, Callable[[], Any]]:
    """What the parts that every server has say of themselves."""
    return {
        "inference_log": lambda: {
            "written_rows": log.written_rows,
            "waiting_rows": log.waiting_rows,
            "dropped_rows": log.dropped_rows,
        },
        "result_cache": lambda: _results(results) if results else None,
        "workers": lambda: {"processes": workers, "answered_by": os.getpid()},
    }


def _results(results: "Results") -> dict[str, Any]:
    cache = results.cache
    counted = cache.counted
    return {
        "rows": len(cache),
        "bytes": cache.bytes,
        "hits": counted.hits + counted.shared_hits,
        "misses": counted.misses,
        "hit_rate": counted.rate,
    }


def _model(model: "ServedModel") -> dict[str, Any]:
    return {
        "name": model.predictor.bundle.manifest.model,
        "version": model.version,
        "digest": model.predictor.digest,
        "inputs": len(model.predictor.columns),
    }


def _release(endpoint: "Endpoint") -> dict[str, Any]:
    told = {"refused": endpoint.refused, "unreachable": endpoint.unreachable}
    model = endpoint.current
    return (model.release.model_dump(mode="json") if model else {}) | told


def _state(endpoint: "Endpoint") -> dict[str, Any]:
    version = endpoint.current.version if endpoint.current else None
    return {
        "name": endpoint.name,
        "version": version,
        "state": endpoint.state,
        "reason": endpoint.reason or None,
    }


def _hit_rate(endpoints: "Iterable[Endpoint]") -> float | None:
    """The share of entities that were found in the feature cache; None where none was asked."""
    models = [endpoint.current for endpoint in endpoints]
    caches = [getattr(model.reader, "cache", None) for model in models if model is not None]
    hits = sum(cache.hits for cache in caches if cache is not None)
    asked = hits + sum(cache.misses for cache in caches if cache is not None)
    return hits / asked if asked else None


def _ask_store(model: "ServedModel") -> str | None:
    """Why the online store does not answer; None where it does.

    One entity is looked up in every view. It need not exist, only the store must answer; and it is
    another one each time, so that no cache answers in its place.
    """
    keys = {key.name: key for view in model.predictor.plan.views for key in view.join_keys}
    if not keys:
        return None
    now = time.time_ns()
    wanted = {name: [_nobody(key, now)] for name, key in keys.items()}
    try:
        model.reader.read(wanted, np.array([now // 1000], "datetime64[us]"))
    except HeadraceError as error:
        return str(error)
    # A reader that degrades gives rows without values instead of an error.
    return model.reader.failure


def _nobody(key: "JoinKey", now: int) -> str | int:
    return f"health-{now}" if key.dtype == "STRING" else -(now % 2**31)
