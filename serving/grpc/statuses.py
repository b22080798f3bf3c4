"""From an error to gRPC's status, by way of the one table of ``serving.errors``."""

import grpc

from headrace.errors import HeadraceError
from serving.errors import http_status

_CODES = {
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,  # as gRPC says it of a message that is too long
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def status_code(error: HeadraceError) -> grpc.StatusCode:
    """The status that tells ``error``: INVALID_ARGUMENT for every other fault of the caller."""
    status = http_status(error)
    other = grpc.StatusCode.INVALID_ARGUMENT if status < 500 else grpc.StatusCode.INTERNAL
    return _CODES.get(status, other)


def trailers(error: HeadraceError, request_id: str) -> tuple[tuple[str, str], ...]:
    """What is said beside an error: the request's id, and when to try again.

    Source: https://github.com/grpc/proposal/blob/master/A6-client-retries.md, "Pushback".
    """
    said = (("x-request-id", request_id),)
    seconds = getattr(error, "retry_after_seconds", None)
    return said if seconds is None else (*said, ("grpc-retry-pushback-ms", f"{1000 * seconds:.0f}"))
