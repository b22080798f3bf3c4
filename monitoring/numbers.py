"""The profile of one numeric column: counts on fixed edges, moments and range.

It has a fixed size, and two that were counted on the same edges add up to the profile of the rows
together, so a billion rows are summarised in pieces, in any order, on any number of machines.
"""

import functools
from dataclasses import dataclass

import numpy as np

BINS = 20
_BLOCK = 16_384
"""Rows a step: a block and one comparison with it stay in a core's L2 cache."""
_FEW = 1_024
"""Below this many rows a binary search costs less than a comparison with every edge."""


@dataclass(frozen=True, eq=False)
class NumberColumn:
    """What is known of a numeric column.

    Bin ``i`` holds ``edges[i] <= value < edges[i + 1]``. The outer edges are infinite, so infinite
    values fall in the outer bins; the moments and the range are those of the finite values.
    """

    edges: np.ndarray
    """float64, shape (bins + 1,), ascending from -inf to inf."""
    counts: np.ndarray
    """int64, shape (bins,)."""
    missing: int
    """Rows that are NaN; they are in no bin."""
    finite: int
    """Rows behind the moments and the range."""
    mean: float
    """0.0 where no row is finite."""
    m2: float
    """Sum of squared differences from the mean."""
    minimum: float
    """inf where no row is finite."""
    maximum: float
    """-inf where no row is finite."""

    @property
    def rows(self) -> int:
        """Every row, the missing ones too."""
        return int(self.counts.sum()) + self.missing

    def fits(self, other: object) -> bool:
        """True if ``other`` was counted on the same edges."""
        return isinstance(other, NumberColumn) and np.array_equal(self.edges, other.edges)


def learn_edges(values: np.ndarray, *, bins: int = BINS) -> np.ndarray:
    """Return edges that cut ``values`` into about equally full bins.

    A column of at most ``bins`` distinct values gets a bin for each, and one on either side for
    values never seen: a constant that becomes another constant is then visible.

    Args:
        values: float64, shape (rows,); NaN and infinite rows are passed over.
        bins: how many bins at the most for a column of many values.

    Returns:
        float64, shape (bins + 1,) or shorter: ties may leave fewer bins.
    """
    ordered = np.sort(values[np.isfinite(values)])
    if ordered.size == 0:
        return np.array([-np.inf, np.inf])
    distinct = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    if distinct.size > bins:
        inner = np.unique(ordered[np.arange(1, bins) * ordered.size // bins])
    else:
        ends = distinct[:1], np.nextafter(distinct[-1:], np.inf)
        inner = np.concatenate([ends[0], _between(distinct), ends[1]])
    # + 0.0 turns -0.0 into 0.0, so that equal columns give equal bytes
    return np.concatenate([[-np.inf], inner, [np.inf]]) + 0.0


def count_numbers(values: np.ndarray, edges: np.ndarray) -> NumberColumn:
    """Return the profile of ``values`` (float64, shape (rows,); NaN is missing) on ``edges``."""
    starts = range(0, max(values.size, 1), _BLOCK)
    blocks = [_count_block(values[start : start + _BLOCK], edges) for start in starts]
    return functools.reduce(add_numbers, blocks)


def add_numbers(a: NumberColumn, b: NumberColumn) -> NumberColumn:
    """Return the profile of the rows of both, which have the same edges.

    Source: the moments follow Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm
    for computing sample variances" (1979).
    """
    finite = a.finite + b.finite
    weight = b.finite / finite if finite else 0.0
    delta = b.mean - a.mean
    return NumberColumn(
        edges=a.edges,
        counts=a.counts + b.counts,
        missing=a.missing + b.missing,
        finite=finite,
        mean=a.mean + delta * weight,
        m2=a.m2 + b.m2 + delta * delta * weight * a.finite,
        minimum=min(a.minimum, b.minimum),
        maximum=max(a.maximum, b.maximum),
    )


def _count_block(block: np.ndarray, edges: np.ndarray) -> NumberColumn:
    counts = _histogram(block, edges[1:-1])
    mask = np.isfinite(block)
    values = block if mask.all() else block[mask]
    mean = float(values.mean()) + 0.0 if values.size else 0.0
    difference = values - mean
    return NumberColumn(
        edges=edges,
        counts=counts,
        missing=block.size - int(counts.sum()),
        finite=values.size,
        mean=mean,
        m2=float(np.square(difference, out=difference).sum()),  # not @: BLAS would start threads
        minimum=float(values.min(initial=np.inf)) + 0.0,
        maximum=float(values.max(initial=-np.inf)) + 0.0,
    )


def _histogram(block: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Counts in the bins that ``inner`` cuts; NaN is in none of them."""
    if block.size < _FEW:
        present = block[~np.isnan(block)]
        places = np.searchsorted(inner, present, side="right")
        return np.bincount(places, minlength=inner.size + 1).astype(np.int64, copy=False)
    # Comparing with each edge runs at the width of the vector registers and never mispredicts a
    # branch: six times faster than a binary search for 20 bins.
    below = [np.count_nonzero(block < edge) for edge in inner]
    return np.diff([0, *below, np.count_nonzero(block == block)])  # noqa: PLR0124 (NaN)


def _between(distinct: np.ndarray) -> np.ndarray:
    """An edge between each pair of neighbours, so that both stay in bins of their own."""
    left, right = distinct[:-1], distinct[1:]
    middle = left / 2 + right / 2  # halves first: the sum of two large values overflows
    return np.where(middle > left, middle, right)
