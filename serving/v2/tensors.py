"""One input tensor, from whatever form it came in to the numbers or values that it holds.

JSON lists, raw bytes (the binary tensor extension; gRPC's ``raw_input_contents``) and gRPC's typed
contents all become a ``Tensor``, so what is checked and said does not depend on the way in. Nothing
is allocated by a shape alone: the data must be there first.
"""

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from serving.errors import FieldsRefused, Problem
from serving.schema import show
from serving.v2.datatypes import DATATYPES, Datatype

Data = list[Any] | bytes | memoryview | np.ndarray | tuple[bytes, ...]
"""What a tensor's data came as: a JSON list, flat or nested by rows; raw little-endian bytes in C
order; gRPC's typed contents, as an array of numbers or the elements of BYTES."""


@dataclass(slots=True)
class Tensor:
    """A named input."""

    name: str
    datatype: Datatype
    shape: list[int]
    data: Data

    def numbers(self) -> np.ndarray:
        """Return its values as the model sees them: float32, flat, NaN for null and NaN.

        FP32 bytes are not copied where they lie aligned in memory.

        Raises:
            FieldsRefused: for text, infinity, or what does not fit its datatype or 32-bit floats.
        """
        if self.datatype.wire is None:
            raise self._refused("has datatype BYTES; the model's columns are numbers: write FP32")
        if isinstance(self.data, list):
            values = np.array(self._checked(self._flat(self.data)), np.float64)
            return _float32(values, self.datatype)
        return _float32(self._from_wire(), self.datatype)

    def values(self) -> list[Any]:
        """Return its values as JSON would hold them: text, numbers, booleans; None for NaN.

        Raises:
            FieldsRefused: for what does not fit its datatype, and for text that is not UTF-8.
        """
        if isinstance(self.data, list):
            return self._checked(self._flat(self.data))
        if self.datatype.wire is None:
            return self._texts()
        array = self._from_wire()
        missing = np.isnan(array) if array.dtype.kind == "f" else np.zeros(len(array), bool)
        return [None if nan else value for value, nan in zip(array.tolist(), missing, strict=True)]

    def _flat(self, data: list[Any]) -> list[Any]:
        """Data may be flat or nested by rows, as the protocol allows."""
        shape = self.shape
        if len(shape) == 2 and data and isinstance(data[0], list):
            if any(not isinstance(row, list) or len(row) != shape[1] for row in data):
                raise self._refused(f"has a row that does not hold {shape[1]} values")
            data = list(chain.from_iterable(data))
        self._check_count(len(data))
        return data

    def _checked(self, values: list[Any]) -> list[Any]:
        datatype = self.datatype
        allowed = datatype.json | {type(None)}
        if not allowed.issuperset(map(type, values)):
            wrong = next(value for value in values if type(value) not in allowed)
            raise self._refused(f"holds {show(wrong)}, which is not {datatype.name} or null")
        if datatype.wire is not None:
            for value in values:
                if value is not None and not datatype.low <= value <= datatype.high:
                    raise self._does_not_fit(value)
        return values

    def _from_wire(self) -> np.ndarray:
        data, wire = self.data, self.datatype.wire
        assert wire is not None, "BYTES has elements of any length"
        if isinstance(data, np.ndarray):  # typed contents: INT8 comes as 32-bit integers
            self._check_count(len(data))
            array = data
        else:
            assert isinstance(data, bytes | memoryview), "JSON does not come here"
            wanted = math.prod(self.shape) * wire.itemsize
            if len(data) != wanted:
                said = f"has {len(data):,} bytes; {self.datatype.name} of shape {show(self.shape)}"
                raise self._refused(f"{said} needs {wanted:,}")
            # A byte that is neither 0 nor 1 is no boolean that NumPy could hold.
            array = np.frombuffer(data, np.uint8 if wire.kind == "b" else wire)
        self._check_bounds(array)
        return array.astype(bool) if wire.kind == "b" else array

    def _check_bounds(self, array: np.ndarray) -> None:
        datatype = self.datatype
        if array.dtype == datatype.wire and datatype.name != "FP64":
            wrong = np.isinf(array) if array.dtype.kind == "f" else None
        else:
            wrong = (array < datatype.low) | (array > datatype.high)
        if wrong is not None and wrong.any():
            raise self._does_not_fit(array[int(np.argmax(wrong))].item())

    def _texts(self) -> list[str]:
        elements = self.data if isinstance(self.data, tuple) else self._elements()
        self._check_count(len(elements))
        try:
            return [element.decode() for element in elements]
        except UnicodeDecodeError as error:
            raise self._refused("holds bytes that are not UTF-8 text") from error

    def _elements(self) -> list[bytes]:
        """The elements of BYTES: each four bytes of length, little-endian, then as many bytes.

        Source: https://github.com/triton-inference-server/server,
        docs/protocol/extension_binary_data.md.
        """
        assert isinstance(self.data, bytes | memoryview), "every other form is told apart before"
        buffer, at, found = bytes(self.data), 0, []
        while at < len(buffer):
            begin = at + 4
            if begin > len(buffer):
                raise self._refused("ends within the length of an element")
            at = begin + int.from_bytes(buffer[at:begin], "little")
            if at > len(buffer):
                missing = at - len(buffer)
                raise self._refused(f"ends {missing:,} bytes before its last element does")
            found.append(buffer[begin:at])
        return found

    def _check_count(self, found: int) -> None:
        if found != math.prod(self.shape):
            raise self._refused(
                f"has {found:,} values; shape {show(self.shape)} needs {math.prod(self.shape):,}"
            )

    def _does_not_fit(self, value: Any) -> FieldsRefused:
        if isinstance(value, float) and math.isinf(value):  # which JSON could not show
            return self._refused(f"holds {value}; send finite numbers, and NaN for a missing value")
        return self._refused(f"holds {show(value)}, which does not fit {self.datatype.name}")

    def _refused(self, said: str) -> FieldsRefused:
        return refused(f"input {self.name!r} {said}", self.name)


def checked_tensor(name: str, datatype: Any, shape: Any, data: Any) -> Tensor:
    """Return a tensor whose datatype and shape are of the protocol; its data is looked at later.

    Raises:
        FieldsRefused: for an unknown datatype, or a shape that is no list of numbers from 1.
    """
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        wanted = ", ".join(DATATYPES)
        raise refused(f"input {name!r} has datatype {show(datatype)}; write one of {wanted}", name)
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2 or not all(map(_is_size, shape)):
        said = f"input {name!r} has shape {show(shape)}; write one or two numbers from 1"
        raise refused(said, name)
    if not isinstance(data, list | bytes | memoryview | np.ndarray | tuple):
        raise refused(f"input {name!r} has no list of values; write them in 'data'", name)
    return Tensor(name, DATATYPES[datatype], shape, data)


def refused(message: str, field: str | None = None) -> FieldsRefused:
    """The error of one thing wrong with a request of tensors."""
    return FieldsRefused([Problem(message, field=field)])


def _is_size(size: Any) -> bool:
    return type(size) is int and 1 <= size < 2**63


def _float32(array: np.ndarray, datatype: Datatype) -> np.ndarray:
    if array.dtype == np.float32:
        # Compiled predictors take aligned memory; bytes after a JSON header may lie anywhere.
        return np.require(array, requirements="A")
    if datatype.name == "FP16":
        array = array.astype(np.float16)
    # By way of a double in every form, so that one number gives one float32.
    return array.astype(np.float64).astype(np.float32)
