"""Missing values by the plan's policy: one place for training, batch prediction and the server.

``with_defaults`` is part of ``featurestore.vectors.input_matrix``, so nobody can leave it out.
``refusals`` says which rows must not be answered; what is done with them is the caller's: the
server refuses them, a batch rejects them, training leaves them out.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from featurestore.freshness import STATUS_WORDS, has_value
from featurestore.online.column_block import ColumnBlock
from headrace.plan import FeaturePlan


class Refusal(NamedTuple):
    """Rows that must not be answered, for one reason."""

    rows: np.ndarray
    """bool, shape (rows,)."""
    view: str
    reason: str
    """Why, as ``planes has no value (expired)``."""


def with_defaults(plan: FeaturePlan, reads: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The columns that were read, with the plan's defaults where a value is missing.

    Args:
        plan: says which columns have a default.
        reads: ``<view>__<feature>`` columns, float64, shape (rows,); they are not changed.
    """
    defaults = plan.defaults
    if not defaults:
        return reads
    if isinstance(reads, ColumnBlock):
        block = reads.block.copy()
        for place, name in enumerate(reads.block_names):
            if name in defaults:
                block[np.isnan(block[:, place]), place] = defaults[name]
        return reads.with_block(block)
    filled = dict(reads)
    for name, default in defaults.items():
        if name in reads:
            filled[name] = np.where(np.isnan(reads[name]), default, reads[name])
    return filled


def refusals(
    plan: FeaturePlan, status: Mapping[str, np.ndarray], reads: Mapping[str, np.ndarray]
) -> list[Refusal]:
    """The rows that lack what the plan says they must have.

    Args:
        plan: says what that is.
        status: by view the codes of ``ReadStatus`` or ``NullReason``, shape (rows,).
        reads: as for ``with_defaults``.
    """
    found = []
    for rule in plan.required:
        codes = status[rule.view]
        if rule.feature is None:
            lacking = ~has_value(codes)
        else:
            lacking = np.isnan(reads[f"{rule.view}__{rule.feature}"])
        for code in np.unique(codes[lacking]).tolist():
            why = STATUS_WORDS[code] if not has_value(np.array(code)) else "null in the store"
            rows = lacking & (codes == code)
            found.append(Refusal(rows, rule.view, f"{rule.name} has no value ({why})"))
    return found


def first_refusal(found: Sequence[Refusal]) -> tuple[int, Refusal]:
    """The first row that is refused, and why; ``found`` is not empty."""
    row, place = min((int(np.argmax(each.rows)), place) for place, each in enumerate(found))
    return row, found[place]
