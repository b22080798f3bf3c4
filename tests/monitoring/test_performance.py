import numpy as np
import pytest

from monitoring.errors import RowsDiffer, TooFewBlocks, ValuesRefused
from monitoring.metrics import value_of
from monitoring.performance import compare_predictions, score

LABELS = np.array([0, 1, 0, 1, 1, 0])
PREDICTIONS = np.array([0.1, 0.8, 0.4, 0.3, 0.9, 0.2], np.float32)


def days(random, count, rows):
    """Labels, a champion and a better challenger; each day has a difficulty of its own."""
    day = np.repeat(np.arange(count), rows)
    hard = random.normal(0.0, 1.0, count)[day]
    labels = random.normal(size=day.size)
    champion = labels + random.normal(size=day.size) * np.exp(hard / 4) + 0.3 * hard
    challenger = labels + random.normal(size=day.size) * np.exp(hard / 4) * 0.95 + 0.1 * hard
    return day, labels, champion, challenger


def test_a_scorecard_has_the_metrics_overall_and_of_each_slice():
    origin = np.array(["JFK", "JFK", "LGA", "LGA", "JFK", None], object)
    card = score("binary", LABELS, PREDICTIONS, slices={"origin": origin})
    assert card.rows == 6
    assert card.metrics.keys() == {"roc_auc", "log_loss", "brier"}
    assert [(part.by, part.value, part.rows) for part in card.slices] == [
        ("origin", "JFK", 3),
        ("origin", "LGA", 2),
    ]
    assert card.slices[0].metrics["brier"] == pytest.approx((0.1**2 + 0.2**2 + 0.1**2) / 3)


def test_a_slice_of_one_class_has_no_roc_auc():
    card = score("binary", LABELS, PREDICTIONS, slices={"late": LABELS})
    assert [part.value for part in card.slices] == ["0", "1"]
    assert all(part.metrics.keys() == {"log_loss", "brier"} for part in card.slices)


def test_a_regression_is_scored_by_its_own_metrics():
    card = score("regression", np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    assert card.metrics == {"rmse": pytest.approx(2**0.5), "mae": 1.0}


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([], [], "labels hold no rows"),
        ([0, 2], [0.1, 0.2], "labels hold 2; expected 0 or 1"),
        ([0, np.nan], [0.1, 0.2], "labels hold 1 missing or infinite values"),
        ([0, 1], [0.1, 1.5], "predictions hold 1.5; expected probabilities"),
        ([0, 1], [0.1, np.nan], "predictions hold 1 missing"),
    ],
)
def test_values_that_cannot_be_scored_are_refused(labels, predictions, message):
    with pytest.raises(ValuesRefused, match=message):
        score("binary", np.array(labels, float), np.array(predictions, float))


def test_arrays_that_are_not_parallel_are_refused():
    with pytest.raises(RowsDiffer, match="labels 6, predictions 5"):
        score("binary", LABELS, PREDICTIONS[:5])


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_a_gain_is_positive_where_a_lower_loss_is_better(metric):
    day, labels, champion, challenger = days(np.random.default_rng(0), 31, 300)
    found = compare_predictions(metric, labels, champion, challenger, blocks=day, confidence=0.9)
    assert found.champion == pytest.approx(value_of(metric, labels, champion))
    assert found.gain == pytest.approx(found.champion - found.challenger)
    assert 0 < found.low < found.gain < found.high


def test_a_gain_is_positive_where_a_higher_area_is_better():
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 3000)
    champion = 1 / (1 + np.exp(-labels - random.normal(0, 2, 3000)))
    challenger = 1 / (1 + np.exp(-labels - random.normal(0, 1, 3000)))
    found = compare_predictions(
        "roc_auc", labels, champion, challenger, blocks=np.arange(3000) % 30, confidence=0.95
    )
    assert found.gain == found.challenger - found.champion > 0
    assert found.low > 0


def test_a_model_compared_with_itself_gains_nothing():
    blocks = np.arange(60) % 6
    labels, same = np.tile(LABELS, 10), np.tile(PREDICTIONS, 10)
    labels = labels[np.random.default_rng(0).permutation(60)]
    found = compare_predictions("roc_auc", labels, same, same, blocks=blocks, confidence=0.95)
    assert (found.gain, found.low, found.high) == (0.0, 0.0, 0.0)


def test_the_same_seed_gives_the_same_interval():
    day, labels, champion, challenger = days(np.random.default_rng(0), 10, 20)
    first, again = (
        compare_predictions("mae", labels, champion, challenger, blocks=day, confidence=0.9)
        for _ in range(2)
    )
    assert first == again


def test_too_few_days_carry_no_interval():
    with pytest.raises(TooFewBlocks, match="3 blocks"):
        compare_predictions(
            "brier", LABELS, PREDICTIONS, PREDICTIONS, blocks=LABELS.cumsum() % 3, confidence=0.9
        )


def test_the_interval_over_days_covers_the_true_gain_as_often_as_it_says():
    true = compare_predictions(
        "mae", *days(np.random.default_rng(99), 4000, 50)[1:],
        blocks=np.repeat(np.arange(4000), 50), confidence=0.9,
    ).gain  # fmt: skip
    covered = 0
    for seed in range(300):
        day, *arrays = days(np.random.default_rng(seed), 30, 50)
        found = compare_predictions("mae", *arrays, blocks=day, confidence=0.9)
        covered += found.low <= true <= found.high
    # 300 intervals at 90 % have a standard error of 1.7 %, and percentile intervals of 30 blocks
    # are known to cover two or three points too few.
    assert 0.90 - 0.03 - 3 * 0.017 <= covered / 300 <= 0.90 + 3 * 0.017
