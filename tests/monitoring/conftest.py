"""Small real windows of data for the monitoring room."""

from collections.abc import Callable

import numpy as np
import pytest

Columns = dict[str, np.ndarray]


@pytest.fixture
def window() -> Callable[..., Columns]:
    """A factory of windows: two numbers, a text and a prediction, with some values missing."""

    def make(rows: int, *, seed: int = 0, shift: float = 0.0) -> Columns:
        random = np.random.default_rng(seed)
        delay = random.gamma(2.0, 10.0, rows) + shift
        delay[random.random(rows) < 0.05] = np.nan
        return {
            "delay": delay,
            "distance": random.choice([200.0, 500.0, 1500.0], rows),
            "carrier": random.choice(np.array(["UA", "B6", "EV", None], dtype=object), rows),
            "prediction": random.beta(2.0, 5.0, rows),
        }

    return make
