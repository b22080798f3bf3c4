"""Some rows of a request whose bad rows cost only themselves: answered, each with what it got."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from serving.errors import OnlineStoreFailing
from serving.plain.response import Wording, error_item

if TYPE_CHECKING:
    from headrace.errors import HeadraceError
    from serving.http.codec import Head
    from serving.plain.asked import Asked
    from serving.query import Answer, Query


class Plane(Protocol):
    """Who computes; ``serving.dataplane.DataPlane`` is the real one."""

    async def infer(self, query: "Query") -> "Answer":
        """Return the answer to ``query``; where the caller is cancelled, it is dropped."""


@dataclass(frozen=True)
class Part:
    """What became of some rows of a request."""

    items: list[bytes]
    """In order, JSON: a prediction with what was read, or an error with its problems."""
    failed: int
    """How many of the items are errors."""
    degraded: bool

    def __add__(self, other: "Part") -> "Part":
        return Part(
            self.items + other.items, self.failed + other.failed, self.degraded or other.degraded
        )


async def answer_part(
    plane: Plane, wording: Wording, asked: "Asked", span: range, *, edge: str, head: "Head"
) -> Part:
    """Return what became of the rows of ``asked`` in ``span``.

    Raises:
        HeadraceError: where it is not a row's own doing.
    """
    query = asked.query(edge, head, span)
    if query is None:
        return _with_errors({}, dict(asked.refused or {}), span, degraded=False)
    query.partial = True
    try:
        answer = await plane.infer(query)
    except OnlineStoreFailing as error:
        if not error.of_rows:
            raise
        if len(span) == 1:
            return Part([error_item(error, span.start)], 1, degraded=False)
        # What one entity has in the store cannot be read: halve until it stands alone.
        middle = (span.start + span.stop) // 2
        first, second = range(span.start, middle), range(middle, span.stop)
        return await answer_part(
            plane, wording, asked, first, edge=edge, head=head
        ) + await answer_part(plane, wording, asked, second, edge=edge, head=head)
    good = asked.good(span)
    items = dict(zip(good, wording.predictions(answer), strict=True))
    errors: dict[int, HeadraceError] = dict(asked.refused or {})
    errors |= {good[place]: error for place, error in answer.problems.items()}
    return _with_errors(items, errors, span, degraded=answer.degraded)


def _with_errors(
    items: dict[int, bytes], errors: "dict[int, HeadraceError]", span: range, *, degraded: bool
) -> Part:
    found = [error_item(errors[row], row) if row in errors else items[row] for row in span]
    return Part(found, sum(row in errors for row in span), degraded)
