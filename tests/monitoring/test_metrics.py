import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.errors import OneClassOnly
from monitoring.metrics import value_of, weighted_metric

# Few distinct probabilities, so that ties are the rule.
binary_rows = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.5, 0.5001, 1.0])),
    min_size=2,
    max_size=80,
).filter(lambda rows: len({label for label, _ in rows}) == 2)


def columns(rows):
    return np.array(rows, dtype=np.float64).T


@settings(deadline=None)
@given(binary_rows)
def test_binary_metrics_are_scikit_learns(rows):
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    labels, predictions = columns(rows)
    assert value_of("roc_auc", labels, predictions) == pytest.approx(
        roc_auc_score(labels, predictions), abs=1e-12
    )
    assert value_of("log_loss", labels, predictions) == pytest.approx(log_loss(labels, predictions))
    assert value_of("brier", labels, predictions) == pytest.approx(
        brier_score_loss(labels, predictions), abs=1e-12
    )


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_regression_metrics_are_scikit_learns(rows):
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    random = np.random.default_rng(rows)
    labels, predictions = random.normal(size=rows), random.normal(size=rows)
    assert value_of("mae", labels, predictions) == pytest.approx(
        mean_absolute_error(labels, predictions)
    )
    assert value_of("rmse", labels, predictions) == pytest.approx(
        root_mean_squared_error(labels, predictions)
    )


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "brier", "rmse", "mae"])
def test_a_block_drawn_twice_counts_as_if_its_rows_were_there_twice(name):
    random = np.random.default_rng(3)
    labels, predictions = random.integers(0, 2, 300).astype(float), random.random(300).round(1)
    blocks, weights = random.integers(0, 4, 300), np.array([0.0, 1.0, 2.0, 3.0])
    rows = np.repeat(np.arange(300), weights[blocks].astype(int))
    weighted = weighted_metric(name, labels, predictions, blocks=blocks)(weights)
    assert weighted == pytest.approx(value_of(name, labels[rows], predictions[rows]))


def test_ranking_labels_of_one_class_is_an_error():
    with pytest.raises(OneClassOnly, match="of 3 rows is not defined"):
        value_of("roc_auc", np.ones(3), np.array([0.1, 0.2, 0.3]))
