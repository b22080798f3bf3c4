"""The gRPC server: its port, its limits and its end; on the event loop of the HTTP server."""

from typing import TYPE_CHECKING

import grpc

from serving.errors import PortTaken
from serving.grpc.calls import Calls
from serving.grpc.health import health_handlers

if TYPE_CHECKING:
    from serving.dataplane import DataPlane
    from serving.repository import ModelRepository
    from serving.settings import ServerSettings


class GrpcServer:
    """A running server. ``port`` is where it listens."""

    def __init__(self, server: grpc.aio.Server, calls: Calls, port: int) -> None:
        self._server, self._calls, self.port = server, calls, port

    def drain(self) -> None:
        """Say from now on that the server is not ready; it answers all the same."""
        self._calls.draining = True

    async def stop(self, seconds: float) -> None:
        """Take no further calls, and let those under way end within ``seconds``."""
        self.drain()
        await self._server.stop(seconds)


async def serve(
    plane: "DataPlane", repository: "ModelRepository", settings: "ServerSettings"
) -> GrpcServer:
    """Start to answer on ``settings.grpc_port``, on the running event loop.

    Raises:
        PortTaken: if the port cannot be had.
    """
    calls = Calls(plane, repository, settings)
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
    return GrpcServer(server, calls, port)
