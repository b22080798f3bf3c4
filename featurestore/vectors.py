"""From columns to the model's input matrix: the one function that training, batch and server share.

Because all three call ``input_matrix`` with the plan of the same bundle, the order of columns, the
transforms and the rounding to float32 cannot differ between them.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.missing import with_defaults
from featurestore.online.column_block import ColumnBlock
from headrace.errors import SchemaMismatch
from headrace.plan import FeaturePlan
from headrace.transform import Transform

if TYPE_CHECKING:
    import pyarrow as pa


def input_matrix(
    plan: FeaturePlan,
    transforms: Sequence[Transform],
    reads: Mapping[str, np.ndarray],
    request: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Return what the model sees: float32, shape (rows, len(plan.columns)), C-contiguous.

    Args:
        plan: says which columns, in which order.
        transforms: the functions of ``plan.transforms``, in the same order
            (``headrace.plan.pinned_transforms``).
        reads: ``<view>__<feature>`` columns, float64, shape (rows,), missing is NaN; the plan's
            defaults take its place, for transforms too.
        request: columns of the request as ``request_columns`` makes them.

    Raises:
        SchemaMismatch: if a column is missing, or columns have different numbers of rows.
    """
    names = plan.columns
    reads = with_defaults(plan, reads)
    block = _block(names, reads)  # the online reader's columns come side by side already
    columns = _inputs(plan, transforms, reads, request)[0 if block is None else block.shape[1] :]
    lengths = {len(column) for column in columns} | ({len(block)} if block is not None else set())
    if len(lengths) > 1:
        counts = {n: len(c) for n, c in zip(names[-len(columns) :], columns, strict=True)}
        raise SchemaMismatch("model input", [f"columns have different numbers of rows: {counts}"])
    rows = lengths.pop() if lengths else 0
    matrix = np.empty((rows, len(names)), dtype=np.float32)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, for the model to refuse
        if block is not None:
            matrix[:, : block.shape[1]] = block
        for position, column in enumerate(columns, len(names) - len(columns)):
            matrix[:, position] = column
    return matrix


def request_columns(plan: FeaturePlan, table: "pa.Table") -> dict[str, np.ndarray]:
    """Return the columns of ``table`` that the plan wants besides reads, as NumPy columns.

    Timestamps become datetime64[us] (UTC), strings objects (null is None), numbers float64 (null is
    NaN).

    Raises:
        SchemaMismatch: naming the columns that are missing or have a wrong type.
    """
    check_request(plan, table)
    return {name: numpy_column(table, name, kind) for name, kind in request_kinds(plan).items()}


def check_request(plan: FeaturePlan, table: "pa.Table", name: str = "rows") -> None:
    """Raise ``SchemaMismatch`` about table ``name`` unless ``request_columns`` can be made of it.

    Costs no pass over the rows.
    """
    kinds = request_kinds(plan)
    problems = [p for column, kind in kinds.items() if (p := column_problem(table, column, kind))]
    if problems:
        raise SchemaMismatch(name, problems)


def request_kinds(plan: FeaturePlan) -> dict[str, str]:
    """What a row must bring besides the features that are read, by column: the kind of each.

    These are the moment of prediction where it matters, the plan's request fields, and entity keys
    that a transform takes.
    """
    moment = {plan.event_timestamp: "timestamp"} if plan.needs_moment else {}
    kinds = moment | {f.name: f.dtype for f in plan.request}
    inputs = {name for transform in plan.transforms for name in transform.inputs}
    return kinds | {key: "key" for key in plan.entity_keys if key in inputs and key not in kinds}


def _block(names: Sequence[str], reads: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The columns of ``reads`` as one block, if they are just the first ones wanted."""
    if not isinstance(reads, ColumnBlock):
        return None
    have = reads.block_names
    return reads.block if tuple(names[: len(have)]) == have else None


def _inputs(
    plan: FeaturePlan,
    transforms: Sequence[Transform],
    reads: Mapping[str, np.ndarray],
    request: Mapping[str, np.ndarray],
) -> list[np.ndarray]:
    given = {**request, **reads}
    plain = plan.columns[: len(plan.columns) - len(plan.transforms)]
    wanted = {*plain, *(name for t in transforms for name in t.inputs)}
    if missing := sorted(wanted - set(given)):
        raise SchemaMismatch("model input", [f"columns {missing} are missing"])
    made = [transform(*(given[name] for name in transform.inputs)) for transform in transforms]
    return [given[name] for name in plain] + made


def column_problem(table: "pa.Table", name: str, kind: str) -> str | None:
    """Why a column of ``table`` is not of a kind that ``request_kinds`` names; None if it is."""
    from featurestore.columns import TIMESTAMP

    if name not in table.column_names:
        return f"column {name} ({kind}) is missing"
    have = table.schema.field(name).type
    if _fits(have, kind):
        nulls = table[name].null_count if kind == "timestamp" else 0
        return f"{name} is null in {nulls} rows" if nulls else None
    wanted = TIMESTAMP if kind == "timestamp" else kind
    return f"{name} is {have}, but must be {wanted}"


def _fits(have: Any, kind: str) -> bool:
    import pyarrow.types as pt

    from featurestore.columns import TIMESTAMP

    if pt.is_null(have) and kind != "timestamp":
        return True
    text = pt.is_string(have) or pt.is_large_string(have) or pt.is_dictionary(have)
    fits = {
        "timestamp": have == TIMESTAMP,
        "string": text,
        "int64": pt.is_integer(have),
        "float64": pt.is_floating(have) or pt.is_integer(have),
        "key": text or pt.is_integer(have),
    }
    return bool(fits[kind])


def numpy_column(table: "pa.Table", name: str, kind: str) -> np.ndarray:
    """A column as ``request_columns`` makes it."""
    from featurestore.columns import floats, microseconds

    if kind == "timestamp":
        return microseconds(table, "rows", name).view("datetime64[us]")
    if kind in ("float64", "int64"):
        return floats(table[name])
    return np.array(table[name].to_pylist(), dtype=object)
