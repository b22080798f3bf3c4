"""The safetensors format: named tensors in one file, which holds nothing else.

Eight bytes say how long a JSON header is; the header says name, type, shape and place of each
tensor and may carry text; then come the tensors, back to back. So a file can be checked before
anybody uses it, and its tensors can be used where they lie, in a map of the file.

Source: https://github.com/huggingface/safetensors, "Format".
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.mapped import Data
from serving.errors import ServingError

DTYPES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}
"""The types that models use, and the bytes of a value."""
_OF_NUMPY = {"<f8": "F64", "<i8": "I64", "<f4": "F32", "<i4": "I32", "<f2": "F16"}
_OF_NUMPY |= {"|u1": "U8", "|b1": "BOOL"}
_MOST_HEADER = 100_000_000
_LENGTH = struct.Struct("<Q")


class NotSafetensors(ServingError):
    """The bytes are no safetensors file, or one that says two things at once."""


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Its first byte, counted from the start of the file."""

    @property
    def values(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """How long it is."""
        return self.values * DTYPES[self.dtype]


def read_header(data: Data) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return where each tensor lies, and the text that came with them.

    Raises:
        NotSafetensors: saying what is wrong. What is returned lies inside the file, without
            overlaps or gaps, each value at an address that its type may have.
    """
    try:
        (length,) = _LENGTH.unpack(data[:8])
        if length > min(_MOST_HEADER, len(data) - 8):
            raise NotSafetensors(f"its header of {length} bytes is longer than the file")
        header = json.loads(data[8 : 8 + length])
        text = header.pop("__metadata__", {})
        start = 8 + length
        tensors = {name: _tensor(told, start) for name, told in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotSafetensors(f"its header cannot be read: {error}") from error
    if not isinstance(text, dict) or not all(isinstance(value, str) for value in text.values()):
        raise NotSafetensors("its metadata is not text")
    at = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].bytes)):
        if tensor.offset != at or at % DTYPES[tensor.dtype]:
            raise NotSafetensors(f"tensor {name!r} begins at byte {tensor.offset}, not at {at}")
        at += tensor.bytes
    if at != len(data):
        raise NotSafetensors(f"its tensors end at byte {at}, the file at {len(data)}")
    return tensors, text


def _tensor(told: Mapping[str, Any], start: int) -> Tensor:
    dtype, shape, (begin, end) = told["dtype"], told["shape"], told["data_offsets"]
    if dtype not in DTYPES:
        raise NotSafetensors(f"{dtype!r} is none of the types {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise NotSafetensors(f"{shape!r} is no shape")
    tensor = Tensor(dtype, tuple(shape), start + begin)
    if begin < 0 or end - begin != tensor.bytes:
        raise NotSafetensors(f"{end - begin} bytes are not those of {dtype} {shape}")
    return tensor


def written(tensors: Mapping[str, np.ndarray], text: Mapping[str, str]) -> bytes:
    """Return a file of ``tensors`` and ``text``; equal contents give equal bytes."""
    # Wide types first: then every value lies where its type may, without gaps.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(text)}
    at = 0
    for name in names:
        array = tensors[name]
        header[name] = {
            "dtype": _OF_NUMPY[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    parts = [np.ascontiguousarray(tensors[name]).tobytes() for name in names]
    return b"".join([_LENGTH.pack(len(head)), head, *parts])
