"""Queries of many rows, each a batch of its own, answered on a thread."""

import time
from dataclasses import dataclass

from serving.errors import DeadlineExceeded
from serving.features import read_features
from serving.inputs import Inputs, keyed_inputs, keyed_rows, raw_inputs
from serving.outputs import Run, run
from serving.query import Outcome, Query

LARGE_ROWS = 512
"""A query of more rows is work enough for a batch of its own, and others do not wait for it."""
MOST_LARGE = 8
"""How many such queries may wait."""


@dataclass(slots=True)
class Large:
    """What became of a large query on its thread; nothing at all if it was dropped before."""

    outcome: Outcome | None = None
    inputs: Inputs | None = None
    ran: Run | None = None


def run_large(query: Query) -> Large:
    """Answer one query, on a thread.

    Raises:
        HeadraceError: if features cannot be read, or the model fails.
    """
    large, model = Large(), query.model

    def note(_: Query, outcome: Outcome) -> None:
        large.outcome = outcome

    if query.done is None:
        return large
    if query.deadline is not None and (late := time.perf_counter() - query.deadline) > 0:
        return Large(DeadlineExceeded(late))
    if query.features is not None:
        large.inputs = raw_inputs(model, [query], note)
    elif keyed := keyed_rows(model, [query], note):
        begun = time.perf_counter()
        read = read_features(model, keyed.rows.keys, keyed.rows.at)
        ended = time.perf_counter()
        large.inputs = keyed_inputs(model, keyed, read)
        large.inputs.read = begun, ended
    if large.inputs:
        large.ran = run(model, [large.inputs])
    return large
