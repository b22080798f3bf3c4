"""PyTorch modules, trained here and kept as ONNX or as the graph of ``torch.export``.

Never as ``torch.export``'s own files, which run code when they are loaded
(``docs/decisions/0026-runtimes.md``).
"""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from headrace.bundle import OUTPUT
from headrace.errors import SpecRefused
from headrace.spec import ModelSpec, TorchTrainer
from serving.runtimes.device import choose_device
from tasks.fitters.checked import SAMPLE_ROWS, checked
from tasks.fitters.factories import made
from tasks.fitters.onnx_graph import one_prediction

if TYPE_CHECKING:
    import torch

    from tasks.fitters.torch_module import Scored

_INPUT = "features"
_OPSET = 17


def fit(spec: ModelSpec, trainer: TorchTrainer, matrix: np.ndarray, labels: np.ndarray) -> bytes:
    """Train a module and return it in its kept form, the standardisation of its inputs inside.

    The same rows, trainer, device and number of threads give the same bytes.

    Args:
        spec: the model, for its name and task.
        trainer: which module, and how to train it.
        matrix: float32, shape (rows, columns); NaN is missing.
        labels: float32, shape (rows,).

    Raises:
        SpecRefused: if the module is not there, gives another shape, diverges or does not export.
        DeviceMissing: if ``trainer.device`` is ``cuda`` and there is none.
    """
    import torch

    from tasks.fitters.torch_module import Scored

    device = choose_device(
        trainer.device,
        library="PyTorch",
        builds_cuda=torch.cuda.is_available(),
        remedy="install the CUDA build of torch",
    )
    with _settled(trainer.seed):
        network = made(
            spec.name, "trainer.module", trainer.module, matrix.shape[1], **trainer.parameters
        )
        if not isinstance(network, torch.nn.Module):
            said = f"trainer.module {trainer.module!r} gives a {type(network).__name__}"
            raise SpecRefused(spec.name, f"{said}, not a torch.nn.Module")
        model = Scored(network, matrix, labels, binary=spec.task == "binary")
        _train(spec, trainer, model.to(device), matrix, labels)
        model = model.to("cpu").eval()
        with torch.no_grad():
            wanted = model(torch.from_numpy(matrix[:SAMPLE_ROWS])).numpy()
        keep = _as_program if trainer.keep == "torch" else _as_onnx
        data = keep(spec, trainer, model, matrix.shape[1])
    return checked(spec.name, trainer.keep, data, matrix, wanted)


def _train(
    spec: ModelSpec, trainer: TorchTrainer, model: "Scored", matrix: np.ndarray, labels: np.ndarray
) -> None:
    import torch

    device = model.mean.device
    rows = torch.from_numpy(matrix)
    targets = torch.from_numpy((labels - model.label_mean) / np.float32(model.label_deviation))
    loss_of = torch.nn.BCEWithLogitsLoss() if model.binary else torch.nn.MSELoss()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=trainer.learning_rate, weight_decay=trainer.weight_decay
    )
    model.train()
    for epoch in range(trainer.epochs):
        for chosen in _batches(len(rows), trainer.batch_rows):
            given = model.raw(rows[chosen].to(device))
            if len(given) != len(chosen):
                said = f"trainer.module {trainer.module!r} gives {len(given)} values for "
                raise SpecRefused(spec.name, f"{said}{len(chosen)} rows; give one a row")
            loss = loss_of(given, targets[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not torch.isfinite(loss):
            said = f"the loss is {loss.item()} after epoch {epoch + 1}"
            raise SpecRefused(spec.name, f"{said}; try a smaller trainer.learning_rate")


def _batches(rows: int, batch_rows: int) -> Iterator["torch.Tensor"]:
    import torch

    order = torch.randperm(rows)
    for begin in range(0, rows, batch_rows):
        chosen = order[begin : begin + batch_rows]
        if len(chosen) > 1 or rows == 1:  # normalisation over a batch has no meaning for one row
            yield chosen


def _as_program(spec: ModelSpec, trainer: TorchTrainer, model: "Scored", columns: int) -> bytes:
    from tasks.fitters.torch_program import program_of

    try:
        return program_of(model, columns)
    except (RuntimeError, ValueError) as error:
        raise _not_exported(spec, trainer, error) from error


def _as_onnx(spec: ModelSpec, trainer: TorchTrainer, model: "Scored", columns: int) -> bytes:
    import torch
    from torch.jit._trace import TracerWarning

    written = io.BytesIO()
    try:
        # One warning is that this exporter is the older one: it needs no further package, and torch
        # is pinned, so it is there.
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.onnx.export(
                model,
                (torch.zeros(2, columns),),
                written,  # type: ignore[arg-type]  # a file object is taken too
                dynamo=False,
                opset_version=_OPSET,
                input_names=[_INPUT],
                output_names=[OUTPUT],
                dynamic_axes={_INPUT: {0: "rows"}, OUTPUT: {0: "rows"}},
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise _not_exported(spec, trainer, error) from error
    for warning in said:
        if issubclass(warning.category, TracerWarning):  # a branch that the graph has only half of
            raise _not_exported(spec, trainer, warning.message)
    return one_prediction(spec.name, written.getvalue())


def _not_exported(spec: ModelSpec, trainer: TorchTrainer, said: object) -> SpecRefused:
    reason = str(said).strip().split("\n", 1)[0]
    return SpecRefused(spec.name, f"trainer.module {trainer.module!r} does not export: {reason}")


@contextlib.contextmanager
def _settled(seed: int) -> Iterator[None]:
    """Seeds and deterministic kernels inside, everything as it was outside."""
    import torch

    before, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(len(os.sched_getaffinity(0)))  # a loaded model may have set one
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            torch.set_num_threads(threads)
