"""The drift report that people read: distributions side by side, drawn by Evidently.

The report decides nothing; ``monitoring.drift`` does, from all rows. It is drawn from a sample, so
that it takes the same few seconds for a thousand rows and for a billion, and is one HTML file with
its scripts and data inside: it opens without a network and can be kept beside the decision.
"""

import warnings
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace import telemetry
from headrace.spec import DriftPolicy
from monitoring.errors import ColumnsMissing, EmptyWindow, NothingToDraw


def render_report(
    reference: pa.Table,
    current: pa.Table,
    *,
    rows: int = 5000,
    seed: int = 0,
    policy: DriftPolicy | None = None,
) -> bytes:
    """Return an HTML page that shows each column of both windows.

    Columns of numbers and of text are drawn; timestamps, and columns that have no finite value in
    one of the windows, are left out.

    Args:
        reference: the window the model was trained on.
        current: the window to look at; it has the columns of ``reference``.
        rows: how many rows of each are drawn, at the most.
        seed: of the sample; the same seed draws the same rows.
        policy: the marks that the page uses; the defaults of ``DriftPolicy`` if None. Evidently
            bins a sample in its own way and knows nothing of missing values, noise or the
            prediction's say, so near a mark the page and ``compare_profiles`` may differ.

    Raises:
        EmptyWindow: if either window has no rows.
        ColumnsMissing: if ``current`` lacks columns of ``reference``.
        NothingToDraw: if no column can be drawn.
    """
    if not reference.num_rows or not current.num_rows:
        raise EmptyWindow(reference_rows=reference.num_rows, current_rows=current.num_rows)
    if missing := set(reference.column_names) - set(current.column_names):
        raise ColumnsMissing(missing, current.column_names)
    before, after = (_sample(table, rows, seed) for table in (reference, current))
    names = [name for name in reference.column_names if _has_values(before, after, name)]
    kinds = {name: _kind(before.schema.field(name).type) for name in names}
    numbers = [name for name in names if kinds[name] == "number"]
    texts = [name for name in names if kinds[name] == "text"]
    if not numbers and not texts:
        raise NothingToDraw(reference.column_names)
    return _draw(before, after, numbers=numbers, texts=texts, policy=policy or DriftPolicy())


def _draw(
    reference: pa.Table,
    current: pa.Table,
    *,
    numbers: list[str],
    texts: list[str],
    policy: DriftPolicy,
) -> bytes:
    telemetry.turn_off()
    with warnings.catch_warnings():
        # Evidently 0.7.23 uses names that numpy and litestar have deprecated.
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)

        def dataset(table: pa.Table) -> Any:
            frame = table.select(numbers + texts).to_pandas()
            return Dataset.from_pandas(frame, data_definition=definition)

        preset = DataDriftPreset(
            method="psi", threshold=policy.psi, drift_share=policy.drifted_share
        )
        drawn = Report([preset]).run(dataset(current), dataset(reference))
        return str(drawn.get_html_str(as_iframe=False)).encode()


def _sample(table: pa.Table, rows: int, seed: int) -> pa.Table:
    """At most ``rows`` rows in their order, infinite values as null: no axis can show them."""
    if table.num_rows > rows:
        chosen = np.random.default_rng(seed).choice(table.num_rows, rows, replace=False)
        table = table.take(pa.array(np.sort(chosen)))
    for place, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(place)
            finite = pc.if_else(pc.is_finite(column), column, pa.scalar(None, field.type))
            table = table.set_column(place, field, finite)
    return table


def _has_values(before: pa.Table, after: pa.Table, name: str) -> bool:
    return all(table.column(name).null_count < table.num_rows for table in (before, after))


def _kind(dtype: pa.DataType) -> Literal["number", "text"] | None:
    """What is drawn of a type; None for timestamps and the like."""
    if pa.types.is_dictionary(dtype):
        return _kind(dtype.value_type)
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return "number"
    is_text = pa.types.is_string(dtype) or pa.types.is_large_string(dtype)
    return "text" if is_text or pa.types.is_boolean(dtype) else None
