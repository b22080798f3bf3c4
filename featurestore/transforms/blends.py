"""Functions of what several models predict, for graphs."""

import numpy as np

from headrace.transform import transform


@transform("first", "second")
def geometric_mean(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The geometric mean of two predictions of at least 0: near the lower where they differ."""
    mean: np.ndarray = np.sqrt(first * second)
    return mean
