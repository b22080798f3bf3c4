import math

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from featurestore.stores.encode import entity_keys, messages, timestamps
from featurestore.wire.entity_key import EntityKeyWriter
from headrace.errors import SchemaMismatch
from headrace.plan import FeatureRead, JoinKey

EDGES = {
    "DOUBLE": ("double_val", pa.float64(), [0.0, -0.0, 1.5, -1e300, math.nan, math.inf, None]),
    "FLOAT": ("float_val", pa.float32(), [0.0, 1.5, -2.5, math.nan, None]),
    "INT64": ("int64_val", pa.int64(), [0, 1, 127, 128, 16_383, 16_384, -1, -(2**63), None]),
    "INT32": ("int32_val", pa.int32(), [0, 5, -5, 2**31 - 1, -(2**31), None]),
    "BOOL": ("bool_val", pa.bool_(), [True, False, None]),
}


@pytest.mark.parametrize("dtype", EDGES)
def test_columns_of_numbers_are_the_messages_that_feast_writes(dtype):
    from feast.protos.feast.types.Value_pb2 import Value

    field, kind, values = EDGES[dtype]
    wanted = [b"" if v is None else Value(**{field: v}).SerializeToString() for v in values]
    rows = pa.table({"x": pa.array(values, kind)})
    assert messages(rows, "t", FeatureRead(name="x", dtype=dtype)).to_pylist() == wanted


def test_no_rows_make_no_messages():
    rows = pa.table({"x": pa.array([], pa.int64())})
    for dtype in ("INT64", "DOUBLE", "BOOL"):
        empty = rows.cast(pa.schema({"x": pa.bool_() if dtype == "BOOL" else pa.int64()}))
        assert len(messages(empty, "t", FeatureRead(name="x", dtype=dtype))) == 0
    assert len(timestamps(np.array([], dtype=np.int64))) == 0


def test_keys_of_several_columns_are_the_bytes_of_single_keys():
    keys = (
        JoinKey(name="origin"),
        JoinKey(name="gate", dtype="INT64"),
        JoinKey(name="hall", dtype="INT32"),
    )
    entities = [("JFK", 1, -2), ("", -(2**63), 7), ("Zürich" * 20, 2**63 - 1, 0)]
    columns = dict(zip(("origin", "gate", "hall"), zip(*entities, strict=True), strict=True))
    writer = EntityKeyWriter(keys)
    assert entity_keys(pa.table(columns), view(keys)).to_pylist() == [
        writer.write(entity) for entity in entities
    ]


def view(keys):
    from headrace.plan import ViewRead

    return ViewRead(
        view="v", table="t", join_keys=keys, event_timestamp="e", created_timestamp="c",
        ttl_seconds=None, features=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pa.array(["a", None]), "key k is null in 1 rows"),
        (pa.array([1, 2]), "key k is int64, but must be large_string"),
    ],
)
def test_a_key_that_cannot_be_one_is_named(column, problem):
    with pytest.raises(SchemaMismatch, match=problem):
        entity_keys(pa.table({"k": column}), view((JoinKey(name="k"),)))


@pytest.mark.parametrize("us", [0, 1, 999_999, 1_000_000, 1_357_000_000_123_456, -1, -1_500_000])
def test_a_time_is_a_protobuf_timestamp(us):
    stamp = Timestamp()
    stamp.FromMicroseconds(us)
    assert timestamps(np.array([us])).to_pylist() == [stamp.SerializeToString()]
