"""``POST /api/v1/infer``: entity keys or raw features in, predictions out.

The usual body is read by type, in one step, and anything else by the full decoder, which knows
every form and names every fault. Both give the same query; a test compares them.
"""

from typing import TYPE_CHECKING

from headrace.errors import HeadraceError
from serving import json_body
from serving.http.codec import Head
from serving.plain.asked import Asked
from serving.plain.request import read_request
from serving.plain.response import Wording, error_body
from serving.plain.usual import UsualBodies

if TYPE_CHECKING:
    from serving.query import Answer, Query
    from serving.repository import ModelRepository
    from serving.served import ServedModel
    from serving.settings import ServerSettings

_JSON = b"content-type: application/json\r\n"
_MOST_FORMS = 64


class PlainCodec:
    """The plain API's bytes."""

    edge = "plain"

    def __init__(self, repository: "ModelRepository", settings: "ServerSettings") -> None:
        self._repository, self._max_rows = repository, settings.max_rows
        self._forms: dict[int, _Form] = {}
        self._last: _Form | None = None

    def decode(self, body: bytes, head: Head) -> "Query":
        """Return what ``body`` asks; see ``serving.http.codec.Codec``."""
        query = self.read(body).query(self.edge, head)
        assert query is not None  # without ``partial``, a row that is refused refuses them all
        return query

    def read(self, body: bytes, *, partial: bool = False) -> Asked:
        """Return what a body asks.

        Args:
            body: JSON.
            partial: a row whose features are wrong is set aside instead of refusing the request.

        Raises:
            RequestRefused: naming what is wrong with it.
        """
        model = self._repository.served()
        usual = self._form(model).usual.read(body, model)
        return usual or self.read_fully(body, partial=partial)

    def read_fully(self, body: bytes, *, partial: bool = False) -> Asked:
        """The same by the full decoder alone."""
        document = json_body.decode(body)
        return read_request(document, self._repository, max_rows=self._max_rows, partial=partial)

    def encode(self, answer: "Answer") -> tuple[bytes, bytes]:
        """Return header lines and body of an answer."""
        return _JSON, self.wording(answer.model).answer(answer)

    def encode_error(self, error: HeadraceError, request_id: str) -> bytes:
        """Return the body that tells ``error``."""
        return error_body(error, request_id)

    def wording(self, model: "ServedModel") -> Wording:
        """The words of the answers of ``model``."""
        return self._form(model).wording

    def _form(self, model: "ServedModel") -> "_Form":
        last = self._last
        if last is not None and last.schema is model.schema and last.release is model.release:
            return last
        form = self._forms.get(id(model.schema))
        if form is None or form.release is not model.release:
            if len(self._forms) >= _MOST_FORMS:
                self._forms.clear()
            # It holds the schema, so that no other one can have its id.
            form = self._forms[id(model.schema)] = _Form(model, self._max_rows)
        self._last = form
        return form


class _Form:
    """What is made once for a model; holds no model, which is freed with its last request."""

    __slots__ = ("release", "schema", "usual", "wording")

    def __init__(self, model: "ServedModel", max_rows: int) -> None:
        self.schema, self.release = model.schema, model.release
        self.usual = UsualBodies(model, max_rows=max_rows)
        self.wording = Wording(model)
