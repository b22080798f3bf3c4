import itertools
import math

import numpy as np
import pytest

from serving.explanations import kernel_shap as module
from serving.explanations.kernel_shap import kernel_shap

RANDOM = np.random.default_rng(11)


def model(rows):
    """Products and a threshold: no column's effect is independent of the others."""
    known = np.nan_to_num(rows.astype(np.float64))
    return (known[:, 0] * known[:, 1] + np.tanh(known).sum(1) + (known[:, -1] > 0)).astype("f4")


def by_permutations(predict, row, background):
    """Shapley's definition: the mean gain of a column over all orders of arrival."""
    columns = len(row)
    found = np.zeros(columns)
    for order in itertools.permutations(range(columns)):
        mixed = background.copy()
        before = predict(mixed).mean(dtype=np.float64)
        for column in order:
            mixed[:, column] = row[column]
            now = predict(mixed).mean(dtype=np.float64)
            found[column] += now - before
            before = now
    return found / math.factorial(columns)


def rows_of(columns, rows=3):
    made = RANDOM.normal(size=(rows, columns)).astype(np.float32)
    made[0, 1] = np.nan
    return made


@pytest.mark.parametrize("columns", [2, 3, 5])
def test_few_columns_give_the_shapley_values_by_their_definition(columns):
    matrix, background = rows_of(columns), rows_of(columns, 7)
    found = kernel_shap(model, matrix, background)
    for row, given in zip(matrix, found.contributions, strict=True):
        np.testing.assert_allclose(given, by_permutations(model, row, background), atol=1e-6)
    assert (found.method, found.error, found.scale) == ("kernel_shap_exact", None, "value")


@pytest.mark.parametrize("columns", [1, 4, 12, 15])
def test_base_and_contributions_add_up_to_the_prediction(columns):
    def linear(rows):
        return np.nan_to_num(rows).sum(axis=1)

    matrix, background = rows_of(columns + 1)[:, :columns], rows_of(columns + 1, 5)[:, :columns]
    found = kernel_shap(linear, matrix, background)
    np.testing.assert_allclose(found.base + found.contributions.sum(1), found.margin, atol=1e-5)
    np.testing.assert_array_equal(found.predictions, linear(matrix))
    moved = np.nan_to_num(matrix) - np.nan_to_num(background).mean(axis=0)
    np.testing.assert_allclose(found.contributions, moved, atol=1e-5)  # a sum has no interactions


def test_drawn_coalitions_come_within_the_error_that_is_told(monkeypatch):
    matrix, background = rows_of(10, 6), rows_of(10, 8)
    exact = kernel_shap(model, matrix, background)
    monkeypatch.setattr(module, "MOST_EXACT", 9)
    drawn = kernel_shap(model, matrix, background)
    assert drawn.method == "kernel_shap_sampled"
    off = np.abs(drawn.contributions - exact.contributions)
    assert 0 < drawn.error.max() < 0.05
    assert (off < 4 * drawn.error + 1e-6).all()
    assert np.mean(off < 2 * drawn.error + 1e-6) > 0.9


def test_the_same_row_gets_the_same_explanation_alone_and_among_others():
    matrix, background = rows_of(14, 4), rows_of(14, 6)
    together = kernel_shap(model, matrix, background)
    alone = kernel_shap(model, matrix[2:3], background)
    np.testing.assert_array_equal(together.contributions[2:3], alone.contributions)
    np.testing.assert_array_equal(together.error[2:3], alone.error)


def test_the_model_is_given_no_more_rows_at_once_than_it_may(monkeypatch):
    monkeypatch.setattr(module, "MODEL_ROWS", 100)
    asked = []

    def counting(rows):
        asked.append(len(rows))
        return model(rows)

    background = rows_of(8, 7)
    few = kernel_shap(counting, rows_of(8, 1), background)
    assert max(asked) <= 100
    assert sum(asked) == 2**8 * 7 + 1 + 7
    assert np.isfinite(few.contributions).all()
