"""The Open Inference Protocol over gRPC, beside HTTP in the same process, on the same event loop.

schema.py       the messages, as in the protocol's .proto files
descriptors.py  from that text to message classes
tensors.py      a request's tensors to those of ``serving.v2``, an answer's to a response
calls.py        the service's methods
health.py       the standard health service of gRPC
statuses.py     from an error to a status code
server.py       the server: its port, its limits, its end

Nothing outside imports this package before a gRPC port was asked for: the extra ``headrace[grpc]``
may be missing.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from serving.errors import GrpcMissing

if TYPE_CHECKING:
    from serving.dataplane import DataPlane
    from serving.grpc.server import GrpcServer
    from serving.repository import ModelRepository
    from serving.settings import ServerSettings


def check_installed() -> None:
    """Raise ``GrpcMissing`` unless gRPC can be served; call before anything is loaded."""
    if missing := [name for name in ("grpc", "google.protobuf") if not _is_there(name)]:
        raise GrpcMissing(missing[0])


async def serve(
    plane: "DataPlane", repository: "ModelRepository", settings: "ServerSettings"
) -> "GrpcServer":
    """Start to answer on ``settings.grpc_port``, on the running event loop.

    Raises:
        GrpcMissing: if the extra is not installed.
        PortTaken: if the port cannot be had.
    """
    check_installed()
    from serving.grpc import server

    return await server.serve(plane, repository, settings)


def _is_there(name: str) -> bool:
    package = name.partition(".")[0]
    return find_spec(package) is not None and find_spec(name) is not None
