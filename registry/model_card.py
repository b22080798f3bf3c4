"""The model card: what a model is for, what it was made of and what it can be trusted with.

Written from facts alone, with no wall time and no run id: the card is part of the
content-addressed bundle, and equal inputs must give equal bytes.

Source: the sections follow Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from headrace.bundle import Lineage
from headrace.plan import FeaturePlan, ViewRead
from headrace.scorecard import Scorecard
from headrace.spec import ModelSpec
from registry.gates import GateResult


def render_card(
    spec: ModelSpec,
    *,
    plan: FeaturePlan,
    lineage: Lineage,
    card: Scorecard,
    gates: tuple[GateResult, ...],
) -> str:
    """Return the model card as Markdown."""
    sections = (
        _head(spec),
        _data(spec, lineage),
        _metrics(spec, card),
        _gates(gates),
        _features(plan),
        _parameters(spec),
        _operation(spec),
        _limits(lineage, card),
    )
    return "\n\n".join(sections) + "\n"


def _head(spec: ModelSpec) -> str:
    facts = [
        ("Owner", spec.owner),
        ("Task", spec.task),
        ("Predicts", f"`{spec.label.column}` of `{spec.label.table}`"),
        ("For each", ", ".join(f"`{key}`" for key in spec.label.entity_keys)),
    ]
    return f"# {spec.name}\n\n{spec.description}\n\n" + _table(("Fact", "Value"), facts)


def _data(spec: ModelSpec, lineage: Lineage) -> str:
    facts = [
        ("Trained on", f"{_day(lineage.trained_from)} until {_day(lineage.trained_until)}"),
        ("Training rows", f"{lineage.training_rows}"),
        ("Tested on", f"{_day(lineage.trained_until)} until {_day(lineage.tested_until)}"),
        ("Split", f"by time, the last {spec.validation.days} days held out"),
        ("Training set", f"sha256 `{lineage.training_set_sha256}`"),
        ("Code revision", f"`{lineage.code_revision}`"),
    ]
    return "## Data\n\n" + _table(("Fact", "Value"), facts)


def _metrics(spec: ModelSpec, card: Scorecard) -> str:
    names = tuple(card.metrics)
    rows = [("all", "", f"{card.rows}", *_numbers(card.metrics, names))]
    rows += [
        (part.by, part.value, f"{part.rows}", *_numbers(part.metrics, names))
        for part in card.slices
    ]
    note = "A metric that is not defined, such as the ROC AUC of labels of one class, is left out."
    table = _table(("Slice", "Value", "Rows", *names), rows)
    return f"## Metrics on the holdout of {spec.label.table}\n\n{table}\n\n{note}"


def _gates(gates: Sequence[GateResult]) -> str:
    verdict = {True: "passed", False: "failed"}
    rows = [
        (verdict[result.passed] if result.judged else "not judged", result.sentence)
        for result in gates
    ]
    return "## Gates\n\n" + _table(("Verdict", "Finding"), rows)


def _features(plan: FeaturePlan) -> str:
    rows = [
        (f"view `{view.view}`", _age(view), ", ".join(f.name for f in view.features))
        for view in plan.views
    ]
    if plan.inputs_from_request:
        rows.append(("request", "sent with the request", ", ".join(plan.inputs_from_request)))
    rows += [
        (f"transform `{pin.name}`", "at request time", f"{pin.output} of {', '.join(pin.inputs)}")
        for pin in plan.transforms
    ]
    service = f" of service `{plan.feature_service}`" if plan.feature_service else ""
    head = f"## Features: {len(plan.columns)}{service}\n\n"
    return head + _table(("From", "Age", "Features"), rows)


def _age(view: ViewRead) -> str:
    if view.ttl_seconds is None:
        return "any"
    if view.last_known:
        return f"any, told apart above {view.ttl_seconds / 3600:g} h"
    return f"at most {view.ttl_seconds / 3600:g} h"


def _parameters(spec: ModelSpec) -> str:
    trainer = spec.trainer
    facts = dict(trainer.facts)
    first = [("rounds", f"{facts.pop('rounds')}")] if "rounds" in facts else []
    rows = first + [(name, f"{value}") for name, value in sorted(facts.items())]
    return f"## Trainer: {trainer.kind}\n\n" + _table(("Parameter", "Value"), rows)


def _operation(spec: ModelSpec) -> str:
    drift, rollout = spec.drift, spec.rollout
    return (
        "## In operation\n\n"
        f"- Drift: a column has drifted beyond a PSI of {drift.psi:g} nats and beyond sampling "
        f"noise (false alarms {drift.false_alarm_rate:.2%}); the window has from "
        f"{drift.drifted_share:.0%} of its columns, or if the prediction has.\n"
        f"- Rollout: a challenger replaces this model if it gains more than "
        f"{rollout.minimum_gain:g} in {rollout.metric} on the same rows, and the "
        f"{rollout.confidence:.0%} interval of the gain lies above 0."
    )


def _limits(lineage: Lineage, card: Scorecard) -> str:
    small = sorted(card.slices, key=lambda part: (part.rows, part.by, part.value))
    smallest = (
        f" The smallest slice, {small[0].by} {small[0].value}, has {small[0].rows} rows: "
        "read its metrics with that in mind."
        if small
        else ""
    )
    return (
        "## Limits\n\n"
        f"- It has seen nothing from before {_day(lineage.trained_from)}, and was tested on one "
        f"period, until {_day(lineage.tested_until)}; seasons outside of it are unknown to it.\n"
        f"- The metrics are of {card.rows} held-out rows, not of the traffic it meets."
        f"{smallest}\n"
        "- Missing features are passed to the model as missing; entities never seen before are "
        "scored from what is left."
    )


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _numbers(metrics: dict[str, float], names: Iterable[str]) -> list[str]:
    return [f"{metrics[name]:.4f}" if name in metrics else "" for name in names]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    # A value of the data may hold anything; a bar or a line end would break the table.
    return text.replace("|", "\\|").replace("\n", " ")
