"""Equal rows are scored once where many repeat, and the answers are the same to the bit."""

import numpy as np
import pytest

from tasks.batch import distinct
from tasks.batch.distinct import distinct_rows, predict_distinct


class Counting:
    """A model that adds up its inputs, and counts the rows it was given."""

    def __init__(self):
        self.rows = 0

    def __call__(self, matrix):
        self.rows += len(matrix)
        return np.nansum(matrix, axis=1, dtype=np.float32)


def some_rows(rows, of, seed=0):
    random = np.random.default_rng(seed)
    base = random.normal(size=(of, 5)).astype(np.float32)
    base[random.random(base.shape) < 0.1] = np.nan
    return base[random.integers(0, of, rows)]


@pytest.mark.parametrize(("of", "most"), [(50, 50), (100_000, 20_000)])
def test_rows_that_repeat_are_scored_once_and_others_as_they_come(of, most):
    matrix, model = some_rows(20_000, of), Counting()
    found = predict_distinct(model, matrix)
    assert found.tobytes() == Counting()(matrix).tobytes()
    assert model.rows <= most
    assert (model.rows == len(matrix)) == (of > len(matrix))


def test_the_first_of_equal_rows_stands_for_all():
    matrix = np.array([[1, 2], [3, 4], [1, 2], [3, 4], [1, 2]], np.float32)
    first, place = distinct_rows(matrix)
    assert (first.tolist(), place.tolist()) == ([0, 1], [0, 1, 0, 1, 0])


def test_rows_are_equal_by_their_bits_alone():
    zeros = np.array([[0.0], [-0.0], [np.nan], [-np.nan]], np.float32)
    assert len(distinct_rows(zeros)[0]) == 4


def test_different_rows_with_one_hash_are_all_scored(monkeypatch):
    monkeypatch.setattr(distinct, "_hashes", lambda matrix: np.zeros(len(matrix), np.uint64))
    matrix, model = some_rows(3_000, 3_000), Counting()
    assert predict_distinct(model, matrix).tobytes() == Counting()(matrix).tobytes()


def test_no_rows_have_no_predictions():
    assert predict_distinct(Counting(), np.empty((0, 3), np.float32)).shape == (0,)
