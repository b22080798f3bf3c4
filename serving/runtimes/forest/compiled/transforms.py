"""The last step of a block: from sums of leaves to predictions (XGBoost: ``PredTransform``)."""

# Numba, not mypy, knows the types of what it compiles.
# mypy: disable-error-code="untyped-decorator, call-arg, var-annotated"

from typing import Any

import numpy as np

from serving.runtimes.forest.compiled.registers import array, compiled, exponential
from serving.runtimes.forest.model import ARGMAX, EXP, HINGE, SIGMOID, SOFTMAX
from serving.runtimes.forest.records import ROWS

_ONE, _ZERO = np.float32(1), np.float32(0)
_LARGEST = np.float32(88.7)  # exp of more is no float32


@compiled
def transform(job: Any, first: int, rows: int, sums: Any) -> None:
    """Write the predictions of a block."""
    output = array(job.output, np.float32)
    if job.transform == SOFTMAX:
        _softmax(job, first, rows, sums, output)
    elif job.transform == ARGMAX:
        for row in range(rows):
            best = 0
            for k in range(1, job.outputs):
                if sums[k * ROWS + row] > sums[best * ROWS + row]:
                    best = k
            output[first + row] = np.float32(best)
    else:
        for k in range(job.outputs):
            for row in range(rows):
                value = sums[k * ROWS + row]
                if job.transform == SIGMOID:
                    power = min(-value, _LARGEST)
                    value = _ONE / (exponential(job.exponential, power) + _ONE)
                elif job.transform == EXP:
                    value = exponential(job.exponential, value)
                elif job.transform == HINGE:
                    value = _ONE if value > _ZERO else _ZERO
                output[(first + row) * job.outputs + k] = value


@compiled
def _softmax(job: Any, first: int, rows: int, sums: Any, output: Any) -> None:
    """Source: XGBoost's ``common::Softmax``: floats, summed as a double."""
    for row in range(rows):
        highest = sums[row]
        for k in range(1, job.outputs):
            highest = max(sums[k * ROWS + row], highest)
        total = 0.0
        for k in range(job.outputs):
            power = exponential(job.exponential, sums[k * ROWS + row] - highest)
            output[(first + row) * job.outputs + k] = power
            total += power
        for k in range(job.outputs):
            output[(first + row) * job.outputs + k] /= np.float32(total)
