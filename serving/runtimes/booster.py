"""XGBoost's own predictor through the library's C interface, without its Python package.

``import xgboost`` costs seconds and brings SciPy; the shared library beside it answers alone, in a
third of the time for a single row, and with the same bits. The model is given as UBJSON bytes that
were verified before: XGBoost's parser must never see bytes that nobody vouches for.
"""

import ctypes
import functools
import importlib.util
import json
import threading
import weakref
from pathlib import Path

import numpy as np

from headrace.mapped import Data
from serving.errors import RuntimeFailed
from serving.explanations.explanation import Scale
from serving.runtimes.device import Device, DeviceChoice, choose_device
from serving.runtimes.memory import failure

_NAN = float("nan")  # json writes NaN, which is how XGBoost reads it


def _asking_for(kind: int) -> bytes:
    told = {"type": kind, "training": False, "strict_shape": False, "missing": _NAN}
    return json.dumps(told | {"iteration_begin": 0, "iteration_end": 0}).encode()  # all trees


_PREDICT = _asking_for(0)  # the prediction itself: a probability for binary models
_CONTRIBUTE = _asking_for(2)  # exact TreeSHAP, in the unit of the margin
_EXPLAINED_ROWS = 16
"""Rows whose contributions are computed at once, some milliseconds: predictions wait no longer."""
_SCALES: dict[str, Scale] = {
    "binary:logistic": "log_odds",
    "reg:logistic": "log_odds",
    "count:poisson": "log",
    "reg:gamma": "log",
    "reg:tweedie": "log",
    "binary:logitraw": "value",
    "reg:squarederror": "value",
    "reg:absoluteerror": "value",
    "reg:pseudohubererror": "value",
    "reg:quantileerror": "value",
}


class Booster:
    """One loaded model. Safe to call from several threads; they take turns."""

    def __init__(self, model: Data, *, threads: int = 1, device: DeviceChoice = "cpu") -> None:
        """Load a model.

        Args:
            model: UBJSON as the Python package's ``Booster.save_raw("ubj")`` writes it.
            threads: how many cores one ``predict`` may use; 0: all.
            device: where to compute.

        Raises:
            RuntimeFailed: if XGBoost refuses the bytes.
            DeviceMissing: if ``cuda`` was asked for and cannot be used.
        """
        if model[:1] != b"{":  # XGBoost would end the whole process on empty bytes
            raise RuntimeFailed("load the model", f"{len(model)} bytes that are not UBJSON")
        self._library = _library()
        self.device: Device = choose_device(
            device,
            library="XGBoost",
            builds_cuda=_builds_cuda(),
            remedy="install xgboost of the same version in the place of xgboost-cpu",
        )
        self._lock = threading.Lock()
        self._handle = ctypes.c_void_p()
        self._call("create a booster", "XGBoosterCreate", None, 0, ctypes.byref(self._handle))
        # The booster is freed once, by close() or when the last request lets go of the runtime.
        self._free = weakref.finalize(self, self._library.XGBoosterFree, self._handle)
        self._call("set nthread", "XGBoosterSetParam", self._handle, b"nthread", b"%d" % threads)
        self._call("set device", "XGBoosterSetParam", self._handle, b"device", self.device.encode())
        held = np.frombuffer(model, np.uint8)  # XGBoost reads it in place and keeps nothing of it
        self._call(
            "load the model",
            "XGBoosterLoadModelFromBuffer",
            self._handle,
            held.ctypes.data,
            len(held),
        )
        self.columns = self._number_of_columns()
        self.scale: Scale = _SCALES.get(self._objective(), "margin")

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the prediction of each row.

        Args:
            matrix: float32, shape (rows, columns) with at least one row; NaN is missing.

        Returns:
            float32, shape (rows,); the caller's own copy.

        Raises:
            RuntimeFailed: for a model with several outputs a row, or one that was closed.
        """
        matrix = np.ascontiguousarray(matrix, np.float32)
        with self._lock:
            self._check_open("predict")
            return self._answers(
                "XGBoosterPredictFromDense",
                _array_interface(matrix),
                _PREDICT,
                None,
                rows=len(matrix),
            )

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Return the exact Shapley values of each row, and their base as a last column.

        A row's values and base add up to its margin, within float32's rounding.

        Args:
            matrix: float32, shape (rows, columns) with at least one row; NaN is missing.

        Returns:
            float32, shape (rows, columns + 1); the caller's own copy.

        Raises:
            RuntimeFailed: as ``predict``.
        """
        matrix = np.ascontiguousarray(matrix, np.float32)
        parts = range(0, len(matrix), _EXPLAINED_ROWS)
        return np.concatenate([self._explained(matrix[i : i + _EXPLAINED_ROWS]) for i in parts])

    def _explained(self, matrix: np.ndarray) -> np.ndarray:
        rows, width, data = len(matrix), self.columns + 1, ctypes.c_void_p()
        told = json.dumps({"missing": _NAN, "nthread": 1}).encode()
        with self._lock:
            self._check_open("explain")
            self._call(
                "read the rows",
                "XGDMatrixCreateFromDense",
                _array_interface(matrix),
                told,
                ctypes.byref(data),
            )
            try:
                given = self._answers(
                    "XGBoosterPredictFromDMatrix", data, _CONTRIBUTE, rows=rows, width=width
                )
            finally:
                self._library.XGDMatrixFree(data)
        return given.reshape(rows, width)

    def _answers(self, function: str, *arguments: object, rows: int, width: int = 1) -> np.ndarray:
        """What the library answers: float32, shape (rows * width,)."""
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        output = ctypes.POINTER(ctypes.c_float)()
        told = (ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(output))
        self._call("predict", function, self._handle, *arguments, *told)
        size = int(np.prod(shape[: dimensions.value]))
        if size != rows * width:
            raise RuntimeFailed("predict", f"it gave {size} values for {rows} rows")
        # The buffer is the library's and is overwritten by the next call.
        return np.ctypeslib.as_array(output, (size,)).copy()

    def _check_open(self, action: str) -> None:
        if self.closed:
            raise RuntimeFailed(action, "the model was closed")

    @property
    def closed(self) -> bool:
        """Whether the model was freed."""
        return not self._free.alive

    def close(self) -> None:
        """Free the model; safe to call twice."""
        with self._lock:
            self._free()

    def _number_of_columns(self) -> int:
        columns = ctypes.c_uint64()
        self._call("count columns", "XGBoosterGetNumFeature", self._handle, ctypes.byref(columns))
        return columns.value

    def _objective(self) -> str:
        size, told = ctypes.c_uint64(), ctypes.c_char_p()
        self._call(
            "tell its configuration",
            "XGBoosterSaveJsonConfig",
            self._handle,
            ctypes.byref(size),
            ctypes.byref(told),
        )
        return str(json.loads(told.value or b"{}")["learner"]["objective"]["name"])

    def _call(self, action: str, function: str, *arguments: object) -> None:
        if getattr(self._library, function)(*arguments) != 0:
            said = self._library.XGBGetLastError().decode(errors="replace").strip()
            # XGBoost adds a C++ stack trace after the sentence.
            raise failure("XGBoost", action, said.split("\nStack trace", 1)[0].strip())


def _array_interface(matrix: np.ndarray) -> bytes:
    rows, columns = matrix.shape
    return b'{"data":[%d,true],"shape":[%d,%d],"typestr":"<f4","version":3}' % (
        matrix.ctypes.data,
        rows,
        columns,
    )


@functools.cache
def _builds_cuda() -> bool:
    told = ctypes.c_char_p()
    _library().XGBuildInfo(ctypes.byref(told))
    return bool(json.loads(told.value or b"{}").get("USE_CUDA"))


@functools.cache
def _library() -> ctypes.CDLL:
    found = importlib.util.find_spec("xgboost")
    if found is None or not found.submodule_search_locations:
        raise RuntimeFailed("start", "it is not installed; run pip install 'headrace[serving]'")
    library = ctypes.CDLL(str(Path(found.submodule_search_locations[0], "lib", "libxgboost.so")))
    pointer, size = ctypes.c_void_p, ctypes.c_uint64
    library.XGBGetLastError.restype = ctypes.c_char_p
    library.XGBoosterCreate.argtypes = [pointer, size, pointer]
    library.XGBoosterFree.argtypes = [pointer]
    library.XGBoosterSetParam.argtypes = [pointer, ctypes.c_char_p, ctypes.c_char_p]
    library.XGBoosterLoadModelFromBuffer.argtypes = [pointer, pointer, size]
    library.XGBoosterGetNumFeature.argtypes = [pointer, pointer]
    library.XGBoosterPredictFromDense.argtypes = [
        pointer,
        ctypes.c_char_p,
        ctypes.c_char_p,
        *[pointer] * 4,
    ]
    library.XGBoosterSaveJsonConfig.argtypes = [pointer] * 3
    library.XGDMatrixCreateFromDense.argtypes = [ctypes.c_char_p, ctypes.c_char_p, pointer]
    library.XGDMatrixFree.argtypes = [pointer]
    library.XGBoosterPredictFromDMatrix.argtypes = [
        pointer,
        pointer,
        ctypes.c_char_p,
        *[pointer] * 3,
    ]
    return library
