"""ONNX models through ONNX Runtime: what scikit-learn and PyTorch models become.

Imported for ONNX bundles only. A model is one graph in one file: float32 (rows, columns) in, one
float32 a row out. Tensors kept in other files are refused before ONNX Runtime sees the model,
which would read any file below the working directory into it; so are operators that are not ONNX's
own.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # noqa: TID253  (this module is imported for ONNX bundles only)
from google.protobuf.message import DecodeError, Message

from headrace.gpu import gpu_memory_bytes
from headrace.mapped import Data
from serving.errors import RuntimeFailed
from serving.runtimes.blocks import Blocks
from serving.runtimes.device import Device, DeviceChoice, choose_device
from serving.runtimes.memory import failure

LIBRARY = "ONNX Runtime"
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
_ERRORS = (
    ort.capi.onnxruntime_pybind11_state.EPFail,
    ort.capi.onnxruntime_pybind11_state.Fail,
    ort.capi.onnxruntime_pybind11_state.InvalidArgument,
    ort.capi.onnxruntime_pybind11_state.InvalidGraph,
    ort.capi.onnxruntime_pybind11_state.InvalidProtobuf,
    ort.capi.onnxruntime_pybind11_state.NotImplemented,
    ort.capi.onnxruntime_pybind11_state.RuntimeException,
    RuntimeError,
)


class OnnxRuntime:
    """One loaded model. Safe to call from several threads."""

    def __init__(
        self,
        model: Data,
        *,
        rows: np.ndarray | None = None,
        threads: int = 1,
        device: DeviceChoice = "cpu",
        memory_share: float = 0.8,
    ) -> None:
        """Load a model.

        Args:
            model: a serialised ``onnx.ModelProto``, at most 2 GB as protobuf has it.
            rows: typical inputs, to find out which block sizes answer with the same bits; None:
                only the largest block is used, which is slow for single rows.
            threads: how many blocks are computed at a time; 0: one a core. ONNX Runtime itself has
                one thread always, since with several it adds up in another order.
            device: where to compute.
            memory_share: the share of the GPU's memory that it may take.

        Raises:
            RuntimeFailed: if the bytes are no such model.
            DeviceMissing: if ``cuda`` was asked for and cannot be used.
        """
        data = bytes(model)  # both libraries below parse a copy for themselves
        _refuse_what_reaches_outside(data)
        self.device: Device = choose_device(
            device,
            library=LIBRARY,
            builds_cuda="CUDAExecutionProvider" in ort.get_available_providers(),
            remedy="install onnxruntime-gpu of the same version in the place of onnxruntime",
        )
        self._session: ort.InferenceSession | None = _open(data, self.device, memory_share)
        self._input, self._output, self.columns = _signature(self._session)
        if rows is not None and rows.shape[1] != self.columns:
            said = f"it has {self.columns} inputs, and the rows {rows.shape[1]}"
            raise RuntimeFailed("use the model", said, library=LIBRARY)
        self._blocks: Blocks | None = None
        if self.device == "cpu":
            self._blocks = Blocks(self._run, LIBRARY, rows=rows, threads=threads)

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the prediction of each row; see ``Runtime.predict``.

        On a GPU the rows are computed as they come: cuBLAS takes its ways by the shape, so the
        last bits of an answer may depend on the other rows there.
        """
        if matrix.ndim != 2 or matrix.shape[1] != self.columns:
            wanted = f"shape {matrix.shape} is not (rows, {self.columns})"
            raise RuntimeFailed("predict", wanted, library=LIBRARY)
        if self._session is None:
            raise RuntimeFailed("predict", "the model was closed", library=LIBRARY)
        if len(matrix) == 0:
            return np.empty(0, np.float32)
        if self._blocks is None:
            return self._run(np.ascontiguousarray(matrix, np.float32))
        return self._blocks.predict(matrix)

    def close(self) -> None:
        """Free the model; safe to call twice."""
        self._session = None
        if self._blocks:
            self._blocks.close()

    def _run(self, rows: np.ndarray) -> np.ndarray:
        session = self._session
        if session is None:
            raise RuntimeFailed("predict", "the model was closed", library=LIBRARY)
        try:
            (given,) = session.run([self._output], {self._input: rows})
        except _ERRORS as error:
            raise failure(LIBRARY, "predict", str(error)) from error
        if given.size != len(rows):
            said = f"it gave {given.size} values for {len(rows)} rows"
            raise RuntimeFailed("predict", said, library=LIBRARY)
        return np.asarray(given.reshape(len(rows)))


def _open(model: bytes, device: Device, memory_share: float) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # errors come as exceptions, with the same words
    # Whoever owns the process may register one bounded arena for all models; see docs/models.md.
    options.add_session_config_entry("session.use_env_allocators", "1")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        limit = int(gpu_memory_bytes() * memory_share)
        cuda = {
            "gpu_mem_limit": limit,
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": 0,  # ten bits of mantissa are not what the model was tested with
        }
        providers.insert(0, ("CUDAExecutionProvider", cuda))
    try:
        session = ort.InferenceSession(model, options, providers=providers)
    except _ERRORS as error:
        raise failure(LIBRARY, "load the model", str(error)) from error
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        said = "it fell back to the CPU: its CUDA libraries do not load; see the log of the worker"
        raise RuntimeFailed("use the GPU", said, library=LIBRARY)
    return session


def _signature(session: ort.InferenceSession) -> tuple[str, str, int]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    told = [f"{node.name} {node.type}{node.shape}" for node in (*inputs, *outputs)]
    fits = (
        [node.type for node in (*inputs, *outputs)] == ["tensor(float)"] * 2
        and len(inputs) == 1
        and len(inputs[0].shape) == 2
        and isinstance(inputs[0].shape[1], int)
        and not isinstance(inputs[0].shape[0], int)
    )
    if not fits:
        said = (
            f"it has {', '.join(told)}, but must have one float input of shape (rows, columns), "
            "with any number of rows, and one float output"
        )
        raise RuntimeFailed("use the model", said, library=LIBRARY)
    return inputs[0].name, outputs[0].name, inputs[0].shape[1]


def _refuse_what_reaches_outside(model: bytes) -> None:
    try:
        document = onnx.load_model_from_string(model)
    except DecodeError as error:
        said = f"{len(model)} bytes that are not ONNX"
        raise RuntimeFailed("load the model", said, library=LIBRARY) from error
    for part in _parts(document):
        if isinstance(part, onnx.TensorProto) and (
            part.external_data or part.data_location == onnx.TensorProto.EXTERNAL
        ):
            said = f"tensor {part.name!r} lies in another file; save the model as one file"
            raise RuntimeFailed("load the model", said, library=LIBRARY)
        if isinstance(part, onnx.NodeProto) and part.domain not in _DOMAINS:
            said = (
                f"operator {part.op_type!r} is of {part.domain!r}, which is not one of ONNX's own "
                "domains; export the model without custom operators"
            )
            raise RuntimeFailed("load the model", said, library=LIBRARY)


def _parts(message: Message) -> Iterator[Message]:
    """Every message inside ``message``, however deep: subgraphs and functions hide none."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _parts(inner)
