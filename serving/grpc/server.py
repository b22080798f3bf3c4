"""The gRPC server: its port, its limits and its end; on the event loop of the HTTP server."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from serving.errors import PortTaken
from serving.grpc.calls import Calls
from serving.grpc.health import health_handlers

if TYPE_CHECKING:
    from serving.dataplane import DataPlane
    from serving.repository import ModelRepository
    from serving.settings import ServerSettings

_logger = logging.getLogger(__name__)


class GrpcServer:
    """A running server. ``port`` is where it listens."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self._server, self.port = server, port

    async def stop(self, seconds: float) -> None:
        """Take no further calls, and let those under way end within ``seconds``."""
        await self._server.stop(seconds)


async def start(
    plane: "DataPlane",
    repository: "ModelRepository",
    settings: "ServerSettings",
    *,
    is_draining: Callable[[], bool],
) -> GrpcServer:
    """Answer on ``settings.grpc_port`` from now on; see ``serving.grpc.serve``."""
    calls = Calls(plane, repository, settings, is_draining=is_draining)
    shares = settings.workers > 1  # else a second server on this port would take half its calls
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_binary_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", settings.max_header_bytes),
            ("grpc.so_reuseport", int(shares)),
        ]
    )
    server.add_generic_rpc_handlers((calls.handlers(), health_handlers(calls)))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:  # gRPC says no more than that it failed
        raise PortTaken(settings.host, settings.grpc_port or 0, str(error)) from error
    await server.start()
    _logger.info("gRPC at %s:%d", host, port)
    return GrpcServer(server, port)
