"""The Open Inference Protocol over REST, as a codec: bytes to a query, an answer to bytes."""

import time
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError
from serving import json_body
from serving.http.codec import Head, new_request_id
from serving.query import Answer, Query
from serving.v2.fast import read_usual
from serving.v2.outputs import render
from serving.v2.rest import read_request

if TYPE_CHECKING:
    from serving.repository import ModelRepository
    from serving.settings import ServerSettings

EDGE = "v2"


class V2Codec:
    """Reads and writes ``POST /v2/models/{name}/infer``."""

    edge = EDGE

    def __init__(self, repository: "ModelRepository", settings: "ServerSettings") -> None:
        self._served, self._max_rows = repository.served, settings.max_rows

    def decode(self, body: bytes, head: Head) -> Query:
        """Return the query that ``body`` asks of the model that ``head`` names.

        Raises:
            ModelNotServed: for a model or version that is not served here.
            BodyRefused: if the body is not JSON, or its binary tensors do not add up.
            FieldsRefused: naming the tensor, and what its shape, datatype or data should be.
            BodyTooLarge: for too many rows.
        """
        received = time.perf_counter()
        model = self._served(head.name, head.version)
        deadline = None if head.timeout is None else received + head.timeout
        usual = read_usual(body, model, self._max_rows) if head.header_length is None else None
        if usual is not None:
            given, rows, features = usual
            request_id = given or head.request_id or new_request_id()
            query = Query(model, EDGE, rows, request_id, received, features)
            query.deadline, query.traceparent = deadline, head.traceparent
            return query
        request = read_request(body, head.header_length)
        return request.query(
            model,
            edge=EDGE,
            max_rows=self._max_rows,
            request_id=request.id or head.request_id or new_request_id(),
            received=received,
            deadline=deadline,
            traceparent=head.traceparent,
        )

    def encode(self, answer: Answer) -> tuple[bytes, bytes]:
        """Return the response's header lines and body."""
        return render(answer)

    def encode_error(self, error: HeadraceError, request_id: str) -> bytes:  # noqa: ARG002
        """Return the protocol's form of an error, which has no place for the request id."""
        return json_body.encode({"error": str(error)})
