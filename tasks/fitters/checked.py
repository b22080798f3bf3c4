"""A model that was converted for serving answers as the original does, or is refused."""

from typing import NoReturn

import numpy as np

from headrace.bundle import model_file
from headrace.errors import SpecRefused
from headrace.trainers import RuntimeName
from serving.errors import RuntimeFailed
from serving.runtimes.runtime import Opening, open_runtime

SAMPLE_ROWS = 4096
"""How many training rows a converted model is compared on."""
_OFF, _OFF_SHARE = 1e-3, 1e-3
"""How far an answer may be off (of 1, or of its own size), and in how many of a thousand rows: a
value on the edge of a tree's threshold may fall to the other side in float32."""


def checked(
    name: str,
    kind: RuntimeName,
    model: bytes,
    matrix: np.ndarray,
    wanted: np.ndarray | None = None,
) -> bytes:
    """Return ``model`` after its runtime took it and it answered as it must.

    Args:
        name: of the model, for errors.
        kind: the runtime that will answer.
        model: what its file holds.
        matrix: training inputs, float32, shape (rows, columns).
        wanted: what the original answers for the first ``SAMPLE_ROWS`` of them; None: not known.

    Raises:
        SpecRefused: if the runtime refuses it, it has other inputs, or answers otherwise.
    """
    opening = Opening(columns=(), member=no_member, rows=matrix)
    try:
        runtime = open_runtime(kind, model, opening)
        given = runtime.predict(matrix[:SAMPLE_ROWS])
    except RuntimeFailed as error:
        raise SpecRefused(name, f"trainer: {error}") from error
    runtime.close()
    if wanted is None:
        return model
    off = np.abs(given - wanted) > _OFF * np.maximum(1, np.abs(wanted))
    if off.mean() > _OFF_SHARE:
        row = int(np.argmax(np.abs(given - wanted)))
        said = (
            f"as {model_file(kind)} it answers otherwise in {int(off.sum())} of {len(off)} rows "
            f"(row {row}: {given[row]} for {wanted[row]}); choose another estimator or other "
            "parameters"
        )
        raise SpecRefused(name, f"trainer: {said}")
    return model


def no_member(digest: str) -> NoReturn:
    """What gives the members of a model that has none."""
    raise AssertionError(f"a fitted model has no members, such as {digest}")
