"""scikit-learn estimators, fitted and then converted to ONNX by skl2onnx: no pickle is kept.

Inputs are float32 in training too, so that a threshold splits the same rows before and after.
"""

from typing import Any

import numpy as np

from headrace.errors import SpecRefused
from headrace.spec import ModelSpec, SklearnTrainer
from tasks.fitters.checked import SAMPLE_ROWS, checked
from tasks.fitters.factories import made
from tasks.fitters.onnx_graph import one_prediction


def fit(spec: ModelSpec, trainer: SklearnTrainer, matrix: np.ndarray, labels: np.ndarray) -> bytes:
    """Fit an estimator and return it as ONNX.

    Where the estimator leaves ``random_state`` open it is 0: the same rows give the same bytes.

    Args:
        spec: the model, for its name and task.
        trainer: which estimator.
        matrix: float32, shape (rows, columns); NaN is missing.
        labels: float32, shape (rows,).

    Raises:
        SpecRefused: if the estimator is not there, cannot be fitted on these rows, or does not
            convert; the sentence says what scikit-learn or skl2onnx said.
    """
    estimator = made(spec.name, "trainer.estimator", trainer.estimator, **trainer.parameters)
    binary = spec.task == "binary"
    if not hasattr(estimator, "fit"):
        said = f"trainer.estimator {trainer.estimator!r} gives a {type(estimator).__name__}"
        raise SpecRefused(spec.name, f"{said}, which has no fit; give a scikit-learn estimator")
    if binary and not hasattr(estimator, "predict_proba"):
        said = f"trainer.estimator {trainer.estimator!r} has no predict_proba, which task 'binary'"
        raise SpecRefused(spec.name, f"{said} asks; wrap it in CalibratedClassifierCV")
    _settle_randomness(estimator)
    try:
        estimator.fit(matrix, labels.astype(np.int64) if binary else labels)
    except (ValueError, TypeError) as error:
        said = f"trainer.estimator {trainer.estimator!r} cannot be fitted: {error}"
        raise SpecRefused(spec.name, said) from error
    model = _converted(spec, trainer, estimator, matrix.shape[1])
    sample = matrix[:SAMPLE_ROWS]
    wanted = estimator.predict_proba(sample)[:, 1] if binary else estimator.predict(sample)
    return checked(spec.name, "onnx", model, matrix, np.asarray(wanted, np.float32).reshape(-1))


def _settle_randomness(estimator: Any) -> None:
    given = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    left_open = [n for n, v in given.items() if n.split("__")[-1] == "random_state" and v is None]
    if left_open:
        estimator.set_params(**dict.fromkeys(left_open, 0))


def _converted(spec: ModelSpec, trainer: SklearnTrainer, estimator: Any, columns: int) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    binary = spec.task == "binary"
    with_missing = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
    try:
        model = convert_sklearn(
            estimator,
            name=spec.name,
            initial_types=[("features", FloatTensorType([None, columns]))],
            options={id(estimator): {"zipmap": False}} if binary else None,
            custom_conversion_functions=dict.fromkeys(with_missing, _convert_with_numbers),
        )
    except (
        MissingConverter,
        MissingShapeCalculator,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        reason = str(error).split("\n", 1)[0]
        said = f"trainer.estimator {trainer.estimator!r} does not convert to ONNX: {reason}"
        raise SpecRefused(spec.name, said) from error
    output = model.graph.output[-1].name  # a classifier has the label first
    return one_prediction(
        spec.name, model.SerializeToString(), output=output, column=1 if binary else None
    )


def _convert_with_numbers(scope: Any, operator: Any, container: Any) -> None:
    """Convert by skl2onnx's own function, with numbers where it gives truth values.

    skl2onnx 1.20 says by NumPy truth values which way a missing value goes at a node; the protobuf
    of today takes only numbers there.
    """
    from skl2onnx.common._registration import get_converter

    get_converter(operator.type)(scope, operator, _Numbers(container))


class _Numbers:
    """A container of nodes whose attributes hold no truth values."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def add_node(self, *named: Any, **attributes: Any) -> None:
        for name, values in attributes.items():
            if isinstance(values, list) and any(isinstance(v, bool | np.bool) for v in values):
                attributes[name] = [int(value) for value in values]
        self._container.add_node(*named, **attributes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)
