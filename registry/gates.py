"""Judge a scorecard by the gates of a spec: what a model must keep before it is registered."""

from headrace.scorecard import Scorecard, SliceScore
from headrace.spec import Gate, Part
from registry.errors import GatesFailed


class GateResult(Part):
    """What one gate says, overall or of one slice."""

    gate: Gate
    slice: str | None
    """The value of ``gate.by``; None for the whole holdout, and for slices that are not judged."""
    value: float | None
    """The metric; None where it is missing or was not judged."""
    passed: bool
    judged: bool = True
    """False for the slices that have too few rows to say anything."""
    sentence: str


def check_gates(gates: tuple[Gate, ...], card: Scorecard) -> tuple[GateResult, ...]:
    """Return what each gate says.

    A gate with ``by`` is judged in every slice of at least ``minimum_rows`` rows; one result more
    tells how many slices were smaller and are not judged. A metric that is missing fails its gate:
    what was not measured was not kept.
    """
    return tuple(result for gate in gates for result in _results(gate, card))


def require_gates(results: tuple[GateResult, ...]) -> None:
    """Raise ``GatesFailed``, with every failure, unless all gates passed."""
    failed = [result.sentence for result in results if not result.passed]
    if failed:
        raise GatesFailed(failed)


def _results(gate: Gate, card: Scorecard) -> list[GateResult]:
    if gate.by is None:
        return [_judge(gate, None, card.metrics, card.rows)]
    slices = [part for part in card.slices if part.by == gate.by]
    if not slices:
        return [_missing_slices(gate)]
    large = [part for part in slices if part.rows >= gate.minimum_rows]
    judged = [_judge(gate, part.value, part.metrics, part.rows) for part in large]
    return judged + _not_judged(gate, [part for part in slices if part.rows < gate.minimum_rows])


def _judge(gate: Gate, value: str | None, metrics: dict[str, float], rows: int) -> GateResult:
    found = metrics.get(gate.metric)
    where = f"{rows} rows" if value is None else f"{gate.by}={value}, {rows} rows"
    if found is None:
        sentence = f"{gate.metric} ({where}) is missing; it must be {_bound(gate)}: failed."
        return GateResult(gate=gate, slice=value, value=None, passed=False, sentence=sentence)
    passed = _keeps(gate, found)
    verdict = "passed" if passed else "failed"
    sentence = f"{gate.metric} {found:.4f} ({where}) must be {_bound(gate)}: {verdict}."
    return GateResult(gate=gate, slice=value, value=found, passed=passed, sentence=sentence)


def _keeps(gate: Gate, value: float) -> bool:
    # NaN compares False with everything, so a metric that is NaN fails either kind of gate.
    if gate.at_least is not None:
        return value >= gate.at_least
    assert gate.at_most is not None
    return value <= gate.at_most


def _bound(gate: Gate) -> str:
    if gate.at_least is not None:
        return f"at least {gate.at_least:g}"
    return f"at most {gate.at_most:g}"


def _missing_slices(gate: Gate) -> GateResult:
    sentence = f"{gate.metric} by {gate.by}: the scorecard has no slices by {gate.by}: failed."
    return GateResult(gate=gate, slice=None, value=None, passed=False, sentence=sentence)


def _not_judged(gate: Gate, small: list[SliceScore]) -> list[GateResult]:
    if not small:
        return []
    rows = sum(part.rows for part in small)
    sentence = (
        f"{gate.metric} by {gate.by}: {len(small)} slices ({rows} rows together) have fewer than "
        f"{gate.minimum_rows} rows and are not judged."
    )
    return [
        GateResult(gate=gate, slice=None, value=None, passed=True, judged=False, sentence=sentence)
    ]
