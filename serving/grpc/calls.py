"""The methods of ``inference.GRPCInferenceService``, over the one data plane."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from headrace.errors import HeadraceError
from serving.errors import BodyRefused, ModelControlOff, ModelNotServed
from serving.grpc.descriptors import parser
from serving.grpc.fast import RAW, read_usual
from serving.grpc.gathering import Gathering
from serving.grpc.schema import SERVICE
from serving.grpc.statuses import status_code, trailers
from serving.grpc.tensors import MESSAGES, read_request, write_response
from serving.http.codec import new_request_id, sane_request_id
from serving.query import Answer
from serving.v2 import metadata
from serving.v2.request import TensorQuery
from serving.v2.routes import check_load_parameters

if TYPE_CHECKING:
    from serving.dataplane import DataPlane
    from serving.repository import ModelRepository
    from serving.settings import ServerSettings

EDGE = "grpc"
_LOOP_ROWS = 512
"""A request of more rows is decoded on a thread, so that the loop stays free."""
_STREAM_REQUESTS = 64
"""How many requests of one stream are under way at once."""
Context: TypeAlias = Any  # grpc.aio.ServicerContext, which has no type information


class Calls:
    """Answers the protocol's calls."""

    def __init__(
        self,
        plane: "DataPlane",
        repository: "ModelRepository",
        settings: "ServerSettings",
        *,
        is_draining: Callable[[], bool],
    ) -> None:
        """Answer by ``plane``; where ``is_draining``, say that the server is not ready."""
        self._plane, self._repository, self._settings = plane, repository, settings
        self._is_draining = is_draining
        self._gathering = Gathering()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service, for a server to register."""
        calls: dict[str, Callable[[Any, Context], Awaitable[Any]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                _telling_errors(call),
                request_deserializer=parser(MESSAGES[f"{name}Request"]),
                response_serializer=MESSAGES[f"{name}Response"].SerializeToString,
            )
            for name, call in calls.items()
        }
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=parser(MESSAGES["ModelInferRequest"]),
            response_serializer=MESSAGES["ModelStreamInferResponse"].SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    @property
    def ready(self) -> bool:
        """Whether some model answers, and the server is not ending."""
        endpoints = self._repository.endpoints.values()
        return not self._is_draining() and any(endpoint.current for endpoint in endpoints)

    def model_ready(self, name: str, version: str = "") -> bool:
        """Whether a model answers now, and ``version`` of it where one is named."""
        self._repository.served(name, version or None)
        return not self._is_draining()

    async def _server_live(self, _: Any, __: Context) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def _server_ready(self, _: Any, __: Context) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=self.ready)

    async def _model_ready(self, request: Any, _: Context) -> Any:
        ready = self.model_ready(request.name, request.version)
        return MESSAGES["ModelReadyResponse"](ready=ready)

    async def _server_metadata(self, _: Any, __: Context) -> Any:
        return MESSAGES["ServerMetadataResponse"](**metadata.server())

    async def _model_metadata(self, request: Any, _: Context) -> Any:
        model = self._repository.served(request.name, request.version or None)
        return MESSAGES["ModelMetadataResponse"](
            name=model.release.endpoint,
            versions=[model.version],
            platform=metadata.platform(model),
            inputs=[_tensor(tensor) for tensor in metadata.inputs(model)],
            outputs=[_tensor(tensor) for tensor in metadata.outputs(model)],
        )

    async def _infer(self, message: Any, context: Context) -> Any:
        return write_response(await self._answer(message, context))

    async def _answer(self, message: Any, context: Context) -> Answer:
        received = time.perf_counter()
        left = context.time_remaining()
        deadline = None if left is None else received + left
        inputs = message.inputs
        if inputs and inputs[0].shape and inputs[0].shape[0] > _LOOP_ROWS:
            query = await asyncio.to_thread(self._read, message, context, received, deadline)
        else:
            query = self._read(message, context, received, deadline)
        await self._gathering.join()
        return await self._plane.infer(query)

    def _read(
        self, message: Any, context: Context, received: float, deadline: float | None
    ) -> TensorQuery:
        model = self._repository.served(message.model_name, message.model_version or None)
        said = dict(context.invocation_metadata() or ())
        features = read_usual(message, model, self._settings.max_rows)
        if features is not None:
            query = TensorQuery(
                model, EDGE, len(features), message.id or _request_id(said), received, features
            )
            query.deadline, query.traceparent = deadline, said.get("traceparent")
            query.reply = RAW
            return query
        request = read_request(message)
        return request.query(
            model,
            edge=EDGE,
            max_rows=self._settings.max_rows,
            request_id=request.id or _request_id(said),
            received=received,
            deadline=deadline,
            traceparent=said.get("traceparent"),
            binary=bool(message.raw_input_contents),
        )

    async def _stream(self, messages: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """Answer a stream in its order, while further requests of it are computed."""
        answering: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue(_STREAM_REQUESTS)

        async def read() -> None:
            async for message in messages:
                await answering.put(asyncio.create_task(self._one_of_stream(message, context)))
            await answering.put(None)

        reading = asyncio.create_task(read())
        try:
            while (task := await answering.get()) is not None:
                yield await task
        finally:  # also where the caller has left: what it asked for is not computed
            reading.cancel()
            while not answering.empty():
                if task := answering.get_nowait():
                    task.cancel()

    async def _one_of_stream(self, message: Any, context: Context) -> Any:
        response = MESSAGES["ModelStreamInferResponse"]
        try:
            _check_message(message)
            return response(infer_response=write_response(await self._answer(message, context)))
        except HeadraceError as error:  # costs this request alone; the stream goes on
            request_id = "" if message is None else message.id
            return response(error_message=str(error), infer_response={"id": request_id})

    async def _index(self, request: Any, _: Context) -> Any:
        states = await asyncio.to_thread(self._repository.index)
        return MESSAGES["RepositoryIndexResponse"](
            models=[
                {"name": s.name, "version": s.version, "state": s.state, "reason": s.reason}
                for s in states
                if s.state == "READY" or not request.ready
            ]
        )

    async def _load(self, request: Any, _: Context) -> Any:
        name = self._named(request)
        check_load_parameters(request.parameters)
        await asyncio.to_thread(self._repository.load, name)
        return MESSAGES["RepositoryModelLoadResponse"](model_name=name, isLoaded=True)

    async def _unload(self, request: Any, _: Context) -> Any:
        name = self._named(request)
        await asyncio.to_thread(self._repository.unload, name)
        return MESSAGES["RepositoryModelUnloadResponse"](model_name=name, isUnloaded=True)

    def _named(self, request: Any) -> str:
        """The model that a load or unload is about; see ``schema.py`` on the two fields."""
        if not self._settings.model_control:
            raise ModelControlOff
        name = request.model_name or request.repository_name
        if not name:
            raise ModelNotServed("model", "", ", ".join(self._repository.endpoints))
        return str(name)


def _check_message(message: Any) -> None:
    """Raise ``BodyRefused`` for what the parser found to be no message."""
    if message is None:
        raise BodyRefused("it is not a message of this call")


def _telling_errors(
    call: Callable[[Any, Context], Awaitable[Any]],
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def answer(request: Any, context: Context) -> Any:
        try:
            _check_message(request)
            return await call(request, context)
        except HeadraceError as error:
            said = dict(context.invocation_metadata() or ())
            request_id = sane_request_id(getattr(request, "id", "")) or _request_id(said)
            await context.abort(status_code(error), str(error), trailers(error, request_id))

    return answer


def _request_id(said: dict[str, Any]) -> str:
    return sane_request_id(said.get("x-request-id")) or new_request_id()


def _tensor(tensor: metadata.TensorMetadata) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
