"""What can go wrong when data and predictions are watched.

MonitoringError               base of this room
├── ColumnRefused             a column that cannot be profiled
├── ColumnsMissing            a window without columns that the reference has
├── EmptyWindow               a window without rows
├── EdgesDiffer               two profiles that were not counted on the same edges
├── LimitRefused              a tag of a feature view that is no limit (UsageError)
├── NothingToDraw             a report of columns none of which can be drawn
├── ProfileRefused            bytes that are no profile
├── RowsDiffer                arrays that must be parallel, and are not
├── ValuesRefused             labels or predictions that cannot be scored
├── OneClassOnly              a ranking metric asked of labels of one class
└── TooFewBlocks              too few days to put an interval around a gain (UsageError)
"""

from collections.abc import Iterable, Mapping

from headrace.errors import HeadraceError, UsageError


class MonitoringError(HeadraceError):
    """Base of every error of this room."""


class ColumnRefused(MonitoringError):
    """A column that cannot be profiled."""

    def __init__(self, column: str, reason: str) -> None:
        self.column, self.reason = column, reason
        super().__init__(
            f"column {column!r} cannot be profiled: {reason}. "
            "Give one-dimensional columns of numbers or text, all of the same length."
        )


class ColumnsMissing(MonitoringError):
    """A window without columns that the reference has."""

    def __init__(self, missing: Iterable[str], found: Iterable[str]) -> None:
        self.missing, self.found = tuple(sorted(missing)), tuple(sorted(found))
        super().__init__(
            f"columns {', '.join(self.missing)} of the reference are missing; the window has "
            f"{', '.join(self.found) or 'none'}. Compare windows of one feature plan."
        )


class EmptyWindow(MonitoringError):
    """A window without rows: nothing can be said about it."""

    def __init__(self, *, reference_rows: int, current_rows: int) -> None:
        self.reference_rows, self.current_rows = reference_rows, current_rows
        super().__init__(
            f"a window is empty: reference {reference_rows}, current {current_rows} rows. "
            "Choose dates in which there is data."
        )


class EdgesDiffer(MonitoringError):
    """Two profiles that were not counted on the same edges."""

    def __init__(self, columns: Iterable[str]) -> None:
        self.columns = tuple(sorted(columns))
        super().__init__(
            f"profiles differ in the columns or bins of {', '.join(self.columns)}: "
            "count both with profile_like() on one reference."
        )


class LimitRefused(MonitoringError, UsageError):
    """A tag of a feature view that is no limit."""

    def __init__(self, view: str, tag: str, value: str, expected: str) -> None:
        self.view, self.tag, self.value, self.expected = view, tag, value, expected
        super().__init__(
            f"feature view {view!r} has the tag {tag} = {value!r}: write {expected}, or 'off'."
        )


class NothingToDraw(MonitoringError):
    """A report of columns none of which can be drawn."""

    def __init__(self, columns: Iterable[str]) -> None:
        self.columns = tuple(columns)
        super().__init__(
            f"none of the columns {', '.join(self.columns)} can be drawn: give at least one of "
            "numbers or text that has values in both windows."
        )


class ProfileRefused(MonitoringError):
    """Bytes that are no profile of this format."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"not a drift profile: {reason}. Read what Profile.to_bytes() wrote.")


class RowsDiffer(MonitoringError):
    """Arrays that must have one value a row each, and have not."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self.lengths = dict(lengths)
        told = ", ".join(f"{name} {rows}" for name, rows in self.lengths.items())
        super().__init__(f"arrays differ in rows: {told}. Give one value a row in each.")


class ValuesRefused(MonitoringError):
    """Labels or predictions that cannot be scored."""

    def __init__(self, what: str, value: object, expected: str) -> None:
        self.what, self.value, self.expected = what, value, expected
        super().__init__(f"{what} hold {value}; expected {expected}.")


class OneClassOnly(MonitoringError):
    """A ranking metric asked of labels that are all the same."""

    def __init__(self, metric: str, rows: int) -> None:
        self.metric, self.rows = metric, rows
        super().__init__(
            f"{metric} of {rows} rows is not defined: their labels are all of one class. "
            "Take a longer window."
        )


class TooFewBlocks(MonitoringError, UsageError):
    """Too few blocks to put an interval around a gain."""

    def __init__(self, found: int, needed: int) -> None:
        self.found, self.needed = found, needed
        super().__init__(
            f"{found} blocks (days) cannot carry a confidence interval: {needed} are needed. "
            "Hold out more days."
        )
