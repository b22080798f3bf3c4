"""XGBoost's predictor and the forest kernel, on one core, over the same rows.

200 trees of 20 columns, of depth 3, 6, 8 and 12, one thread each: the Python package's
``inplace_predict``, XGBoost's C entry without the package, and ours. CPU time of the process, calls
in turns, the shortest of each: what else runs on the machine makes a call longer, never shorter.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import Figures, arguments, show
from serving.runtimes.xgboost import XGBoostRuntime

COLUMNS, TREES = 20, 200
DEPTHS = (3, 6, 8, 12)
FEW_ROWS = (1, 32, 64, 1_024)
MANY_ROWS, MANY_ROWS_QUICK = 100_000, 10_000
Predict = Callable[[np.ndarray], np.ndarray]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    quick = arguments("forest", argv).quick
    table, figures = [], {}
    equal = True
    for depth in DEPTHS:
        booster, matrix = trained(depth, rows=4_000 if quick else 100_000)
        model = bytes(booster.save_raw("ubj"))
        ours, entry = XGBoostRuntime(model), XGBoostRuntime(model, kernel=False)
        if not ours.wait_for_kernel():
            raise SystemExit("the kernel does not answer here; see the log")
        works: list[Predict] = [ours.predict, booster.inplace_predict, entry.predict]
        for rows in (*FEW_ROWS, MANY_ROWS_QUICK if quick else MANY_ROWS):
            asked = matrix[:rows]
            equal &= len({work(asked).tobytes() for work in works}) == 1
            seconds = interleaved(works, asked, rounds=rounds(rows, quick=quick))
            table.append(line(depth, rows, seconds))
            figures |= ratios(depth, rows, seconds)
    figures["bit_equal"] = float(equal)
    show("forest", table, figures)


def trained(depth: int, *, rows: int) -> tuple[Any, np.ndarray]:
    """A booster, and the rows to answer: some of their values are missing."""
    import xgboost as xgb

    random = np.random.default_rng(6)
    matrix = random.normal(size=(100_000, COLUMNS)).astype(np.float32)
    known = matrix @ random.normal(size=COLUMNS) + matrix[:, 0] * matrix[:, 1]
    label = known + random.normal(size=len(matrix)) > 0
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    settings = {"objective": "binary:logistic", "max_depth": depth, "eta": 0.1, "nthread": 1}
    booster = xgb.train(settings, xgb.DMatrix(matrix[:rows], label[:rows]), TREES)
    return booster, matrix


def rounds(rows: int, *, quick: bool) -> int:
    """Enough of small calls, which a clock measures badly."""
    if rows >= MANY_ROWS_QUICK:
        return 3 if quick else 5
    return 20 if quick else 200


def interleaved(works: Sequence[Predict], rows: np.ndarray, *, rounds: int) -> list[float]:
    """The shortest CPU time of each, in seconds, taken in turns."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for times, work in zip(taken, works, strict=True):
            begun = time.process_time()
            work(rows)
            times.append(time.process_time() - begun)
    return [min(times) for times in taken]


def ratios(depth: int, rows: int, seconds: Sequence[float]) -> Figures:
    """How many times the rows of each peer a CPU-second of ours answers."""
    ours, package, entry = seconds
    name = f"depth_{depth}_rows_{rows}"
    return {
        f"{name}_over_inplace_predict": package / ours,
        f"{name}_over_c_entry": entry / ours,
    }


def line(depth: int, rows: int, seconds: Sequence[float]) -> tuple[str, str, str]:
    """A line of the table: microseconds a call."""
    ours, package, entry = (1e6 * each for each in seconds)
    times = f"{ours:>11,.0f} us, inplace_predict {package:>12,.0f}, C entry {entry:>12,.0f}"
    goal = " >= 7" if (depth, rows) == (6, MANY_ROWS) else ""
    ratio = f"{package / ours:5.1f} x, {entry / ours:5.1f} x{goal}"
    return f"depth {depth:>2}, {rows:>7,} rows", times, ratio


if __name__ == "__main__":
    main()
