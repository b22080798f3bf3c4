"""Reading features for a batch, on the event loop or on a thread."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from featurestore.errors import EntityKeyRefused, StoredValueBroken
from featurestore.freshness import ReadStatus
from featurestore.missing import first_refusal, refusals
from featurestore.online.reader import OnlineRows
from headrace.errors import HeadraceError
from serving.errors import FeatureRequired, FieldsRefused, OnlineStoreFailing, Problem
from serving.inputs import (
    Inputs,
    KeyedRows,
    keyed_inputs,
    keyed_rows,
    no_rows,
    raw_inputs,
    single_rows,
    split,
    without,
)
from serving.outputs import tell
from serving.query import Outcome, Query
from serving.schema import Rows
from serving.served import ServedModel

_OF_ROWS = (EntityKeyRefused, StoredValueBroken)
"""What lies in the keys that certain rows ask for, or in the values stored for them."""


async def inputs_of(query: Query) -> Inputs:
    """Return what the model would see of one query: reads and transforms, no prediction.

    Raises:
        HeadraceError: if the query is refused, or features cannot be read.
    """
    refused: list[HeadraceError] = []

    def note(_: Query, outcome: Outcome) -> None:
        if isinstance(outcome, HeadraceError):
            refused.append(outcome)

    if query.features is not None:
        inputs = raw_inputs(query.model, [query], note)
    elif keyed := keyed_rows(query.model, [query], note):
        read = await read_features_soon(query.model, keyed.rows)
        inputs = keyed_inputs(query.model, keyed, read)
    else:
        inputs = None
    if inputs is None:
        raise refused[0] if refused else FieldsRefused(_problems(query))
    return inputs


async def read_inputs(model: ServedModel, keyed: KeyedRows) -> list[Inputs]:
    """Read a batch's features; queries whose rows cannot be read are told so, and left out.

    Raises:
        OnlineStoreFailing: if the store itself fails.
    """
    begun = time.perf_counter()
    try:
        read = await read_features_soon(model, keyed.rows)
        ended = time.perf_counter()
        inputs = keyed_inputs(model, keyed, read)
        inputs.read = begun, ended
        return [inputs]
    except OnlineStoreFailing as error:
        if not error.of_rows:
            raise
        if len(keyed.queries) == 1:
            if keyed.queries[0].partial:
                return await _read_good_rows(model, keyed)
            tell(keyed.queries[0], error)
            return []
    return [inputs for alone in split(keyed) for inputs in await read_inputs(model, alone)]


async def _read_good_rows(model: ServedModel, keyed: KeyedRows) -> list[Inputs]:
    """Read the rows of one partial query, and set aside those that cannot be read."""
    bad: dict[int, HeadraceError] = {}
    for place, row in enumerate(single_rows(keyed)):
        try:
            await read_features_soon(model, row.rows)
        except OnlineStoreFailing as error:
            if not error.of_rows:
                raise
            bad[place] = error
    if good := without(keyed, bad):
        return [keyed_inputs(model, good, await read_features_soon(model, good.rows))]
    tell(keyed.queries[0], no_rows(keyed.queries[0]))
    return []


async def read_features_soon(model: ServedModel, rows: Rows) -> OnlineRows:
    """Return the feature values of each row's entities, leaving the loop free meanwhile.

    Raises:
        OnlineStoreFailing, FeatureRequired: as ``read_features``.
    """
    try:
        read = await model.reader.read_async(rows.keys, rows.at)
    except HeadraceError as error:
        raise OnlineStoreFailing(error, of_rows=isinstance(error, _OF_ROWS)) from error
    _check_required(model, rows.keys, read)
    return read


def read_features(
    model: ServedModel, keys: Mapping[str, Sequence[str | int | None]], at: np.ndarray
) -> OnlineRows:
    """Return the feature values of each row's entities.

    Raises:
        OnlineStoreFailing: if the store cannot give them.
        FeatureRequired: if a row lacks one that the plan says it must have.
    """
    try:
        read = model.reader.read(keys, at)
    except HeadraceError as error:
        raise OnlineStoreFailing(error, of_rows=isinstance(error, _OF_ROWS)) from error
    _check_required(model, keys, read)
    return read


def _check_required(
    model: ServedModel, keys: Mapping[str, Sequence[str | int | None]], read: OnlineRows
) -> None:
    """Refuse rows that lack what the plan says they must have."""
    plan = model.predictor.plan
    if not plan.required:
        return
    found = refusals(plan, read.status, read.columns)
    if not found:
        return
    row, refusal = first_refusal(found)
    if int(read.status[refusal.view][row]) == ReadStatus.UNAVAILABLE:
        raise OnlineStoreFailing(model.reader.failure or refusal.reason)
    names = next(view.key_names for view in plan.views if view.view == refusal.view)
    raise FeatureRequired(refusal.reason, {name: keys[name][row] for name in names})


def _problems(query: Query) -> list[Problem]:
    """What is wrong with a partial query that has no good row."""
    errors = (query.problems or {}).values()
    return [p for error in errors if isinstance(error, FieldsRefused) for p in error.problems]
