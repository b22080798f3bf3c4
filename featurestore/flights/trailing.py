"""Sums over trailing windows, a key at a time, without a loop over keys or rows.

Key and time become one integer that sorts like the pair. A window is then a slice of the sorted
rows, its ends are two ``searchsorted``, and its sum a difference of cumulative sums. Those are sums
of integers, so nothing is rounded and the same rows always give the same bits.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """One slice of the sorted rows for each asked key and moment."""

    order: np.ndarray
    """int64 (rows,): the sorted rows' positions in the columns they came from."""
    start: np.ndarray
    end: np.ndarray

    @property
    def count(self) -> np.ndarray:
        """int64 (asked,): how many rows each window holds."""
        count: np.ndarray = self.end - self.start
        return count

    def sum(self, values: np.ndarray) -> np.ndarray:
        """int64 (asked,): the sum of a column of integers or truths in each window."""
        totals = np.concatenate([[0], np.cumsum(values[self.order], dtype=np.int64)])
        difference: np.ndarray = totals[self.end] - totals[self.start]
        return difference

    def mean(self, values: np.ndarray) -> np.ndarray:
        """float64 (asked,): the mean of a column in each window; NaN in an empty one."""
        mean: np.ndarray = self.sum(values) / np.where(self.count > 0, self.count, np.nan)
        return mean


@dataclass(frozen=True)
class Events:
    """Dated rows of many keys, sorted by key and time; made by ``events``."""

    order: np.ndarray
    places: np.ndarray
    """int64 (rows,): key and minute as one integer, ascending."""
    span: int

    def window(self, keys: np.ndarray, minutes: np.ndarray, *, length: int) -> Window:
        """The rows of each key in ``(minute - length, minute]``.

        Args:
            keys: int64, shape (asked,); codes of the same kind as the events'.
            minutes: int64, shape (asked,); where the windows end, which need not be an event.
            length: of the window, in minutes.
        """
        bases = keys * self.span
        start = bases + np.clip(minutes - length, -1, self.span - 1)
        end = bases + np.clip(minutes, -1, self.span - 1)
        return Window(
            self.order,
            np.searchsorted(self.places, start, side="right"),
            np.searchsorted(self.places, end, side="right"),
        )


def events(keys: np.ndarray, minutes: np.ndarray) -> Events:
    """Return dated rows, sorted and ready to be asked for windows.

    Args:
        keys: int64, shape (rows,); a code from 0 for each key.
        minutes: int64, shape (rows,); minutes since 1970, in any order.

    >>> rows = events(np.array([0, 0, 1]), np.array([10, 20, 15]))
    >>> rows.window(np.array([0, 0, 1]), np.array([20, 40, 15]), length=30).sum(np.array([1, 2, 4]))
    array([3, 2, 4])
    """
    span = int(minutes.max(initial=0)) + 1
    places = keys * span + minutes
    order = np.argsort(places, kind="stable")
    return Events(order, places[order], span)
