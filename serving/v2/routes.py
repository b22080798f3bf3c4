"""The protocol's calls besides inference: metadata, readiness, and the model repository.

Source: https://github.com/kserve/open-inference-protocol, inference_rest.md, and
https://github.com/triton-inference-server/server, docs/protocol/extension_model_repository.md.
"""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving import json_body
from serving.errors import ModelControlOff
from serving.exchange import json_response, read_body, request_id
from serving.schema import show
from serving.v2 import metadata
from serving.v2.tensors import refused

if TYPE_CHECKING:
    from serving.dataplane import DataPlane
    from serving.repository import ModelRepository
    from serving.settings import ServerSettings

_CONTROL_BYTES = 10_000  # the longest body of a call about the repository


def routes(
    plane: "DataPlane",  # noqa: ARG001
    repository: "ModelRepository",
    settings: "ServerSettings",
) -> list[Route]:
    """Return the protocol's routes, but for inference (a codec's) and the health of the server."""
    calls = _Calls(repository, settings)
    model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    repository_model = "/v2/repository/models/{name}"
    return [
        Route("/v2", calls.server),
        *(Route(base, calls.model) for base in (model, version)),
        *(Route(f"{base}/ready", calls.ready) for base in (model, version)),
        Route("/v2/repository/index", calls.index, methods=["POST"]),
        Route(f"{repository_model}/load", calls.load, methods=["POST"]),
        Route(f"{repository_model}/unload", calls.unload, methods=["POST"]),
    ]


class _Calls:
    def __init__(self, repository: "ModelRepository", settings: "ServerSettings") -> None:
        self._repository, self._settings = repository, settings

    async def server(self, request: Request) -> Response:
        return _json(metadata.server(), request)

    async def model(self, request: Request) -> Response:
        served = self._repository.served(**request.path_params)
        return _json(metadata.model_metadata(served), request)

    async def ready(self, request: Request) -> Response:
        served = self._repository.served(**request.path_params)
        return _json({"name": served.release.endpoint, "ready": True}, request)

    async def index(self, request: Request) -> Response:
        wanted = await _asked(request)
        only_ready = wanted.get("ready", False)
        if not isinstance(only_ready, bool):
            raise refused(f"ready = {show(only_ready)}; write true or false", "ready")
        states = await asyncio.to_thread(self._repository.index)
        found = [asdict(s) for s in states if s.state == "READY" or not only_ready]
        return _json(found, request)

    async def load(self, request: Request) -> Response:
        await self._control(request)
        await asyncio.to_thread(self._repository.load, request.path_params["name"])
        return _json({}, request)

    async def unload(self, request: Request) -> Response:
        await self._control(request)
        await asyncio.to_thread(self._repository.unload, request.path_params["name"])
        return _json({}, request)

    async def _control(self, request: Request) -> None:
        if not self._settings.model_control:
            raise ModelControlOff
        parameters = (await _asked(request)).get("parameters") or {}
        if not isinstance(parameters, dict):
            raise refused(f"parameters = {show(parameters)}; write an object", "parameters")
        check_load_parameters(parameters)


def check_load_parameters(names: Any) -> None:
    """Refuse a load that brings its own model: what an endpoint serves is said by its release."""
    for name in names:
        if name == "config" or name.startswith("file:"):
            raise refused(
                f"parameter {name!r}: a model is not sent; move the endpoint's release, "
                "and load it by its name",
                "parameters",
            )


async def _asked(request: Request) -> dict[str, Any]:
    body = await read_body(request, limit=_CONTROL_BYTES)
    document = json_body.decode(body) if body else {}
    if not isinstance(document, dict):
        raise refused(f"the body is {show(document)}; write an object, or nothing")
    return document


def _json(content: Any, request: Request) -> Response:
    return json_response(json_body.encode(content), request_id=request_id(request))
