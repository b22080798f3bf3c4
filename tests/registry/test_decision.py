import pytest

from headrace.scorecard import Comparison
from headrace.spec import Gate, RolloutPolicy
from registry.decision import decide
from registry.errors import ComparisonMismatch
from registry.gates import GateResult


def comparison(gain=0.01, low=0.004, **changed):
    facts = {
        "metric": "roc_auc",
        "rows": 1000,
        "champion": 0.74,
        "challenger": 0.74 + gain,
        "gain": gain,
        "low": low,
        "high": gain + 0.01,
        "confidence": 0.95,
    }
    return Comparison(**facts | changed)


def gate(passed):
    return GateResult(
        gate=Gate(metric="roc_auc", at_least=0.7),
        slice=None,
        value=0.74,
        passed=passed,
        sentence="roc_auc 0.7400 said.",
    )


@pytest.mark.parametrize(
    ("gain", "low", "minimum", "promote"),
    [
        (0.01, 0.004, 0.0, True),
        (0.01, 0.0, 0.0, False),
        (0.01, -0.001, 0.0, False),
        (0.01, 0.004, 0.01, False),
        (0.0, 0.0, 0.0, False),
        (-0.01, -0.02, 0.0, False),
    ],
)
def test_only_a_sure_and_large_enough_gain_promotes(gain, low, minimum, promote):
    policy = RolloutPolicy(minimum_gain=minimum)
    assert decide(comparison(gain, low), policy, (gate(True),)).promote is promote


def test_a_failed_gate_keeps_the_champion_whatever_the_gain():
    decision = decide(comparison(), RolloutPolicy(), (gate(True), gate(False)))
    assert not decision.promote
    assert decision.reason == "Gates failed: roc_auc 0.7400 said."


def test_the_reason_has_the_numbers():
    reason = decide(comparison(), RolloutPolicy(), ()).reason
    assert "roc_auc 0.7500 against the champion's 0.7400 on 1000 rows" in reason
    assert "gain +0.0100 (95% interval +0.0040 to +0.0200)" in reason


@pytest.mark.parametrize("changed", [{"metric": "brier"}, {"confidence": 0.9}])
def test_a_comparison_by_something_else_than_the_policy_is_refused(changed):
    with pytest.raises(ComparisonMismatch):
        decide(comparison(**changed), RolloutPolicy(), ())
