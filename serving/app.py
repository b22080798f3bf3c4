"""The server's routes: each a few lines over the exchange and the model that answers now.

Imports nothing that a server does not need: no prefect, feast, mlflow, evidently, pandas, SciPy,
scikit-learn or the xgboost Python package. A test starts a process and looks.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from headrace.errors import HeadraceError
from monitoring.inference_log import InferenceLog
from serving import docs_page, health, json_body, openapi, plain
from serving.endpoint import Endpoint
from serving.errors import http_status
from serving.exchange import Edge, Exchange, json_response, request_id
from serving.metrics import Metrics
from serving.settings import ServerSettings
from serving.v2 import former as v2


def create_app(endpoint: Endpoint, *, settings: ServerSettings, log: InferenceLog) -> Starlette:
    """Return the application that answers for ``endpoint``.

    It follows the release while it runs, and writes what waits in ``log`` when it ends.
    """
    metrics = Metrics(endpoint, log)
    exchange = Exchange(endpoint, settings=settings, metrics=metrics, log=log)
    doors = _Doors(endpoint, settings, metrics, log, exchange)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        endpoint.start_watching()
        yield
        endpoint.close()
        log.close()

    handlers: dict[Any, Any] = {
        HTTPException: _no_such_door,
        HeadraceError: _failed,
        Exception: _broken,
    }
    return Starlette(routes=doors.routes(), lifespan=lifespan, exception_handlers=handlers)


@dataclass(frozen=True)
class _Doors:
    endpoint: Endpoint
    settings: ServerSettings
    metrics: Metrics
    log: InferenceLog
    exchange: Exchange

    def routes(self) -> list[Route]:
        model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
        return [
            Route("/api/v1/infer", self.infer, methods=["POST"]),
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            *(Route(base, self.model_metadata) for base in (model, version)),
            *(Route(f"{base}/ready", self.model_ready) for base in (model, version)),
            *(Route(f"{base}/infer", self.v2_infer, methods=["POST"]) for base in (model, version)),
            Route("/health", self.health),
            Route("/metrics", self.metrics_text),
            Route("/openapi.json", self.openapi),
            Route("/docs", self.docs),
        ]

    async def infer(self, request: Request) -> Response:
        return await self.exchange.answer(request, _PLAIN)

    async def v2_infer(self, request: Request) -> Response:
        render = partial(v2.render, endpoint=self.endpoint.name)
        edge = Edge(v2.EDGE, v2.infer, render, _v2_error, v2.request_id_of)
        return await self.exchange.answer(request, edge, self._check(request))

    async def model_metadata(self, request: Request) -> Response:
        model = self.endpoint.current
        self._check(request)(model)
        return _json(v2.metadata(model, self.endpoint.name), request)

    async def model_ready(self, request: Request) -> Response:
        model = self.endpoint.current
        self._check(request)(model)
        return _json({"name": self.endpoint.name, "ready": True}, request)

    async def server_metadata(self, request: Request) -> Response:
        return _json(v2.SERVER, request)

    async def live(self, request: Request) -> Response:
        return _json({"live": True}, request)

    async def ready(self, request: Request) -> Response:
        return _json({"ready": True}, request)

    def health(self, request: Request) -> Response:  # on a thread: it asks the online store
        return _json(health.report(self.endpoint, self.log), request)

    async def metrics_text(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        return _json(self._document(), request)

    async def docs(self, request: Request) -> Response:
        return HTMLResponse(docs_page.page(self._document(), base_url=_base_url(request)))

    def _document(self) -> dict[str, Any]:
        model, name = self.endpoint.current, self.endpoint.name
        return openapi.document(model, name, max_rows=self.settings.max_rows)

    def _check(self, request: Request) -> Callable[[Any], None]:
        name, version = request.path_params["name"], request.path_params.get("version")
        return lambda model: v2.check_served(model, self.endpoint.name, name, version)


def _v2_error(error: Exception, _: str) -> dict[str, Any]:
    return {"error": str(error)}


_PLAIN = Edge(plain.EDGE, plain.infer, plain.render, plain.render_error, lambda _, given: given)


def _json(content: Any, request: Request) -> Response:
    return json_response(json_body.encode(content), request_id=request_id(request))


def _base_url(request: Request) -> str:
    return str(request.base_url).rstrip("/")


async def _no_such_door(request: Request, error: HTTPException) -> Response:
    told = {404: "is not here; see /docs", 405: f"does not take {request.method}; see /docs"}
    said = told.get(error.status_code, error.detail)
    content = json_body.encode({"error": f"{request.url.path} {said}"})
    response = json_response(content, status=error.status_code, request_id=request_id(request))
    response.headers.update(error.headers or {})
    return response


async def _failed(request: Request, error: HeadraceError) -> Response:
    content = json_body.encode({"error": str(error)})
    return json_response(content, status=http_status(error), request_id=request_id(request))


async def _broken(request: Request, _: Exception) -> Response:
    # Starlette raises the error again after this answer, so that the log has its traceback.
    content = json_body.encode({"error": "the server failed; its log says more"})
    return json_response(content, status=500, request_id=request_id(request))
