import pytest

from headrace.scorecard import Scorecard
from headrace.spec import Gate
from registry.errors import GatesFailed
from registry.gates import check_gates, require_gates


@pytest.mark.parametrize(
    ("bound", "passed"),
    [({"at_least": 0.74}, True), ({"at_least": 0.741}, False), ({"at_most": 0.5}, False)],
)
def test_a_gate_is_judged_by_its_bound(card, bound, passed):
    (result,) = check_gates((Gate(metric="roc_auc", **bound),), card)
    assert (result.passed, result.value, result.slice) == (passed, 0.74, None)


def test_a_metric_that_is_missing_or_nan_fails_its_gate():
    gates = (Gate(metric="roc_auc", at_least=0.0), Gate(metric="brier", at_most=1.0))
    missing, undefined = check_gates(gates, Scorecard(rows=9, metrics={"brier": float("nan")}))
    assert (missing.passed, missing.value) == (False, None)
    assert "is missing" in missing.sentence
    assert not undefined.passed


def test_each_large_slice_is_judged_and_small_ones_are_told(card):
    gate = Gate(metric="roc_auc", at_least=0.7, by="origin", minimum_rows=500)
    large, one_class, small = check_gates((gate,), card)
    assert (large.slice, large.passed, large.judged) == ("JFK", True, True)
    assert (one_class.slice, one_class.passed) == ("LGA", False)
    assert (small.slice, small.passed, small.judged) == (None, True, False)
    assert "1 slices (100 rows together) have fewer than 500 rows" in small.sentence


def test_a_gate_by_a_key_that_was_never_scored_fails(card):
    (result,) = check_gates((Gate(metric="roc_auc", at_least=0.7, by="carrier"),), card)
    assert not result.passed
    assert "no slices by carrier" in result.sentence


def test_the_error_lists_every_gate_that_failed(card):
    gates = (
        Gate(metric="roc_auc", at_least=0.9),
        Gate(metric="brier", at_most=0.2),
        Gate(metric="log_loss", at_most=0.1),
    )
    with pytest.raises(GatesFailed) as caught:
        require_gates(check_gates(gates, card))
    assert [sentence.split()[0] for sentence in caught.value.sentences] == ["roc_auc", "log_loss"]
    require_gates(check_gates(gates[1:2], card))
