"""What is wrong with the rows of a request, gathered row by row."""

from serving.errors import FieldsRefused, Problem
from serving.schema import MOST_PROBLEMS


class Told:
    """What is wrong, by row; of a row and of a whole request at most so many problems."""

    def __init__(self, *, partial: bool) -> None:
        """Know of nothing yet; ``partial``: a bad row costs only itself."""
        self._partial = partial
        self._problems: dict[int, list[Problem]] = {}

    def is_enough(self, row: int) -> bool:
        """Whether nothing more need be said of ``row``."""
        return len(self._problems.get(row, ())) >= MOST_PROBLEMS

    def add(
        self, row: int, field: str | None, what: str, remedy: str, value: str | None = None
    ) -> None:
        """Tell of a problem: ``row`` has ``what`` in ``field``, and ``remedy`` helps.

        Raises:
            FieldsRefused: where a whole request is refused, once enough is told.
        """
        found = self._problems.setdefault(row, [])
        found.append(Problem(f"row {row} has {what}; {remedy}", field, row, value, remedy))
        if not self._partial and sum(map(len, self._problems.values())) >= MOST_PROBLEMS:
            self.all()

    def all(self) -> dict[int, FieldsRefused]:
        """The rows that are refused.

        Raises:
            FieldsRefused: with the problems of all rows, unless a row costs only itself.
        """
        if self._problems and not self._partial:
            raise FieldsRefused([p for found in self._problems.values() for p in found])
        return {row: FieldsRefused(found) for row, found in self._problems.items()}
