import math
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import EntityKeyRefused, StoredValueBroken
from featurestore.stores.encode import messages
from featurestore.wire.entity_key import EntityKeyWriter
from featurestore.wire.numbers import NULL, decode_numbers
from headrace.plan import FeatureRead, JoinKey

FIELDS = {
    "FLOAT": ("float_val", st.floats(width=32)),
    "DOUBLE": ("double_val", st.floats()),
    "INT32": ("int32_val", st.integers(-(2**31), 2**31 - 1)),
    "INT64": ("int64_val", st.integers(-(2**63), 2**63 - 1)),
    "BOOL": ("bool_val", st.booleans()),
    "STRING": ("string_val", st.text(max_size=200)),
}
KEY_VALUES = {
    "STRING": st.text(max_size=20),
    "INT32": FIELDS["INT32"][1],
    "INT64": FIELDS["INT64"][1],
}


ARROW = {
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "BOOL": pa.bool_(),
    "STRING": pa.string(),
}


def encoded(values, dtype):
    """A column of values as messages, as a materialisation writes them."""
    rows = pa.table({"x": pa.array(values, ARROW[dtype])})
    return messages(rows, "t", FeatureRead(name="x", dtype=dtype)).to_pylist()


@pytest.fixture(scope="module")
def feast():
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return SimpleNamespace(key=serialize_entity_key, EntityKey=EntityKey, Value=Value)


@st.composite
def entities(draw):
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4, unique=True))
    kinds = [draw(st.sampled_from(sorted(KEY_VALUES))) for _ in names]
    values = [draw(KEY_VALUES[kind]) for kind in kinds]
    return [JoinKey(name=n, dtype=k) for n, k in zip(names, kinds, strict=True)], values


@settings(deadline=None)
@given(entities())
def test_entity_keys_are_the_bytes_that_feast_writes(feast, entity):
    keys, values = entity
    fields = [FIELDS[key.dtype][0] for key in keys]
    theirs = feast.EntityKey(
        join_keys=[key.name for key in keys],
        entity_values=[feast.Value(**{f: v}) for f, v in zip(fields, values, strict=True)],
    )
    assert EntityKeyWriter(keys).write(values) == feast.key(theirs)


@settings(deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("dtype", sorted(FIELDS))
def test_values_are_the_bytes_that_feast_writes(feast, dtype, data):
    field, strategy = FIELDS[dtype]
    values = data.draw(st.lists(strategy, max_size=5))
    theirs = [feast.Value(**{field: v}).SerializeToString() for v in values]
    assert encoded([*values, None], dtype) == [*theirs, NULL]


@given(values=st.lists(st.one_of(st.none(), st.floats()), max_size=8))
def test_doubles_survive_the_way_there_and_back_with_nulls_as_nan(values):
    missing = np.array([v is None for v in values], dtype=bool)
    numbers = np.array([0.0 if v is None else v for v in values])
    stored = encoded(values, "DOUBLE")
    expected = np.where(missing, math.nan, numbers)
    np.testing.assert_array_equal(decode_numbers(stored, "DOUBLE", "x"), expected)
    assert [s == NULL for s in stored] == missing.tolist()


@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8))
def test_integers_come_back_as_the_nearest_double(values):
    stored = encoded(values, "INT64")
    assert decode_numbers(stored, "INT64", "n").tolist() == [float(v) for v in values]


@given(value=st.binary(min_size=1, max_size=12))
@pytest.mark.parametrize("dtype", ["DOUBLE", "FLOAT", "INT64", "INT32", "BOOL"])
def test_other_bytes_are_refused_and_never_misread(dtype, value):
    good = encoded([True if dtype == "BOOL" else 1], dtype)[0]
    if value[0] == good[0]:
        value = bytes([good[0] ^ 0xFF]) + value[1:]
    with pytest.raises(StoredValueBroken, match=f"feature x is no {dtype}"):
        decode_numbers([good, NULL, value], dtype, "x")


@pytest.mark.parametrize("cut", [b"\x20", b"\x20\x80", b"\x20" + b"\x80" * 11, b"\x20\x01\x01"])
def test_a_number_that_ends_early_or_late_is_refused(cut):
    with pytest.raises(StoredValueBroken):
        decode_numbers([cut], "INT64", "n")


def test_a_null_key_has_no_bytes():
    assert EntityKeyWriter([JoinKey(name="a"), JoinKey(name="b")]).write(["x", None]) is None


@pytest.mark.parametrize(
    ("dtype", "value"), [("STRING", 5), ("INT64", "5"), ("INT32", 2**31), ("INT64", 1.5)]
)
def test_a_key_of_another_type_is_refused_by_name(dtype, value):
    writer = EntityKeyWriter([JoinKey(name="tail", dtype=dtype)])
    with pytest.raises(EntityKeyRefused, match=f"key tail = .* is refused: write a {dtype}"):
        writer.write([value])
