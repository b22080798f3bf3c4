"""What a body of the plain API asks, row by row, before it becomes queries of the data plane."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from serving.errors import FieldsRefused
from serving.http.codec import Head, new_request_id
from serving.query import Query

if TYPE_CHECKING:
    from serving.served import ServedModel

Given = dict[str, float]
"""Raw features that a row brings beside its keys, by column; NaN is missing."""


class SingleQuery(Query):
    """A query of one row that was asked alone, and is answered so."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class Asked:
    """The rows of a body; never changed."""

    model: "ServedModel"
    rows: Sequence[Any]
    """Keyed rows as objects; where ``raw``, lists of all columns' values, None where missing."""
    raw: bool = False
    given: Sequence[Given] | None = None
    """What each keyed row brings itself; None: none brings anything."""
    single: bool = False
    refused: Mapping[int, FieldsRefused] | None = None
    """By row, what is wrong with what it brings; only where a bad row costs only itself."""

    def query(self, edge: str, head: Head, span: range | None = None) -> Query | None:
        """Return the query of the rows in ``span`` (None: all); None if all are refused already.

        A query of rows some of which are refused holds the others: ``good`` says which.
        """
        rows, overrides = self.rows, None
        if span is not None or self.refused or self.given is not None:
            good = self.good(range(len(rows)) if span is None else span)
            if not good:
                return None
            rows, overrides = [rows[row] for row in good], self._overrides(good)
        received = time.perf_counter()
        return (SingleQuery if self.single else Query)(
            self.model,
            edge,
            len(rows),
            head.request_id or new_request_id(),
            received,
            list(chain.from_iterable(rows)) if self.raw else None,
            None if self.raw else list(rows),
            overrides=overrides,
            deadline=None if head.timeout is None else received + head.timeout,
            traceparent=head.traceparent,
        )

    def good(self, span: range) -> list[int]:
        """The rows of ``span`` that are not refused."""
        return [row for row in span if row not in self.refused] if self.refused else list(span)

    def _overrides(self, rows: Sequence[int]) -> dict[str, dict[int, float]] | None:
        if self.given is None:
            return None
        overrides: dict[str, dict[int, float]] = {}
        for place, row in enumerate(rows):
            for column, value in self.given[row].items():
                overrides.setdefault(column, {})[place] = value
        return overrides or None
