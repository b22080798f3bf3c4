"""The server, put together: models, data plane, codecs, and the routes of every part.

Hot requests go from their connection through a codec to the data plane (``Server.lane``); all
others are routes of the web framework (``Server.app``), inference in unusual clothes among them,
with the same codecs.

Imports nothing that a server does not need: no prefect, feast, mlflow, evidently, pandas, SciPy,
scikit-learn or the xgboost Python package. A test starts a process and looks.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from headrace.errors import HeadraceError
from monitoring.inference_log import InferenceLog
from serving import docs_page, facts, grpc, json_body, openapi
from serving.dataplane import DataPlane
from serving.errors import PlaneFailed
from serving.exchange import Exchange, error_response, json_response, request_id
from serving.explain import Explainer
from serving.health import Health, health_parts
from serving.http.caller import parse_networks
from serving.http.codec import Codec
from serving.http.heads import Heads
from serving.http.lane import Lane
from serving.http.limits import limits_of
from serving.jobs.service import JobService
from serving.logs import RequestLog
from serving.metrics import CONTENT_TYPE, Metrics
from serving.page import routes as page_routes
from serving.plain import PlainCodec
from serving.plain import routes as plain_routes
from serving.recorder import Recorder, open_tracing
from serving.repository import ModelRepository
from serving.settings import ServerSettings
from serving.v2 import routes as v2_routes
from serving.v2.codec import V2Codec

if TYPE_CHECKING:
    from serving.results.batch import Results

PLAIN_PATH = "/api/v1/infer"


@dataclass(frozen=True)
class Server:
    """What answers: the hot lane, and the web framework for all else."""

    app: Starlette
    lane: Lane


def create_server(
    repository: ModelRepository,
    *,
    settings: ServerSettings,
    log: InferenceLog,
    results: "Results | None" = None,
    metrics: Metrics | None = None,
    jobs_uri: str | None = None,
) -> Server:
    """Return the server of the models in ``repository``.

    Its application follows releases while it runs, and writes what waits in ``log`` when it ends.
    Asynchronous jobs are kept at ``jobs_uri``; without it, there are none.
    """
    metrics = metrics or Metrics()
    metrics.follow(facts.of_models(repository))
    metrics.follow(facts.of_log(log))
    if results:
        metrics.follow(facts.of_results(results))
    tracing = open_tracing(settings)
    plane = DataPlane(settings, results, Recorder(metrics, log, tracing))
    metrics.follow(facts.of_plane(plane))
    trusted = parse_networks(settings.trusted_proxies)
    watcher = RequestLog(
        metrics.refused,
        access=settings.access_log,
        slow_seconds=settings.slow_seconds,
    )
    v2, plain = V2Codec(repository, settings), PlainCodec(repository, settings)
    limits = limits_of(settings)
    lane = Lane(
        plane,
        Heads({PLAIN_PATH: plain}, v2, limits=limits),
        limits,
        watcher,
        trusted,
        slow_seconds=0.0 if settings.access_log else settings.slow_seconds,
    )
    exchange = Exchange(plane, settings, watcher, trusted)
    doors = _Doors(repository, settings, metrics, with_jobs=jobs_uri is not None)
    health = Health(
        repository,
        is_draining=lambda: lane.draining,
        parts=health_parts(log, results, workers=settings.workers),
    )

    explainer = Explainer(plane, settings)
    jobs = JobService(jobs_uri, plane, repository, settings, metrics) if jobs_uri else None

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        repository.start_watching()
        refreshing = asyncio.create_task(metrics.keep_fresh())
        async with (
            grpc.serving(plane, repository, settings, is_draining=lambda: lane.draining),
            jobs.running() if jobs else contextlib.nullcontext(),
        ):
            yield
        refreshing.cancel()
        explainer.close()
        if jobs:
            jobs.close()
        repository.close()
        plane.close()
        if results:
            await results.close()
        log.close()
        if tracing:
            tracing.close()
        metrics.close()

    handlers: dict[Any, Any] = {
        HTTPException: _no_such_door,
        HeadraceError: _failed,
        Exception: _broken,
    }
    routes = [
        *_inference(exchange, plain, v2),
        *v2_routes.routes(plane, repository, settings),
        *plain_routes.routes(plane, repository, settings),
        *explainer.routes(plain, v2),
        *(jobs.routes() if jobs else ()),
        *page_routes.routes(repository),
        *health.routes(),
        *doors.routes(),
    ]
    return Server(Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers), lane)


def _inference(exchange: Exchange, plain: Codec, v2: Codec) -> list[Route]:
    """The hot routes, for what the hot lane leaves to the framework."""

    async def infer(request: Request) -> Response:
        return await exchange.answer(request, plain)

    async def v2_infer(request: Request) -> Response:
        return await exchange.answer(request, v2)

    model = "/v2/models/{name}"
    return [
        Route(PLAIN_PATH, infer, methods=["POST"]),
        Route(f"{model}/infer", v2_infer, methods=["POST"]),
        Route(f"{model}/versions/{{version}}/infer", v2_infer, methods=["POST"]),
    ]


@dataclass(frozen=True)
class _Doors:
    repository: ModelRepository
    settings: ServerSettings
    metrics: Metrics
    with_jobs: bool

    def routes(self) -> list[Route]:
        return [
            Route("/metrics", self.metrics_text),
            Route("/openapi.json", self.openapi),
            Route("/docs", self.docs),
        ]

    async def metrics_text(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        return _json(self._document(), request)

    async def docs(self, request: Request) -> Response:
        return HTMLResponse(docs_page.page(self._document(), base_url=_base_url(request)))

    def _document(self) -> dict[str, Any]:
        model = self.repository.served()
        return openapi.document(model, max_rows=self.settings.max_rows, with_jobs=self.with_jobs)


def _json(content: Any, request: Request, *, status: int = 200) -> Response:
    return json_response(json_body.encode(content), status=status, request_id=request_id(request))


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
    return error_response(error, request)


async def _broken(request: Request, _: Exception) -> Response:
    # Starlette raises the error again after this answer, so that the log has its traceback.
    return error_response(PlaneFailed("answer the request"), request)
