import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from featurestore.push.incoming import (
    RowsRefused,
    bad_rows,
    checked_rows,
    view_schema,
)
from featurestore.push.json_rows import rows_of_events
from headrace.errors import SchemaMismatch
from headrace.plan import FeatureRead, JoinKey

NOW = datetime(2013, 1, 2, tzinfo=UTC)
FEATURES = (
    FeatureRead(name="x", dtype="DOUBLE"),
    FeatureRead(name="count", dtype="INT64"),
    FeatureRead(name="open", dtype="BOOL"),
    FeatureRead(name="tags", dtype="STRING_LIST"),
)
GOOD = {
    "origin": "JFK",
    "event_timestamp": "2013-01-01T07:00:00-05:00",
    "created_timestamp": "2013-01-01T12:01:00.25+00:00",
    "x": 1,
    "count": 7,
    "open": True,
    "tags": ["a", "b"],
}


@pytest.fixture
def view(read):
    return read(features=FEATURES)


@pytest.fixture
def event_rows(view):
    def parse(*events):
        texts = [e if isinstance(e, bytes) else json.dumps(e).encode() for e in events]
        return rows_of_events(view, texts, view_schema(view), now=NOW)

    return parse


def test_the_schema_of_a_view_is_what_its_definition_says(view):
    types = dict(zip(view_schema(view).names, view_schema(view).types, strict=True))
    assert types == {
        "origin": pa.string(),
        "event_timestamp": pa.timestamp("us", "UTC"),
        "created_timestamp": pa.timestamp("us", "UTC"),
        "x": pa.float64(),
        "count": pa.int64(),
        "open": pa.bool_(),
        "tags": pa.list_(pa.string()),
    }


def test_a_type_without_one_arrow_type_asks_for_a_table(read):
    view = read(features=(FeatureRead(name="m", dtype="MAP"),))
    with pytest.raises(SchemaMismatch, match="write its first rows as a table"):
        view_schema(view)


def test_events_become_rows(event_rows):
    rows, positions, bad = event_rows(GOOD, GOOD | {"x": None, "tags": None})
    assert (positions, bad) == ([0, 1], [])
    first, second = rows.to_pylist()
    assert first["event_timestamp"] == datetime(2013, 1, 1, 12, tzinfo=UTC)
    assert first["created_timestamp"].microsecond == 250_000
    assert (first["x"], first["tags"], second["x"]) == (1.0, ["a", "b"], None)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (b"{", "it is not JSON"),
        (b'{"x": NaN}', "NaN is no JSON"),
        (json.dumps(GOOD | {"x": 0.125}).replace("0.125", "1e999").encode(), "x = inf does not"),
        (b"[1]", "it is list, but must be an object"),
        ({k: v for k, v in GOOD.items() if k != "x"}, "x is missing; write null"),
        (GOOD | {"y": 1}, "y is no column; they are count"),
        (GOOD | {"x": "1.5"}, "x = '1.5' does not fit double"),
        (GOOD | {"x": True}, "x = True does not fit double"),
        (GOOD | {"count": 1.5}, "count = 1.5 does not fit int64"),
        (GOOD | {"count": 1 << 64}, "does not fit int64"),
        (GOOD | {"open": 1}, "open = 1 does not fit bool"),
        (GOOD | {"origin": None}, "origin is null"),
        (GOOD | {"tags": [1]}, "tags = [1] does not fit list"),
        (GOOD | {"tags": "a"}, "tags = 'a' does not fit list"),
        (GOOD | {"event_timestamp": None}, "event_timestamp is null"),
        (GOOD | {"event_timestamp": "2013-01-01T12:00:00"}, "it has no time zone"),
        (GOOD | {"event_timestamp": 1357041600}, "does not fit timestamp[us, tz=UTC]: it is int"),
        (GOOD | {"event_timestamp": "soon"}, "event_timestamp = 'soon' does not fit"),
        (GOOD | {"created_timestamp": "2014-01-01T00:00:00Z"}, "lies in the future"),
        (b"[" * 100_000, "it is not JSON"),
        (b"\xff", "it is not JSON"),
    ],
)
def test_a_bad_event_is_named_and_the_good_ones_beside_it_are_kept(event_rows, event, reason):
    rows, positions, bad = event_rows(GOOD, event, GOOD)
    assert positions == [0, 2]
    assert rows.num_rows == 2
    assert bad[0].row == 1
    assert reason in bad[0].reason


def test_a_clock_that_is_a_little_ahead_is_borne_with(event_rows):
    moment = (NOW + timedelta(minutes=4)).isoformat()
    assert event_rows(GOOD | {"event_timestamp": moment})[1] == [0]


def test_a_table_is_cast_to_the_views_types(read, values):
    rows = values(("JFK", 0, 0, 1.0)).drop_columns(["x"])
    rows = rows.append_column("x", pa.array([3], pa.int32()))
    nanoseconds = rows["event_timestamp"].cast(pa.timestamp("ns", "America/New_York"))
    rows = rows.set_column(1, "event_timestamp", nanoseconds)
    checked = checked_rows(read(), rows, view_schema(read()), now=NOW)
    assert checked.schema == view_schema(read())
    assert checked["x"].to_pylist() == [3.0]


@pytest.mark.parametrize(
    ("column", "values_", "sentence"),
    [
        ("x", pa.array(["1"]), "x is string, but must be double"),
        ("x", pa.array([True]), "x is bool, but must be double"),
        ("origin", pa.array([1]), "origin is int64, but must be string"),
        (
            "event_timestamp",
            pa.array([NOW.replace(tzinfo=None)]),
            r"is timestamp\[us\], but must be timestamp\[us, tz=UTC\], with its time zone",
        ),
    ],
)
def test_a_column_of_another_kind_is_refused(read, values, column, values_, sentence):
    rows = values(("JFK", 0, 0, 1.0))
    rows = rows.set_column(rows.column_names.index(column), column, values_)
    with pytest.raises(SchemaMismatch, match=sentence):
        checked_rows(read(), rows, view_schema(read()), now=NOW)


def test_missing_and_unknown_columns_are_refused(read, values):
    rows = values(("JFK", 0, 0, 1.0))
    with pytest.raises(SchemaMismatch, match=r"\['x'\] are missing"):
        checked_rows(read(), rows.drop_columns(["x"]), view_schema(read()))
    with pytest.raises(SchemaMismatch, match=r"\['y'\] are not in table hourly"):
        checked_rows(read(), rows.append_column("y", rows["x"]), view_schema(read()))


def test_rows_that_do_not_fit_are_named_with_their_values(read, values):
    gates = read(keys=[JoinKey(name="gate", dtype="INT32")])
    rows = values(("JFK", 0, 0, 1.0), ("LGA", 0, 0, 1.0)).drop_columns(["origin"])
    rows = rows.append_column("gate", pa.array([7, 1 << 40]))
    with pytest.raises(RowsRefused, match=r"1 of 2 rows .* row 1: gate = 1099511627776 does not"):
        checked_rows(gates, rows, view_schema(gates), now=NOW)


def test_null_keys_and_times_are_bad_rows(read, values):
    rows = values(("JFK", 0, 0, 1.0), (None, 0, 0, 1.0), ("LGA", 0, 60 * 48, 1.0))
    assert bad_rows(read(), rows, now=NOW) == [
        (1, "origin is null"),
        (2, "created_timestamp = 2013-01-03T00:00:00+00:00 lies in the future"),
    ]
