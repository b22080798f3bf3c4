"""The Open Inference Protocol over gRPC, beside HTTP in the same process, on the same event loop.

schema.py       the messages, as in the protocol's .proto files
descriptors.py  from that text to message classes
tensors.py      a request's tensors to those of ``serving.v2``, an answer's to a response
calls.py        the service's methods
health.py       the standard health service of gRPC
gathering.py    calls that arrive one after the other, together
fast.py         the usual request
statuses.py     from an error to a status code
server.py       the server: its port, its limits, its end

Nothing outside imports this package before a gRPC port was asked for: the extra ``headrace[grpc]``
may be missing.
"""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from headrace.errors import SettingRefused
from serving.errors import GrpcMissing, PortTaken

if TYPE_CHECKING:
    from serving.dataplane import DataPlane
    from serving.grpc.server import GrpcServer
    from serving.repository import ModelRepository
    from serving.settings import ServerSettings


def check(settings: "ServerSettings") -> None:
    """Find out, before anything is loaded, whether gRPC can be served where it is asked for.

    Raises:
        GrpcMissing: if the extra is not installed.
        PortTaken: if another process listens on the port.
        SettingRefused: if several workers would each choose a port of their own.
    """
    if settings.grpc_port is None:
        return
    for package, module in (("grpcio", "grpc"), ("protobuf", "google")):
        if find_spec(module) is None:
            raise GrpcMissing(package)
    if settings.workers > 1 and settings.grpc_port == 0:
        expected = "the port that all workers share (0: any free one, is for one worker)"
        raise SettingRefused("HEADRACE_SERVER_GRPC_PORT", 0, expected)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.grpc_port), family=family).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise PortTaken(settings.host, settings.grpc_port, reason) from error


@contextlib.asynccontextmanager
async def serving(
    plane: "DataPlane",
    repository: "ModelRepository",
    settings: "ServerSettings",
    *,
    is_draining: Callable[[], bool] = lambda: False,
) -> "AsyncIterator[GrpcServer | None]":
    """Answer on ``settings.grpc_port`` meanwhile, on the running event loop; None: no gRPC.

    At the end no further calls are taken, and those under way have ``drain_seconds`` to end.

    Args:
        plane: answers.
        repository: the models.
        settings: port, limits and drain.
        is_draining: whether the server is ending: from then on it says that it is not ready.

    Raises:
        PortTaken: if the port cannot be had.
    """
    if settings.grpc_port is None:
        yield None
        return
    from serving.grpc.server import start

    server = await start(plane, repository, settings, is_draining=is_draining)
    try:
        yield server
    finally:
        await server.stop(settings.drain_seconds)
