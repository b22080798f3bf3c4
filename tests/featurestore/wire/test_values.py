"""Every value type that is no number, against Feast's own functions."""

import contextlib
import json
from datetime import UTC, date, datetime
from typing import get_args
from uuid import UUID
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import StoredValueBroken
from featurestore.wire.value_encoding import encode_object, encode_objects
from featurestore.wire.values import FIELD_NUMBERS, decode_object
from headrace.errors import SchemaMismatch
from headrace.plan import NUMBERS, ObjectType

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
moments = st.integers(0, 1 << 32).map(lambda second: datetime.fromtimestamp(second, UTC))
whole = {bits: st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (32, 64)}
decimals = st.decimals(allow_nan=False, places=3)
jsons = st.recursive(
    st.none() | st.booleans() | whole[64] | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
scalars = {
    "BYTES": st.binary(max_size=8),
    "STRING": texts,
    "INT32": whole[32],
    "INT64": whole[64],
    "DOUBLE": st.floats(),
    "FLOAT": st.floats(width=32),
    "BOOL": st.booleans(),
    "UNIX_TIMESTAMP": moments,
    "JSON": jsons.map(json.dumps),
    "UUID": st.uuids(),
    "TIME_UUID": st.uuids(),
    "DECIMAL": decimals,
}
plain = st.one_of(
    st.booleans(), whole[64], st.floats(allow_nan=False), texts, st.binary(min_size=1, max_size=4),
    decimals, st.uuids(), moments,
)  # fmt: skip
lists = st.one_of(st.lists(s, min_size=1, max_size=3) for s in (whole[64], texts, st.booleans()))
leaves = st.none() | plain | lists
maps = st.recursive(
    st.dictionaries(texts, leaves, max_size=3),
    lambda inner: st.dictionaries(texts, inner | st.lists(inner, min_size=1, max_size=2)),
    max_leaves=4,
)
values = scalars | {
    "MAP": maps,
    "STRUCT": maps,
    "MAP_LIST": st.lists(maps, max_size=2),
    "STRUCT_LIST": st.lists(maps, max_size=2),
    "SCALAR_MAP": st.dictionaries(
        st.one_of(st.booleans(), whole[64], st.uuids(), decimals, st.binary(max_size=3), moments),
        leaves,
        min_size=1,
        max_size=3,
    ),
    "VALUE_LIST": st.lists(lists, max_size=3),
    "VALUE_SET": st.lists(lists, max_size=3),
    "ZONED_TIMESTAMP": moments.map(lambda m: m.astimezone(ZoneInfo("America/New_York"))),
}
for name, element in scalars.items():
    values[f"{name}_LIST"] = st.lists(element, max_size=4)
    values[f"{name}_SET"] = st.lists(element, max_size=4)
OBJECTS = sorted(set(FIELD_NUMBERS) - NUMBERS)


def shown(value):
    """The value as text that is equal for equal values: NaN too, and maps and sets in any order."""
    if isinstance(value, dict):
        return sorted((shown(k), shown(v)) for k, v in value.items())
    if isinstance(value, set):
        return sorted(map(shown, value))
    return [shown(v) for v in value] if isinstance(value, list) else repr(value)


@pytest.fixture(scope="module")
def feast():
    from feast import type_map
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.value_type import ValueType

    class Feast:
        @staticmethod
        def write(value, dtype):
            given = set(value) if dtype.endswith("_SET") and dtype != "VALUE_SET" else value
            # Feast takes a column of nothing but empty bytes for nulls, so give it company.
            column = [given, b"x"] if dtype == "BYTES" else [given]
            return type_map.python_values_to_proto_values(column, ValueType[dtype])[
                0
            ].SerializeToString()

        @staticmethod
        def read(message, dtype):
            proto = Value.FromString(message)
            return type_map.feast_value_type_to_python_type(proto, ValueType[dtype])

    return Feast


def test_every_type_of_the_plan_is_tried():
    assert set(OBJECTS) == set(get_args(ObjectType)) <= set(values)


@pytest.mark.parametrize("dtype", OBJECTS)
def test_what_feast_writes_is_read_alike_and_what_we_write_feast_reads(dtype, feast):
    @settings(max_examples=20, deadline=None)
    @given(values[dtype])
    def check(value):
        written = feast.write(value, dtype)
        wanted = feast.read(written, dtype)
        assert shown(decode_object(written, dtype, "f")) == shown(wanted)
        if dtype == "ZONED_TIMESTAMP":
            ours = encode_objects(
                pa.chunked_array([[value]], pa.timestamp("us", str(value.tzinfo))), dtype
            )[0]
        else:
            ours = encode_object(value, dtype)
        assert shown(feast.read(ours, dtype)) == shown(wanted)
        assert shown(decode_object(ours, dtype, "f")) == shown(wanted)
        if "MAP" not in dtype and "STRUCT" not in dtype and not dtype.endswith("_SET"):
            assert ours == written

    check()


def column(values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


def test_times_of_any_unit_become_whole_seconds_rounded_down_as_in_feast(feast):
    wanted = [feast.write(n, "UNIX_TIMESTAMP") for n in (-2, 1, 0)]
    for unit, size in (("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)):
        ticks = [-2 * size + size // 2, size + size // 3, 0, None]
        encoded = encode_objects(column(ticks, pa.timestamp(unit, "UTC")), "UNIX_TIMESTAMP")
        assert encoded == [*wanted, b""]
    days = encode_objects(column([date(1970, 1, 2)]), "UNIX_TIMESTAMP")
    assert days == [feast.write(86_400, "UNIX_TIMESTAMP")]
    lists = column([[1_500_000_000, None], None], pa.list_(pa.timestamp("ns")))
    decoded = [
        decode_object(m, "UNIX_TIMESTAMP_LIST", "f")
        for m in encode_objects(lists, "UNIX_TIMESTAMP_LIST")
    ]
    assert decoded == [[datetime.fromtimestamp(1, UTC), None], None]


@pytest.mark.parametrize(
    ("zone", "name"), [("Asia/Kolkata", "Asia/Kolkata"), ("-07:00", "UTC-07:00"), (None, "UTC")]
)
def test_a_zoned_time_keeps_its_zone(zone, name):
    message = encode_objects(column([0, None], pa.timestamp("s", zone)), "ZONED_TIMESTAMP")
    moment = decode_object(message[0], "ZONED_TIMESTAMP", "f")
    assert (moment.timestamp(), str(moment.tzinfo), message[1]) == (0, name, b"")


def test_arrow_maps_and_structs_are_written_as_maps():
    pairs = column([[("a", 1), ("b", None)]], pa.map_(pa.string(), pa.int64()))
    assert decode_object(encode_objects(pairs, "MAP")[0], "MAP", "f") == {"a": 1, "b": None}
    numbered = column([[(5, "x")]], pa.map_(pa.int64(), pa.string()))
    assert decode_object(encode_objects(numbered, "SCALAR_MAP")[0], "SCALAR_MAP", "f") == {5: "x"}
    structs = column([{"a": [], "b": [{"c": 1.5}]}])
    read = decode_object(encode_objects(structs, "STRUCT")[0], "STRUCT", "f")
    assert read == {"a": [], "b": [{"c": 1.5}]}


def test_an_empty_list_inside_a_list_stays_one():
    written = encode_object([[1], [], None], "VALUE_LIST")
    assert decode_object(written, "VALUE_LIST", "f") == [[1], [], None]


@pytest.mark.parametrize(
    ("values", "dtype", "sentence"),
    [
        ([5], "STRING", r"feature views\.f = 5 is no STRING"),
        ([["a", None]], "STRING_LIST", "is no STRING_LIST"),
        ([[1, None]], "INT64_LIST", "None is no whole number"),
        ([[1 << 40]], "INT32_LIST", "1099511627776 does not fit INT32"),
        (["{"], "JSON", "is no JSON"),
        (["x"], "UUID", "badly formed"),
        (["x"], "DECIMAL", "is no DECIMAL"),
        (["text"], "STRING_LIST", "write a list, not str"),
        ([[1]], "MAP", "write a mapping, not list"),
        ([5], "ZONED_TIMESTAMP", "must be a timestamp"),
    ],
)
def test_a_value_of_another_type_is_named(values, dtype, sentence):
    with pytest.raises(SchemaMismatch, match=sentence):
        encode_objects(column(values), dtype, "views.f")


@given(st.sampled_from(OBJECTS), st.binary(min_size=1, max_size=24))
def test_any_bytes_are_a_value_or_broken(dtype, message):
    with contextlib.suppress(StoredValueBroken):
        decode_object(message, dtype, "f")


def test_a_value_cut_short_is_broken():
    message = encode_object({"a": ["x", "y"]}, "MAP")
    for length in range(1, len(message)):
        with pytest.raises(StoredValueBroken):
            decode_object(message[:length], "MAP", "f")


def test_a_value_of_another_type_is_broken():
    with pytest.raises(StoredValueBroken, match="feature f is no BYTES"):
        decode_object(encode_object("x", "STRING"), "BYTES", "f")
    text = "6f1d1d2e-0000-4000-8000-000000000001"
    assert decode_object(encode_object(text, "STRING"), "UUID", "f") == UUID(text)
