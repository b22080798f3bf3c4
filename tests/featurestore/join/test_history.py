import numpy as np
import pytest

from featurestore.join.history import History, by_number


@pytest.mark.parametrize("most", [3, 0xFE, 0xFF, 0x100, 0xFFFF, 0x10000, 1 << 20])
def test_numbers_of_any_width_are_ordered_stably_with_none_last(most):
    random = np.random.default_rng(most)
    numbers = random.integers(-1, most + 1, 3_000, dtype=np.int32)
    numbers[:2] = most, -1
    expected = np.argsort(numbers.view(np.uint32), kind="stable")
    np.testing.assert_array_equal(by_number(numbers), expected)


@pytest.mark.parametrize("rows", [1, 400])
@pytest.mark.parametrize("step", [1, 1 << 44])
def test_merging_and_searching_ticks_and_ranks_agree_with_a_loop(rows, step):
    random = np.random.default_rng(step % 97 + rows)
    entity = random.integers(-1, 40_000, 500, dtype=np.int32) % 50
    event = np.sort(random.integers(0, 60, 500)) * step
    created = event + random.integers(-2, 5, 500) * step
    history = History.of(entity, event, created)
    asked = random.integers(-1, 50, rows, dtype=np.int32)
    at = random.integers(-2, 70, rows) * step
    found = history.latest(asked, at)
    for i in range(rows):
        known = [
            (event[j], created[j], j)
            for j in range(500)
            if entity[j] == asked[i] >= 0 and max(event[j], created[j]) <= at[i]
        ]
        assert found[i] == (max(known)[2] if known else -1)
