import numpy as np
import pytest

from serving.errors import FieldsRefused
from serving.v2.datatypes import DATATYPES
from serving.v2.tensors import checked_tensor

NUMBERS = {
    "BOOL": [True, False, True],
    "UINT8": [0, 7, 255],
    "UINT16": [0, 7, 65535],
    "UINT32": [0, 7, 2**32 - 1],
    "UINT64": [0, 7, 2**64 - 1],
    "INT8": [-128, 7, 127],
    "INT16": [-(2**15), 7, 2**15 - 1],
    "INT32": [-(2**31), 7, 2**31 - 1],
    "INT64": [-(2**63), 7, 2**63 - 1],
    "FP16": [-65504.0, 0.1, 7],
    "FP32": [-3.4e38, 0.1, 7],
    "FP64": [-3.4e38, 0.1, 7],
}


def packed(*texts):
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def test_every_datatype_of_the_protocol_is_known():
    assert set(DATATYPES) == {*NUMBERS, "BYTES"}


@pytest.mark.parametrize("name", NUMBERS)
def test_json_and_bytes_of_one_datatype_are_the_same_numbers(name):
    values, wire = NUMBERS[name], DATATYPES[name].wire
    from_json = checked_tensor("x", name, [3], values)
    from_bytes = checked_tensor("x", name, [3], np.array(values, wire).tobytes())
    wanted = np.array(np.array(values, wire), np.float64).astype(np.float32)
    assert from_json.numbers().tobytes() == wanted.tobytes()
    assert from_bytes.numbers().tobytes() == wanted.tobytes()
    rounded = np.array(values, wire).tolist()
    assert from_bytes.values() == rounded
    assert from_json.values() == values


def test_text_is_the_same_as_json_and_as_bytes():
    from_json = checked_tensor("x", "BYTES", [2], ["JFK", "Zürich"])
    from_bytes = checked_tensor("x", "BYTES", [2], packed(b"JFK", "Zürich".encode()))
    typed = checked_tensor("x", "BYTES", [2], (b"JFK", "Zürich".encode()))
    assert from_json.values() == from_bytes.values() == typed.values() == ["JFK", "Zürich"]


def test_null_and_nan_are_missing():
    assert np.isnan(checked_tensor("x", "INT8", [2], [None, 1]).numbers()).tolist() == [True, False]
    data = np.array([np.nan, 1], np.float32).tobytes()
    assert np.isnan(checked_tensor("x", "FP32", [2], data).numbers()).tolist() == [True, False]
    assert checked_tensor("x", "FP32", [2], data).values() == [None, 1.0]


def test_aligned_fp32_bytes_are_not_copied_and_others_become_aligned():
    values = np.arange(4, dtype=np.float32)
    aligned = values.tobytes()
    numbers = checked_tensor("x", "FP32", [4], memoryview(aligned)).numbers()
    assert np.shares_memory(numbers, np.frombuffer(aligned, np.uint8))
    shifted = memoryview(b"?" + aligned)[1:]
    moved = checked_tensor("x", "FP32", [4], shifted).numbers()
    assert moved.flags.aligned
    assert moved.tolist() == values.tolist()


INFINITE = np.array([1, np.inf])
WRONG = {
    "another datatype": (("FP8", [1], [1]), 'datatype "FP8"; write one of BOOL, UINT8'),
    "a datatype that is a list": ((["FP32"], [1], [1]), 'datatype ["FP32"]'),
    "three dimensions": (("FP32", [1, 1, 1], [1]), "shape [1,1,1]; write one or two numbers"),
    "no dimension": (("FP32", [], []), "shape []; write one or two numbers"),
    "a size of zero": (("FP32", [0], []), "shape [0]"),
    "a size beyond 64 bits": (("FP32", [2**63, 2**63], [1]), "write one or two numbers from 1"),
    "a size of true": (("FP32", [True], [1]), "shape [true]"),
    "too few bytes": (("FP32", [2], b"1234567"), "has 7 bytes; FP32 of shape [2] needs 8"),
    "infinity": (("FP32", [2], INFINITE.astype("<f4").tobytes()), "holds inf; send finite"),
    "infinity of 16 bits": (("FP16", [2], INFINITE.astype("<f2").tobytes()), "holds inf"),
    "infinity of 64 bits": (("FP64", [2], INFINITE.tobytes()), "holds inf"),
    "beyond 32 bits": (("FP64", [1], np.array([1e39]).tobytes()), "1e39, which does not fit FP64"),
    "beyond 16 bits": (("FP16", [1], [65505]), "65505, which does not fit FP16"),
    "a byte that is no boolean": (("BOOL", [1], b"\x02"), "holds 2, which does not fit BOOL"),
    "a number for a boolean": (("BOOL", [1], [1]), "holds 1, which is not BOOL"),
    "a boolean for a number": (("UINT8", [1], [True]), "holds true, which is not UINT8"),
    "less than nothing": (("UINT8", [1], [-1]), "holds -1, which does not fit UINT8"),
    "an integer without end": (("FP32", [1], [10**400]), "which does not fit FP32"),
    "typed contents too large": (("INT8", [1], np.array([300], np.int32)), "300, which does not"),
    "text for columns": (("BYTES", [1], ["JFK"]), "the model's columns are numbers: write FP32"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_number_is_refused_by_name_and_remedy(case):
    (datatype, shape, data), said = WRONG[case]
    with pytest.raises(FieldsRefused) as caught:
        checked_tensor("seats", datatype, shape, data).numbers()
    assert "input 'seats'" in str(caught.value)
    assert said in str(caught.value)


WRONG_TEXT = {
    "no whole length": (packed(b"JFK") + b"\x01", "ends within the length of an element"),
    "no whole element": (packed(b"JFK")[:-2], "ends 2 bytes before its last element does"),
    "two elements": (packed(b"JFK", b"LGA"), "has 2 values; shape [1] needs 1"),
    "not UTF-8": (packed(b"\xff"), "holds bytes that are not UTF-8 text"),
    "a number": ([5], "holds 5, which is not BYTES or null"),
}


@pytest.mark.parametrize("case", WRONG_TEXT)
def test_what_is_no_text_is_refused(case):
    data, said = WRONG_TEXT[case]
    with pytest.raises(FieldsRefused, match=said.replace("[", r"\[")):
        checked_tensor("origin", "BYTES", [1], data).values()
