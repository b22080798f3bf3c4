"""XGBoost models: the forest kernel answers where it is faster, XGBoost's predictor elsewhere.

Both give the same bits, which is proven for each model before the kernel answers for it, so nobody
can tell which of them did but by the clock. The kernel gets ready in the background: a server takes
traffic at once, answered by XGBoost until then; a block of rows that is large enough waits for it.
"""

import logging
import os
import threading
from collections.abc import Sequence

import numpy as np

from headrace.mapped import Data
from serving.errors import RuntimeFailed
from serving.explanations.explanation import Scale
from serving.runtimes.booster import Booster
from serving.runtimes.device import Device, DeviceChoice
from serving.runtimes.forest.forest import Forest
from serving.runtimes.forest.library import KernelMissing, load_kernel
from serving.runtimes.forest.model import NotCovered, TreesBroken, read_model
from serving.runtimes.forest.proof import ProofFailed, pays_from, prove

_log = logging.getLogger(__name__)
_WAITING_ROWS = 16_384
"""Rows that are worth waiting for the kernel: a sign that many more will follow. A server, which
must not wait, answers at most 10,000 rows a request unless it is told to take more."""


class XGBoostRuntime:
    """One loaded model. Safe to call from several threads."""

    def __init__(
        self,
        model: Data,
        *,
        threads: int = 1,
        device: DeviceChoice = "cpu",
        kernel: bool = True,
    ) -> None:
        """Load a model.

        Args:
            model: UBJSON as ``Booster.save_raw("ubj")`` writes it.
            threads: how many cores one ``predict`` may use; 0: all.
            device: where to compute.
            kernel: whether the forest kernel may answer.

        Raises:
            RuntimeFailed: if XGBoost refuses the bytes.
            DeviceMissing: if ``cuda`` was asked for and cannot be used.
        """
        self._booster = Booster(model, threads=threads, device=device)
        self.columns = self._booster.columns
        self.device: Device = self._booster.device
        self.scale: Scale = self._booster.scale
        self._fast: tuple[Forest, int] | None = None  # and the rows from which it is faster
        self._settled = threading.Event()
        self._broken: str | None = None
        self._threads = threads or os.cpu_count() or 1
        if kernel and self.device == "cpu":
            threading.Thread(
                target=self._make_fast, args=(model,), name="forest-kernel", daemon=True
            ).start()
        else:
            self._settled.set()

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the prediction of each row.

        Args:
            matrix: float32, shape (rows, columns); NaN is missing. The kernel reads C and Fortran
                order alike without a copy.

        Returns:
            float32, shape (rows,); the caller's own copy.

        Raises:
            RuntimeFailed: for another number of columns, a model with several outputs a row, or
                a runtime that was closed.
        """
        self._check_shape(matrix)
        if len(matrix) == 0:
            return np.empty(0, np.float32)
        forest = self._forest_for(len(matrix))
        return forest.predict(matrix) if forest else self._booster.predict(matrix)

    def predict_columns(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Return the prediction of each row, from columns: ``predict`` without the matrix.

        Args:
            columns: float32, each of shape (rows,), in the model's order; NaN is missing. The
                kernel reads contiguous ones where they lie.

        Raises:
            RuntimeFailed: as ``predict``, and for columns of different lengths.
        """
        lengths = {len(column) for column in columns}
        if len(columns) != self.columns or len(lengths) > 1:
            wanted = f"{len(columns)} columns of {sorted(lengths)} rows are not {self.columns}"
            raise RuntimeFailed("predict", wanted)
        (rows,) = lengths
        forest = self._forest_for(rows) if rows else None
        return forest.predict_columns(columns) if forest else self.predict(np.stack(columns, 1))

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Return the exact Shapley values of each row, and their base as a last column.

        Args:
            matrix: float32, shape (rows, columns); NaN is missing.

        Returns:
            float32, shape (rows, columns + 1), in the unit of ``scale``.

        Raises:
            RuntimeFailed: as ``predict``.
        """
        self._check_shape(matrix)
        if len(matrix) == 0:
            return np.empty((0, self.columns + 1), np.float32)
        return self._booster.contributions(matrix)

    def wait_for_kernel(self, seconds: float | None = None) -> bool:
        """Wait until it is settled who answers; return whether the kernel does.

        Raises:
            RuntimeFailed: if the model's trees turned out to contradict themselves.
        """
        self._settled.wait(seconds)
        if self._broken:
            raise RuntimeFailed("use the model", self._broken)
        return self._fast is not None

    def close(self) -> None:
        """Free the model; safe to call twice."""
        self._booster.close()

    def _check_shape(self, matrix: np.ndarray) -> None:
        if matrix.ndim != 2 or matrix.shape[1] != self.columns:
            wanted = f"shape {matrix.shape} is not (rows, {self.columns})"
            raise RuntimeFailed("predict", wanted)

    def _forest_for(self, rows: int) -> Forest | None:
        if rows >= _WAITING_ROWS:
            self._settled.wait()
        if self._booster.closed:
            raise RuntimeFailed("predict", "the model was closed")
        if self._fast is None:
            return None
        forest, least = self._fast
        return forest if rows >= least else None

    def _make_fast(self, model: Data) -> None:
        """Let the kernel answer once it is compiled, covers the model, and has proven itself."""
        try:
            trees = read_model(model)
            if trees.columns != self.columns:
                raise TreesBroken(f"it says {trees.columns} columns, and XGBoost {self.columns}")
            forest = Forest(trees, load_kernel(), threads=self._threads)
            if forest.outputs > 1:
                raise NotCovered(f"it has {forest.outputs} outputs a row")
            prove(forest, self._booster.predict)
            self._fast = forest, pays_from(forest, self._booster.predict)
        except TreesBroken as error:
            self._broken = str(error)
            _log.error("this model may end the process that asks it: %s", error)
        except (NotCovered, KernelMissing) as reason:
            _log.info("XGBoost's own predictor answers: %s", reason)
        except ProofFailed as error:
            _log.warning("XGBoost's own predictor answers; please report this: %s", error)
        except RuntimeFailed:
            if not self._booster.closed:
                raise
        finally:
            self._settled.set()
