"""Decide whether a challenger becomes champion."""

from headrace.scorecard import Comparison
from headrace.spec import Part, RolloutPolicy
from registry.errors import ComparisonMismatch
from registry.gates import GateResult


class Decision(Part):
    """Promote or not, and why."""

    promote: bool
    reason: str


def decide(
    comparison: Comparison, policy: RolloutPolicy, gates: tuple[GateResult, ...]
) -> Decision:
    """Decide by the policy.

    The challenger is promoted if and only if

    1. every gate of it passed,
    2. its gain is greater than ``policy.minimum_gain``, and
    3. the confidence interval of its gain lies above 0: ``comparison.low > 0``.

    Raises:
        ComparisonMismatch: if the comparison is of another metric or confidence than the policy's.
    """
    if comparison.metric != policy.metric:
        raise ComparisonMismatch("metric", comparison.metric, policy.metric)
    if comparison.confidence != policy.confidence:
        raise ComparisonMismatch("confidence", comparison.confidence, policy.confidence)
    failed = [result.sentence for result in gates if not result.passed]
    if failed:
        return Decision(promote=False, reason=f"Gates failed: {' '.join(failed)}")
    if not comparison.gain > policy.minimum_gain:
        least = f"the gain is not above the least that counts, {policy.minimum_gain:g}"
        return Decision(promote=False, reason=f"{_told(comparison)}: {least}.")
    if not comparison.low > 0:
        return Decision(
            promote=False, reason=f"{_told(comparison)}: the interval does not lie above 0."
        )
    return Decision(
        promote=True, reason=f"{_told(comparison)}: the interval lies above 0 and all gates passed."
    )


def _told(comparison: Comparison) -> str:
    return (
        f"{comparison.metric} {comparison.challenger:.4f} against the champion's "
        f"{comparison.champion:.4f} on {comparison.rows} rows, gain {comparison.gain:+.4f} "
        f"({comparison.confidence:.0%} interval {comparison.low:+.4f} to {comparison.high:+.4f})"
    )
