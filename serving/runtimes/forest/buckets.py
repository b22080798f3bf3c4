"""How a value finds its rank among a column's thresholds: by a bucket, then a short search.

A value falls into one of equally wide buckets. A table tells how many thresholds lie in the buckets
before it; as each bucket holds one threshold, seldom more, one comparison, seldom more, is left of
the eight that a binary search of 255 thresholds takes. The rank is exact, because a larger value
never falls into an earlier bucket, whatever the rounding: the table is made with the very
operations that the kernel applies to values.
"""

from dataclasses import dataclass

import numpy as np

_A_THRESHOLD, _LEAST, _MOST = 4, 16, 1 << 14
_TRIMS = (0, 1, 2, 4, 8, 16)
_ZERO = np.float32(0)


@dataclass(frozen=True)
class Buckets:
    """The bucket of ``x`` is ``(x - low) * scale`` without its fraction, from 0 to ``last``."""

    low: np.float32
    scale: np.float32
    last: np.float32
    starts: np.ndarray
    """uint16, shape (last + 1,): how many thresholds lie in the buckets before each."""
    steps: int
    """How many halvings find a value's place among the thresholds of the fullest bucket."""


def spread(thresholds: np.ndarray) -> Buckets:
    """Return the buckets that separate ascending thresholds best.

    Args:
        thresholds: float32, shape (n,), n at least 1, ascending, none twice.
    """
    count = len(thresholds)
    buckets = min(max(_LEAST, _A_THRESHOLD << count.bit_length()), _MOST)
    # A few far thresholds would make every bucket too wide: try without them.
    trims = [trim for trim in _TRIMS if 2 * trim + 1 < count]
    tried = [_even(thresholds, thresholds[t], thresholds[-1 - t], buckets) for t in trims]
    return min([_one(thresholds), *filter(None, tried)], key=lambda each: each.steps)


def _one(thresholds: np.ndarray) -> Buckets:
    """One bucket for all: a plain binary search, which is never wrong."""
    return Buckets(_ZERO, _ZERO, _ZERO, np.zeros(1, np.uint16), len(thresholds).bit_length())


def _even(thresholds: np.ndarray, low: np.float32, high: np.float32, count: int) -> Buckets | None:
    last = np.float32(count - 1)
    with np.errstate(all="ignore"):  # thresholds may be infinite, or too far apart for a float
        scale = np.float32(count) / (high - low)
        if not (np.isfinite(scale) and np.isfinite(low) and scale > 0):
            return None
        bucket = np.clip((thresholds - low) * scale, _ZERO, last).astype(np.int64)
    inside = np.bincount(bucket, minlength=count)
    starts = (np.cumsum(inside) - inside).astype(np.uint16)
    return Buckets(low, scale, last, starts, int(inside.max()).bit_length())
