"""The kernel: a forest's answers for any number of rows, 256 at a time, in Numba.

For each block of rows: answer every condition once; let each tree choose among the answers to find
the leaf of each row; add the leaves in XGBoost's own order, tree by tree in 32-bit floats, so that
the sum has the same bits; apply the objective's transform.
"""

# ruff: noqa: TID253 -- Numba reads these functions' signatures; only `build` imports them
# mypy: disable-error-code="untyped-decorator, call-arg, var-annotated"

import numpy as np
from numba import types

from serving.runtimes.forest.compiled.conditions import answer_conditions
from serving.runtimes.forest.compiled.registers import array, compiled
from serving.runtimes.forest.compiled.transforms import transform
from serving.runtimes.forest.compiled.trees import add_trees
from serving.runtimes.forest.records import GROUP, JOB, ROWS

SIGNATURE = (types.int64,)


@compiled
def predict(address: int) -> None:
    """Answer the job at an address: see ``records.JOB``."""
    job = array(address, JOB)[0]
    sums = array(job.sums, np.float32)
    base = array(job.base, np.float32)
    for first in range(0, job.rows, ROWS):
        rows = min(ROWS, job.rows - first)
        answer_conditions(job, first, rows)
        for output in range(job.outputs):
            for row in range(ROWS):
                sums[output * ROWS + row] = base[output]
        add_trees(job, (rows + GROUP - 1) // GROUP, sums)
        transform(job, first, rows, sums)
