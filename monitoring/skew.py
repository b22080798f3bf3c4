"""Training-serving skew: what models saw online against what a training set would say of the rows.

``compare`` takes logged requests and the point-in-time join of the same rows at their moments, and
gives every mismatch a cause. A healthy system has none. Values are compared as float32, which is
what models see; so are the event times of each view's values, since a value that is right by luck
is still an old one. What fits no cause is ``unexplained``, never left out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from headrace.plan import FeaturePlan, TransformPin, ViewRead
from monitoring.skew_causes import Cause, Side, Versions, cause_of, same_float32

_EXAMPLES = 3  # of each source and cause
_CLOSE = {"rtol": 1e-5, "atol": 1e-3}  # what float32 inputs may do to a transform's output


class Finding(BaseModel):
    """How many values of one view or transform mismatch for one cause."""

    model_config = ConfigDict(frozen=True)

    source: str
    """A feature view, or a request-time transform."""
    cause: Cause
    values: int
    rows: int
    share: float
    """Of all values of the source that were compared."""


class Example(BaseModel):
    """One mismatching value, with what is needed to find it again."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    row: int
    source: str
    column: str
    cause: Cause
    logged: float | datetime | None
    joined: float | datetime | None
    logged_event: datetime | None
    joined_event: datetime | None


class SkewReport(BaseModel):
    """Every mismatch of a window of one bundle's requests."""

    model_config = ConfigDict(frozen=True)

    digest: str
    rows: int
    """Rows that were compared."""
    rows_of_raw_features: int
    """Rows whose caller sent the model's inputs: nothing was read, so nothing can be skewed."""
    values: int
    """Values and event times that were compared."""
    mismatches: int
    findings: tuple[Finding, ...]
    changed_transforms: tuple[str, ...]
    """Transforms whose source in this process is not the one that the bundle pins."""
    examples: tuple[Example, ...]

    @property
    def skewed(self) -> bool:
        """True if anything mismatches."""
        return bool(self.mismatches or self.changed_transforms)


def compare(
    plan: FeaturePlan,
    log: pa.Table,
    joined: pa.Table,
    *,
    digest: str,
    versions_of: Callable[[ViewRead], pa.Table],
    recomputed: Mapping[str, np.ndarray],
    changed_transforms: Sequence[str] = (),
    rows_of_raw_features: int = 0,
) -> SkewReport:
    """Compare logged requests of one bundle with their point-in-time join.

    Args:
        plan: what the bundle reads.
        log: rows as ``monitoring.inference_log`` writes them, whose features were read.
        joined: for each row of ``log`` the same columns as the join makes them now: the plan's
            columns, ``event_time__<view>`` and ``status__<view>``, the latter with the join's
            reasons (``present``, ``never_seen``, ``expired``, ``future``, ``written_late``).
        digest: of the bundle.
        versions_of: gives the rows of a view's offline table that ``log`` and ``joined`` may have
            used; asked only for views that mismatch.
        recomputed: by output column, a transform of the *logged* inputs, float64, shape (rows,);
            left out where an input is not in the log.
        changed_transforms: those whose source is not the pinned one.
        rows_of_raw_features: how many rows of the log were left out, since nothing was read.
    """
    found = _Comparison(plan, log, joined)
    for view in plan.views:
        found.compare_view(view, versions_of)
    for pin in plan.transforms:
        found.compare_transform(pin, recomputed.get(pin.output))
    return SkewReport(
        digest=digest,
        rows=log.num_rows,
        rows_of_raw_features=rows_of_raw_features,
        values=sum(found.compared.values()),
        mismatches=sum(found.values.values()),
        findings=found.findings(),
        changed_transforms=tuple(changed_transforms),
        examples=tuple(found.examples),
    )


def rows_with_reads(plan: FeaturePlan, log: pa.Table) -> np.ndarray:
    """Which rows of a log had features read for them, bool; the others sent the model's inputs."""
    read = np.zeros(log.num_rows, dtype=bool)
    for view in plan.views:
        read |= log[f"status__{view.view}"].is_valid().to_numpy()
    return read if plan.views else np.ones(log.num_rows, dtype=bool)


class _Comparison:
    """Goes through the views, then the transforms, and counts."""

    def __init__(self, plan: FeaturePlan, log: pa.Table, joined: pa.Table) -> None:
        self._plan, self._log, self._joined = plan, log, joined
        self.compared: Counter[str] = Counter()
        self.values: Counter[tuple[str, Cause]] = Counter()
        self.rows: defaultdict[tuple[str, Cause], set[int]] = defaultdict(set)
        self.examples: list[Example] = []
        self._causes: dict[str, dict[int, Cause]] = {}  # by view, of each row that mismatches
        self._view_of = {c: view.view for view in plan.views for c in view.columns}

    def compare_view(self, view: ViewRead, versions_of: Callable[[ViewRead], pa.Table]) -> None:
        """Compare the values and the event times of one view."""
        columns = [*view.number_columns, f"event_time__{view.view}"]
        self.compared[view.view] = self._log.num_rows * len(columns)
        differs = {name: self._differs(name) for name in columns}
        rows = np.flatnonzero(np.logical_or.reduce(list(differs.values())))
        if not len(rows):
            return
        logged, joined = self._side(self._log, view, rows), self._side(self._joined, view, rows)
        keys = list(
            zip(*(self._log[k].take(rows).to_pylist() for k in view.key_names), strict=True)
        )
        at = self._microseconds(self._log, self._plan.event_timestamp)[rows].tolist()
        received = self._microseconds(self._log, "received_at")[rows].tolist()
        known = Versions.of(view, versions_of(view), keys, [*logged, *joined])
        causes = self._causes[view.view] = {}
        for row, key, *case in zip(rows.tolist(), keys, logged, joined, at, received, strict=True):
            cause = causes[row] = cause_of(known.of_entity(key), *case)
            for name in columns:
                if differs[name][row]:
                    self._count(view.view, cause, name, row)

    def compare_transform(self, pin: TransformPin, recomputed: np.ndarray | None) -> None:
        """Compare a transform's output; what its inputs explain has the cause of the inputs."""
        self.compared[pin.name] = self._log.num_rows
        logged = _floats(self._log, pin.output)
        for row in np.flatnonzero(self._differs(pin.output)).tolist():
            causes = [c for name in pin.inputs if (c := self._cause_of_input(name, row))]
            explained = recomputed is None or np.isclose(
                recomputed[row], logged[row], equal_nan=True, **_CLOSE
            )
            cause = causes[0] if causes and explained else Cause.TRANSFORM_VERSION
            self._count(pin.name, cause, pin.output, row)

    def findings(self) -> tuple[Finding, ...]:
        """What was counted, the most frequent first."""
        ordered = sorted(self.values.items(), key=lambda item: (-item[1], item[0]))
        return tuple(
            Finding(
                source=source,
                cause=cause,
                values=count,
                rows=len(self.rows[source, cause]),
                share=count / self.compared[source],
            )
            for (source, cause), count in ordered
        )

    def _count(self, source: str, cause: Cause, column: str, row: int) -> None:
        self.values[source, cause] += 1
        self.rows[source, cause].add(row)
        if self.values[source, cause] <= _EXAMPLES:
            self.examples.append(self._example(source, cause, column, row))

    def _example(self, source: str, cause: Cause, column: str, row: int) -> Example:
        times = [_value(table, f"event_time__{source}", row) for table in (self._log, self._joined)]
        return Example(
            request_id=self._log["request_id"][row].as_py(),
            row=self._log["row"][row].as_py(),
            source=source,
            column=column,
            cause=cause,
            logged=_value(self._log, column, row),
            joined=_value(self._joined, column, row),
            logged_event=times[0],
            joined_event=times[1],
        )

    def _cause_of_input(self, name: str, row: int) -> Cause | None:
        return self._causes.get(self._view_of.get(name, ""), {}).get(row)

    def _differs(self, name: str) -> np.ndarray:
        if name.startswith("event_time__"):
            logged, joined = (self._microseconds(t, name) for t in (self._log, self._joined))
            return np.asarray(logged != joined)
        return ~same_float32(_floats(self._log, name), _floats(self._joined, name))

    def _side(self, table: pa.Table, view: ViewRead, rows: np.ndarray) -> list[Side]:
        words = table[f"status__{view.view}"].take(rows).to_pylist()
        events = self._microseconds(table, f"event_time__{view.view}")[rows].tolist()
        values = np.array([_floats(table, name)[rows] for name in view.number_columns])
        values = values.reshape(len(view.number_columns), len(rows))
        return [
            Side(word, event if word in ("present", "last_known") else None, values[:, i])
            for i, (word, event) in enumerate(zip(words, events, strict=True))
        ]

    @staticmethod
    def _microseconds(table: pa.Table, name: str) -> np.ndarray:
        """int64 microseconds since 1970; the smallest number where there is no time."""
        column = table[name].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        return np.asarray(column.fill_null(np.iinfo(np.int64).min).to_numpy())


def _floats(table: pa.Table, name: str) -> np.ndarray:
    column = table[name].cast(pa.float64(), safe=False)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _value(table: pa.Table, name: str, row: int) -> float | datetime | None:
    if name not in table.column_names:
        return None
    found: float | datetime | None = table[name][row].as_py()
    return found.astimezone(UTC) if isinstance(found, datetime) else found


def sentence(reports: Sequence[SkewReport]) -> str:
    """What the reports say, for people."""
    rows = sum(report.rows for report in reports)
    values = sum(report.values for report in reports)
    if not any(report.skewed for report in reports):
        return f"no skew: {values:,} values of {rows:,} rows are what the join says"
    causes: Counter[str] = Counter()
    for report in reports:
        for finding in report.findings:
            causes[finding.cause] += finding.values
    told = ", ".join(f"{count:,} {cause}" for cause, count in causes.most_common())
    changed = sorted({name for report in reports for name in report.changed_transforms})
    parts = [f"{told} of {values:,} values of {rows:,} rows"] if causes else []
    parts += [f"changed transforms: {', '.join(changed)}"] if changed else []
    return "skew: " + "; ".join(parts)
