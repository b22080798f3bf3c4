from datetime import UTC, datetime, time
from decimal import Decimal

import pyarrow as pa
import pytest

from featurestore.join.fingerprint import fingerprint

PAIRS = [[("a", 1)], None, [], [("b", 2), ("c", None)]]
COLUMNS = {
    "numbers": pa.array([1.5, None, float("nan"), -0.0]),
    "booleans": pa.array([True, None, False, True]),
    "text": pa.array(["a", None, "", "b"]),
    "bytes": pa.array([b"x", None, b"", b"yy"]),
    "times": pa.array([datetime(2020, 1, 1, tzinfo=UTC), None, None, None]),
    "hours": pa.array([time(1, 2), None, None, None]),
    "decimals": pa.array([Decimal("1.5"), None, None, Decimal("2.25")]),
    "nothing": pa.nulls(4),
    "lists": pa.array([[1, 2], None, [], [None]]),
    "maps": pa.array(PAIRS, pa.map_(pa.string(), pa.int32())),
    "structs": pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}, {"a": 4, "b": []}]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_it_does_not_depend_on_how_a_column_is_stored(name):
    table = pa.table({name: COLUMNS[name]})
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1)])
    assert fingerprint(pieces) == fingerprint(table)
    tail = [table.slice(1, 2), table.slice(3)]
    assert fingerprint(pa.concat_tables(tail)) == fingerprint(table.slice(1))


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_strings_of_any_storage_are_the_same(kind):
    text = COLUMNS["text"]
    assert fingerprint(pa.table({"t": text.cast(kind)})) == fingerprint(pa.table({"t": text}))


def test_every_change_of_content_shows():
    tables = [
        {"x": pa.array([1, 2, None])},
        {"x": pa.array([1, 2, 0])},
        {"x": pa.array([1, None, 2])},
        {"x": pa.array([2, 1, None])},
        {"x": pa.array([1, 2])},
        {"y": pa.array([1, 2, None])},
        {"x": pa.array([1, 2, None], pa.int32())},
        {"x": pa.array(["1", "2", None])},
        {"x": pa.array(["12", "", None])},
        {"x": pa.array([["1"], ["2"], None])},
        {"x": pa.array([["1", "2"], [], None])},
    ]
    assert len({fingerprint(pa.table(columns)) for columns in tables}) == len(tables)


def test_what_lies_under_a_null_does_not_count():
    data = pa.array([7, 8, 9]).buffers()[1]
    hidden = pa.Array.from_buffers(pa.int64(), 3, [pa.py_buffer(b"\x05"), data])
    assert hidden.to_pylist() == [7, None, 9]
    assert fingerprint(pa.table({"x": hidden})) == fingerprint(pa.table({"x": [7, None, 9]}))
