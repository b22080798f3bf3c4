"""Which columns of an input a plan needs, and whether they are there, before any row is read."""

import difflib
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.types as pt

from featurestore.columns import TIMESTAMP, is_text
from featurestore.vectors import column_problem, request_kinds
from headrace.bundle import OUTPUT
from headrace.errors import SchemaMismatch, UsageError
from headrace.plan import NUMBERS, FeaturePlan, JoinKey
from tasks.batch.job import FILE, REASON, ROW, Features, InputColumns

ALL = "all"
"""``--keep all``: every column of the input."""
_OURS = (ROW, OUTPUT, FILE, REASON)


class KeepRefused(UsageError):
    """A column that cannot be kept."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"column {name!r} cannot be kept (--keep): {reason}.")


def choose_columns(
    plan: FeaturePlan,
    schema: pa.Schema,
    *,
    source: str,
    features: Features,
    keep: Sequence[str] | None = None,
    has_moment: bool = False,
) -> InputColumns:
    """Return what is to be read of an input.

    Args:
        plan: of the bundle that scores.
        schema: the columns of the input.
        source: the input's name, for errors.
        features: where features come from.
        keep: columns that the output has too; ``("all",)``: every one; None: the entity keys and
            the event timestamp, where the input has them.
        has_moment: every row has the same moment, given with the run (``Job.at``).

    Raises:
        SchemaMismatch: naming each column that is missing or has a wrong type.
        KeepRefused: for a column that is not there, or that has the name of one of ours.
    """
    problems: list[str] = []
    named = _features(plan, schema, problems) if features == "input" else {}
    taken = _taken(plan, schema, named) if features == "input" else ()
    given = _given(plan, features, taken)
    keys = _keys(plan) if features != "input" else ()
    brought = set(schema.names) | ({plan.event_timestamp} if has_moment else set())
    problems += _given_problems(plan, schema, given, brought) + _key_problems(schema, keys)
    problems += _number_problems(schema, taken)
    if problems:
        raise SchemaMismatch(source, [*problems, f"it has {', '.join(schema.names) or 'none'}"])
    kept = _kept(plan, schema, keep)
    wanted = {*kept, *given, *(key.name for key in keys), *named.values(), *taken}
    return InputColumns(
        read=tuple(name for name in schema.names if name in wanted),
        keep=kept,
        given=given,
        optional=_optional(plan, taken) if features == "input" else (),
        join_keys=keys,
        features=named,
        taken=taken,
    )


def wanted_columns(
    plan: FeaturePlan, features: Features, keep: Sequence[str] | None
) -> list[str] | None:
    """Names that a run may read of an input; None: all of them. Others may differ between files."""
    if keep is not None and list(keep) == [ALL]:
        return None
    names = [*(keep or ()), *plan.entity_keys, plan.event_timestamp, *request_kinds(plan)]
    if features == "input":
        names += [name for view in plan.views for name in view.columns]
        names += [feature.name for view in plan.views for feature in view.features]
        names += [pin.output for pin in plan.transforms]
    return list(dict.fromkeys(names))


def with_utc_moments(rows: pa.Table, columns: InputColumns) -> pa.Table:
    """The rows with moments of any unit and zone as ``timestamp[us, tz=UTC]``.

    Finer than a microsecond is cut off: an earlier moment knows less, never more.
    """
    for name, kind in columns.given.items():
        position = rows.schema.get_field_index(name)
        if kind == "timestamp" and position >= 0 and rows.schema.field(position).type != TIMESTAMP:
            rows = rows.set_column(position, name, rows[name].cast(TIMESTAMP, safe=False))
    return rows


def _given(plan: FeaturePlan, features: Features, taken: Sequence[str]) -> dict[str, str]:
    """What must come with each row, and its kind."""
    kinds = request_kinds(plan)
    if features != "input":
        return kinds
    # Nothing is joined, so only what the model or a transform sees is needed of a request.
    pins = [pin for pin in plan.transforms if pin.output not in taken]
    seen = {*plan.inputs_from_request, *(name for pin in pins for name in pin.inputs)}
    return {name: kind for name, kind in kinds.items() if name in seen}


def _optional(plan: FeaturePlan, taken: Sequence[str]) -> tuple[str, ...]:
    pins = [pin for pin in plan.transforms if pin.output not in taken]
    transformed = {name for pin in pins for name in pin.inputs}
    return tuple(name for name in plan.inputs_from_request if name not in transformed)


def _features(plan: FeaturePlan, schema: pa.Schema, problems: list[str]) -> dict[str, str]:
    """The input's column of each feature that the model or a transform sees."""
    transformed = {name for pin in plan.transforms for name in pin.inputs}
    found: dict[str, str] = {}
    for view in plan.views:
        for column, feature in zip(view.columns, view.features, strict=True):
            is_number = feature.dtype in NUMBERS
            if not is_number and column not in transformed:
                continue
            names = [name for name in (column, feature.name) if name in schema.names]
            if names:
                found[column] = names[0]
                problems += _number_problems(schema, names[:1]) if is_number else []
            elif is_number or not _outputs_of(plan, column) <= set(schema.names):
                problems.append(f"feature {column} is missing, and so is {feature.name}")
    return found


def _outputs_of(plan: FeaturePlan, column: str) -> set[str]:
    return {pin.output for pin in plan.transforms if column in pin.inputs}


def _taken(plan: FeaturePlan, schema: pa.Schema, named: dict[str, str]) -> tuple[str, ...]:
    """Transforms whose output the input has and whose inputs it lacks."""
    have = {*schema.names, *named}
    return tuple(
        pin.output
        for pin in plan.transforms
        if pin.output in schema.names and not set(pin.inputs) <= have
    )


def _given_problems(
    plan: FeaturePlan, schema: pa.Schema, given: dict[str, str], brought: set[str]
) -> list[str]:
    empty = schema.empty_table()
    found = []
    for name, kind in given.items():
        if name not in schema.names and name in brought:
            continue
        if kind == "timestamp" and name in schema.names and _has_zone(schema.field(name).type):
            continue
        if problem := column_problem(empty, name, kind):
            found.append(problem + _nearest(name, schema.names, plan))
    return found


def _has_zone(kind: pa.DataType) -> bool:
    return bool(pt.is_timestamp(kind) and kind.tz is not None)


def _nearest(name: str, names: Iterable[str], plan: FeaturePlan) -> str:
    if name in names:
        return ""
    close = difflib.get_close_matches(name, list(names), n=1)
    hint = f" (is it {close[0]}?)" if close else ""
    moment = ", or give --at for all rows" if name == plan.event_timestamp else ""
    return hint + moment


def _keys(plan: FeaturePlan) -> tuple[JoinKey, ...]:
    return tuple(dict.fromkeys(key for view in plan.views for key in view.join_keys))


def _key_problems(schema: pa.Schema, keys: Sequence[JoinKey]) -> list[str]:
    found = []
    for key in keys:
        if key.name not in schema.names:
            found.append(f"join key {key.name} is missing")
        elif not _is_key(schema.field(key.name).type, key):
            have = schema.field(key.name).type
            found.append(f"join key {key.name} is {have}, but must be {key.dtype.lower()}")
    return found


def _is_key(kind: pa.DataType, key: JoinKey) -> bool:
    if pt.is_dictionary(kind):
        kind = kind.value_type
    fits = is_text if key.dtype == "STRING" else pt.is_integer
    return bool(fits(kind) or pt.is_null(kind))


def _number_problems(schema: pa.Schema, names: Iterable[str]) -> list[str]:
    kinds = {name: schema.field(name).type for name in names}
    return [
        f"{name} is {kind}, but must be a number"
        for name, kind in kinds.items()
        if not _number(kind)
    ]


def _number(kind: pa.DataType) -> bool:
    tests = (pt.is_integer, pt.is_floating, pt.is_boolean, pt.is_null)
    return any(test(kind) for test in tests)


def _kept(plan: FeaturePlan, schema: pa.Schema, keep: Sequence[str] | None) -> tuple[str, ...]:
    if keep is None:
        usual = {*plan.entity_keys, plan.event_timestamp} - set(_OURS)
        return tuple(name for name in schema.names if name in usual)
    wanted = schema.names if list(keep) == [ALL] else list(keep)
    return tuple(dict.fromkeys(_checked(wanted, schema.names)))


def _checked(wanted: Iterable[str], have: Sequence[str]) -> Iterator[str]:
    for name in wanted:
        if name not in have:
            close = difflib.get_close_matches(name, have, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(have)}"
            raise KeepRefused(name, f"the input has no such column{hint}")
        if name in _OURS:
            raise KeepRefused(name, "the output has a column of that name of its own; rename it")
        yield name
