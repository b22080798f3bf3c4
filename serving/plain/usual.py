"""The usual bodies, read by type in one step; whatever is unusual is left to the full decoder.

A body is taken only if nothing can be wrong with it but a moment: its rows have the model's type
(``serving.row_types``), and it has exactly as many quotes as its rows say, so that no key stands
in it twice.
"""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec.structs import astuple

from serving.plain.asked import Asked
from serving.row_types import Number, raw_row_type

if TYPE_CHECKING:
    from serving.served import ServedModel

_QUOTE = b'"'


class UsualBodies:
    """Reads the usual bodies of one model's requests."""

    def __init__(self, model: "ServedModel", *, max_rows: int) -> None:
        schema, columns = model.schema, model.predictor.columns
        self._max_rows = max_rows
        keyed: Any = schema.row_type
        named: Any = raw_row_type(columns)
        of_all = msgspec.Meta(min_length=len(columns), max_length=len(columns))
        listed: Any = Annotated[list[Number | None], of_all]
        body = msgspec.defstruct(
            "Body",
            [
                ("instances", list[keyed] | None, None),
                ("instance", keyed | None, None),
                ("features", list[named | listed] | None, None),
            ],
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decode = msgspec.json.Decoder(body).decode
        # A row's keys, and its values that are text, have two quotes each.
        texts = sum(field.kind in ("string", "timestamp") for field in schema.fields)
        self._keyed_quotes = 2 * (len(schema.fields) + texts)
        self._named_quotes = 2 * len(columns)

    def read(self, body: bytes, model: "ServedModel") -> Asked | None:
        """Return what ``body`` asks of ``model``; None where the full decoder must look at it."""
        try:
            asked: Any = self._decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        quotes = body.count(_QUOTE) - 2
        if (rows := asked.instances) and len(rows) <= self._max_rows:
            return Asked(model, rows) if quotes == len(rows) * self._keyed_quotes else None
        if (row := asked.instance) is not None:
            return Asked(model, [row], single=True) if quotes == self._keyed_quotes else None
        if (rows := asked.features) and len(rows) <= self._max_rows:
            lists = [row if type(row) is list else astuple(row) for row in rows]
            named = sum([type(row) is not list for row in rows])
            return Asked(model, lists, raw=True) if quotes == named * self._named_quotes else None
        return None
