"""Why a prediction is what it is: the bodies of infer in, Shapley values out, over HTTP.

``POST /api/v1/explain`` takes what ``POST /api/v1/infer`` takes, ``POST /v2/models/{name}/explain``
what the V2 infer takes. Features are read once, as for a prediction; the explanation is computed
on a thread, one at a time in a process, because it may cost thousands of predictions a row.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.bundle import OUTPUT
from headrace.errors import HeadraceError
from serving.errors import BodyTooLarge, Overloaded, http_status
from serving.exchange import json_response, read_body, request_id
from serving.explanations.explanation import Explanation
from serving.http.codec import Codec, sane_request_id
from serving.http.heads import codec_head
from serving.http.responses import error_headers
from serving.inputs import Inputs
from serving.query import Query, is_degraded
from serving.served import STATUS_NAMES

if TYPE_CHECKING:
    from serving.settings import ServerSettings

_MOST_WAITING = 16
"""How many requests may wait for the one that is explained."""
_logger = logging.getLogger(__name__)

Render = Callable[[Query, Inputs, Explanation], dict[str, Any]]


class Plane(Protocol):
    """Who reads features; ``serving.dataplane.DataPlane`` is the real one."""

    async def matrix(self, query: Query) -> Inputs:
        """Return what the model would see of ``query``."""


class Explainer:
    """Explains requests of both protocols, one at a time."""

    def __init__(self, plane: Plane, settings: "ServerSettings") -> None:
        self._plane, self._settings = plane, settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explain")
        self._waiting = 0

    def routes(self, plain: Codec, v2: Codec) -> list[Route]:
        """The routes, for the application; the codecs are those of infer."""
        model = "/v2/models/{name}"
        explain_v2 = self._door(v2, _v2_body)
        return [
            Route("/api/v1/explain", self._door(plain, _plain_body), methods=["POST"]),
            Route(f"{model}/explain", explain_v2, methods=["POST"]),
            Route(f"{model}/versions/{{version}}/explain", explain_v2, methods=["POST"]),
        ]

    async def explain(self, query: Query) -> tuple[Inputs, Explanation]:
        """Return what the model sees of ``query``, and why it answers as it does.

        Raises:
            BodyTooLarge: for more rows than may be explained at once.
            Overloaded: if too many requests wait.
            HeadraceError: as ``DataPlane.infer``, and as ``Predictor.explain``.
        """
        most = self._settings.explain_max_rows
        if query.rows > most:
            raise BodyTooLarge(f"{query.rows:,} rows", most, "rows to explain")
        if self._waiting >= _MOST_WAITING:
            raise Overloaded(f"{self._waiting} requests wait to be explained already")
        self._waiting += 1
        try:
            inputs = await self._plane.matrix(query)
            running = asyncio.get_running_loop().run_in_executor(
                self._thread, query.model.predictor.explain, inputs.matrix
            )
            return inputs, await running
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let go of the thread once it has computed what it has begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _door(self, codec: Codec, render: Render) -> Callable[[Request], Awaitable[Response]]:
        async def door(request: Request) -> Response:
            name = request_id(request)
            try:
                head = codec_head(request.url.path, request.headers, **request.path_params)
                body = await read_body(request, limit=self._settings.max_body_bytes)
                query = codec.decode(body, head)
                name = query.request_id
                inputs, explanation = await self.explain(query)
            except HeadraceError as error:
                status = http_status(error)
                if status >= 500:
                    _logger.error("request_id=%s edge=explain: %s", name, error)
                headers = error_headers(error)
                if sane_request_id(name):
                    headers["X-Request-Id"] = name
                return Response(codec.encode_error(error, name), status, headers)
            content = msgspec.json.encode(render(query, inputs, explanation))
            return json_response(content, request_id=name)

        return door


def _plain_body(query: Query, inputs: Inputs, explanation: Explanation) -> dict[str, Any]:
    model = query.model
    return {
        "model": model.release.endpoint,
        "digest": model.predictor.digest,
        "revision": model.release.revision,
        "request_id": query.request_id,
        "degraded": is_degraded(inputs.statuses),
        "method": explanation.method,
        "scale": explanation.scale,
        "explanations": [
            _row(model.predictor.columns, inputs, explanation, row) for row in range(query.rows)
        ],
    }


def _row(
    columns: tuple[str, ...], inputs: Inputs, explanation: Explanation, row: int
) -> dict[str, Any]:
    """One row's explanation; NaN, which is a missing value, is written as null."""

    def named(values: np.ndarray) -> dict[str, float]:
        return dict(zip(columns, values[row].tolist(), strict=True))

    told = {
        OUTPUT: float(explanation.predictions[row]),
        "base": float(explanation.base[row]),
        "margin": float(explanation.margin[row]),
        "contributions": named(explanation.contributions),
        "values": named(inputs.matrix),
        "features": {
            view: STATUS_NAMES[int(codes[row])] for view, codes in inputs.statuses.items()
        },
    }
    if explanation.error is not None:
        told["standard_errors"] = named(explanation.error)
    return told


def _v2_body(query: Query, _: Inputs, explanation: Explanation) -> dict[str, Any]:
    """An answer of the V2 protocol with four outputs; columns are in the order of the inputs."""
    model, rows = query.model, query.rows
    outputs = [
        (OUTPUT, "FP32", [rows], explanation.predictions),
        ("base", "FP64", [rows], explanation.base),
        ("margin", "FP64", [rows], explanation.margin),
        ("contributions", "FP32", list(explanation.contributions.shape), explanation.contributions),
    ]
    if explanation.error is not None:
        shape = list(explanation.error.shape)
        outputs.append(("standard_errors", "FP64", shape, explanation.error))
    return {
        "model_name": model.release.endpoint,
        "model_version": model.version,
        "id": query.request_id,
        "parameters": {"method": explanation.method, "scale": explanation.scale},
        "outputs": [
            {"name": name, "datatype": kind, "shape": shape, "data": values.ravel().tolist()}
            for name, kind, shape, values in outputs
        ],
    }
