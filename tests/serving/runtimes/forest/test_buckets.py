import numpy as np
import pytest

from serving.runtimes.forest.buckets import spread

LARGEST = np.finfo(np.float32).max


def thresholds_of(kind):
    random = np.random.default_rng(3)
    return {
        "one": [0.25],
        "two": [-1, 1],
        "evenly spread": random.uniform(-1, 1, 255),
        "a bell": np.quantile(random.normal(size=20_000), np.arange(1, 256) / 256),
        "skewed": random.lognormal(0, 2, 255),
        "whole numbers": np.arange(2000),
        "neighbours": np.float32(1) + np.arange(300) * np.finfo(np.float32).eps,
        "far apart": [-LARGEST, -1, 0, 1, LARGEST],
        "infinite": [-np.inf, 0, np.inf],
        "one far away": [*random.normal(size=100), 1e30],
        "denormal": random.normal(size=100) * 1e-40,
    }[kind]


def rank(buckets, thresholds, value):
    """The kernel's search, in words of NumPy."""
    with np.errstate(all="ignore"):
        bucket = (value - buckets.low) * buckets.scale
    inside = int(min(bucket, buckets.last)) if bucket > 0 else 0  # of NaN: 0
    found = int(buckets.starts[inside])
    padded = np.concatenate([thresholds, np.full(1 << buckets.steps, np.nan)])
    for step in reversed(range(buckets.steps)):
        found += (1 << step) * int(value >= padded[found + (1 << step) - 1])
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "one",
        "two",
        "evenly spread",
        "a bell",
        "skewed",
        "whole numbers",
        "neighbours",
        "far apart",
        "infinite",
        "one far away",
        "denormal",
    ],
)
def test_a_rank_is_the_number_of_thresholds_that_are_not_above(kind):
    thresholds = np.unique(np.float32(thresholds_of(kind)))
    infinity = np.float32(np.inf)
    with np.errstate(over="ignore"):  # of the largest float: infinity
        below, above = (np.nextafter(thresholds, end) for end in (-infinity, infinity))
    values = np.concatenate([thresholds, below, above, np.float32([0, -np.inf, np.inf])])
    buckets = spread(thresholds)
    for value in values:
        assert rank(buckets, thresholds, value) == np.sum(thresholds <= value), value


@pytest.mark.parametrize("kind", ["evenly spread", "a bell", "whole numbers", "one far away"])
def test_usual_thresholds_need_two_comparisons_at_most(kind):
    assert spread(np.unique(np.float32(thresholds_of(kind)))).steps <= 2
