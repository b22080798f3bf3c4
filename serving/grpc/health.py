"""``grpc.health.v1.Health``: what Kubernetes and load balancers ask.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md. ``Watch`` is not offered:
clients that would use it go on without, as that page tells them to.
"""

from typing import Any

import grpc

from headrace.errors import HeadraceError
from serving.errors import ModelNotServed
from serving.grpc.calls import Calls, Context
from serving.grpc.descriptors import message_classes, parser
from serving.grpc.schema import HEALTH, HEALTH_SERVICE, SERVICE

_MESSAGES = message_classes("grpc.health.v1", HEALTH)
_SERVING, _NOT_SERVING = 1, 2


def health_handlers(calls: Calls) -> grpc.GenericRpcHandler:
    """Return the service; it tells of the server (""), of the protocol's service and of models."""

    async def check(request: Any, context: Context) -> Any:
        service = "" if request is None else request.service
        if service in ("", SERVICE):
            serves = calls.ready
        else:
            try:
                serves = calls.model_ready(service)
            except ModelNotServed as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            except HeadraceError:
                serves = False  # it should answer, and does not now
        return _MESSAGES["HealthCheckResponse"](status=_SERVING if serves else _NOT_SERVING)

    method = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=parser(_MESSAGES["HealthCheckRequest"]),
        response_serializer=_MESSAGES["HealthCheckResponse"].SerializeToString,
    )
    return grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": method})
