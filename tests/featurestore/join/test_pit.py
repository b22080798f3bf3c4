import math
import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.join.pit import NullReason, latest_values, point_in_time_join
from headrace.errors import SchemaMismatch
from headrace.plan import FeatureRead, JoinKey, ViewRead

START = datetime(2013, 1, 1, tzinfo=UTC)
TIMESTAMP = pa.timestamp("us", tz="UTC")


def x_of(joined):
    return [None if math.isnan(x) else x for x in joined.columns["hourly__x"]]


def reasons_of(joined):
    return [NullReason(r).name for r in joined.reasons]


def test_each_row_gets_the_latest_value_known_at_its_time(read, values, asked):
    known = values(("JFK", 0, 0, 1.0), ("JFK", 10, 10, 2.0), ("LGA", 5, 5, 3.0))
    rows = asked(("JFK", 9), ("LGA", 9), ("JFK", 10), ("JFK", 11), ("JFK", 9))
    assert x_of(point_in_time_join(rows, known, read(), timestamp="at")) == [1, 3, 2, 2, 1]


def test_a_value_at_exactly_the_ttl_is_used_and_one_just_older_is_expired(read, values, asked):
    rows = asked(("JFK", 60), ("JFK", 60.0001))
    joined = point_in_time_join(rows, values(("JFK", 0, 0, 1.0)), read(), timestamp="at")
    assert x_of(joined) == [1, None]
    assert reasons_of(joined) == ["PRESENT", "EXPIRED"]
    assert np.isnat(joined.event_times).tolist() == [False, True]


def test_without_a_ttl_any_age_is_used(read, values, asked):
    known = values(("JFK", 0, 0, 1.0))
    rows = asked(("JFK", 10_000_000))
    assert x_of(point_in_time_join(rows, known, read(ttl_minutes=None), timestamp="at")) == [1]


def test_a_late_write_does_not_hide_an_older_value_written_in_time(read, values, asked):
    known = values(("JFK", 0, 0, 1.0), ("JFK", 10, 30, 2.0))
    rows = asked(("JFK", 20), ("JFK", 30))
    assert x_of(point_in_time_join(rows, known, read(), timestamp="at")) == [1, 2]


def test_an_older_value_written_later_does_not_replace_a_newer_one(read, values, asked):
    known = values(("JFK", 10, 10, 2.0), ("JFK", 0, 30, 1.0))
    assert x_of(point_in_time_join(asked(("JFK", 40)), known, read(), timestamp="at")) == [2]


def test_of_equal_event_times_the_last_created_wins_and_then_the_last_row(read, values, asked):
    known = values(("JFK", 0, 5, 1.0), ("JFK", 0, 9, 2.0), ("JFK", 0, 9, 3.0), ("JFK", 0, 7, 4.0))
    rows = asked(("JFK", 8), ("JFK", 10))
    assert x_of(point_in_time_join(rows, known, read(), timestamp="at")) == [4, 3]


def test_the_reason_tells_why_a_row_has_no_value(read, values, asked):
    known = values(("JFK", 10, 30, 1.0), (None, 0, 0, 9.0))
    rows = asked(("JFK", 5), ("JFK", 20), ("JFK", 30), ("LGA", 30), (None, 30))
    joined = point_in_time_join(rows, known, read(), timestamp="at")
    expected = ["FUTURE", "WRITTEN_LATE", "PRESENT", "NEVER_SEEN", "NULL_KEY"]
    assert reasons_of(joined) == expected


def test_a_null_feature_of_a_present_value_is_nan(read, values, asked):
    known = values(("JFK", 0, 0, None))
    joined = point_in_time_join(asked(("JFK", 1)), known, read(), timestamp="at")
    assert x_of(joined) == [None]
    assert reasons_of(joined) == ["PRESENT"]


def test_empty_tables_join_to_nothing_and_to_nulls(read, values, asked):
    assert (
        x_of(point_in_time_join(asked(), values(("JFK", 0, 0, 1.0)), read(), timestamp="at")) == []
    )
    assert x_of(point_in_time_join(asked(("JFK", 0)), values(), read(), timestamp="at")) == [None]


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("ns", tz="UTC"), pa.string()])
def test_a_timestamp_that_is_not_utc_microseconds_is_refused(read, values, asked, kind):
    rows = asked(("JFK", 0))
    rows = rows.set_column(1, "at", rows["at"].cast(kind))
    with pytest.raises(SchemaMismatch, match=r"at is .*, but must be timestamp"):
        point_in_time_join(rows, values(("JFK", 0, 0, 1.0)), read(), timestamp="at")


def test_a_null_timestamp_is_refused(read, values):
    rows = pa.table({"origin": ["JFK"], "at": pa.array([None], TIMESTAMP)})
    with pytest.raises(SchemaMismatch, match="at is null in 1 rows"):
        point_in_time_join(rows, values(("JFK", 0, 0, 1.0)), read(), timestamp="at")


def test_a_key_of_another_type_is_refused(read, values, asked):
    keys = (JoinKey(name="origin", dtype="INT64"),)
    with pytest.raises(SchemaMismatch, match="key origin is string, but must be int64"):
        point_in_time_join(asked(("JFK", 0)), values(), read(keys=keys), timestamp="at")


def test_missing_columns_are_named(read, values, asked):
    known = values(("JFK", 0, 0, 1.0)).drop_columns(["x"])
    with pytest.raises(SchemaMismatch, match=r"columns \['x'\] are missing"):
        point_in_time_join(asked(("JFK", 0)), known, read(), timestamp="at")


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_keys_may_be_stored_as_any_kind_of_string(read, values, asked, kind):
    rows = asked(("JFK", 1), (None, 1))
    rows = rows.set_column(0, "origin", rows["origin"].cast(kind))
    known = values(("JFK", 0, 0, 1.0))
    assert x_of(point_in_time_join(rows, known, read(), timestamp="at")) == [1, None]


# Few distinct moments, keys and times of writing, so that ties and late writes are common.
MOMENT = st.integers(0, 12)
KEY = st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, None]))
VALUE = st.tuples(KEY, MOMENT, st.integers(-2, 6), st.sampled_from([0.0, 1.5, None, math.nan]))
ASKED = st.tuples(KEY, MOMENT)
KEYS = (JoinKey(name="name"), JoinKey(name="number", dtype="INT64"))


def key_columns(keys, swap):
    columns = {
        "name": pa.array([k[0] for k in keys], pa.string()),
        "number": pa.array([k[1] for k in keys], pa.int64() if swap else pa.int32()),
    }
    return dict(reversed(columns.items())) if swap else columns


def clock(minutes):
    return pa.array([START + timedelta(minutes=m) for m in minutes], TIMESTAMP)


def one_read(ttl):
    return ViewRead(
        view="v",
        table="v",
        join_keys=KEYS,
        event_timestamp="event",
        created_timestamp="created",
        ttl_seconds=None if ttl is None else ttl * 60,
        features=(
            FeatureRead(name="position", dtype="INT64"),
            FeatureRead(name="x", dtype="FLOAT"),
        ),
    )


def values_table(values):
    return pa.table(
        key_columns([v[0] for v in values], swap=True)
        | {
            "event": clock(v[1] for v in values),
            "created": clock(v[1] + v[2] for v in values),
            "position": pa.array(range(len(values)), pa.int64()),
            "x": pa.array([v[3] for v in values], pa.float32()),
        }
    )


def oracle(key, at, values, ttl):
    """The rule, said as plainly as it can be: position of the value and the reason."""
    if None in key:
        return None, NullReason.NULL_KEY
    mine = [(v, i) for i, v in enumerate(values) if v[0] == key]
    if not mine:
        return None, NullReason.NEVER_SEEN
    known = [(v[1], v[1] + v[2], i) for v, i in mine if v[1] <= at and v[1] + v[2] <= at]
    if not known:
        late = any(v[1] <= at for v, _ in mine)
        return None, NullReason.WRITTEN_LATE if late else NullReason.FUTURE
    event, _, position = max(known)
    if ttl is not None and at - event > ttl:
        return None, NullReason.EXPIRED
    return position, NullReason.PRESENT


TABLES = {
    "values": st.lists(VALUE, max_size=25),
    "rows": st.lists(ASKED, max_size=12),
    "ttl": st.sampled_from([None, 0.5, 2, 5]),
}
MANY_KEYS = st.tuples(st.sampled_from([*"abcdefgh", None]), st.integers(1, 40))
LARGE_TABLES = {
    "values": st.lists(st.tuples(MANY_KEYS, *[MOMENT] * 2, st.floats(width=32)), max_size=120),
    "rows": st.lists(st.tuples(MANY_KEYS, st.integers(-2, 30)), max_size=40),
    "ttl": st.sampled_from([None, 0.5, 2, 5]),
}


@settings(max_examples=300, deadline=None)
@given(**TABLES)
def test_the_join_agrees_with_a_double_loop(values, rows, ttl):
    check_against_the_oracle(values, rows, ttl)


@pytest.mark.soak
@settings(max_examples=2_000, deadline=None)
@given(**TABLES)
def test_the_join_agrees_with_a_double_loop_on_2000_tables(values, rows, ttl):
    check_against_the_oracle(values, rows, ttl)


@pytest.mark.soak
@settings(max_examples=500, deadline=None)
@given(**LARGE_TABLES)
def test_the_join_agrees_with_a_double_loop_on_many_keys(values, rows, ttl):
    check_against_the_oracle(values, rows, ttl)


@settings(max_examples=60, deadline=None)
@given(**TABLES)
def test_without_a_created_column_values_are_known_at_their_event_time(values, rows, ttl):
    at_once = [(key, event, 0, x) for key, event, _, x in values]
    table = values_table(at_once).drop_columns(["created"])
    read = one_read(ttl).model_copy(update={"created_timestamp": None})
    check_against_the_oracle(at_once, rows, ttl, table=table, read=read)


def check_against_the_oracle(values, rows, ttl, *, table=None, read=None):
    asked = pa.table(
        key_columns([r[0] for r in rows], swap=False) | {"at": clock(r[1] for r in rows)}
    )
    known = values_table(values) if table is None else table
    joined = point_in_time_join(asked, known, read or one_read(ttl), timestamp="at")
    assert len(joined.reasons) == len(rows)
    assert sum(joined.counts.values()) == len(rows)
    for i, (key, at) in enumerate(rows):
        position, reason = oracle(key, at, values, ttl)
        got = joined.columns["v__position"][i]
        assert (None if math.isnan(got) else got) == position
        assert joined.reasons[i] == reason
        x = None if position is None else values[position][3]
        np.testing.assert_equal(joined.columns["v__x"][i], math.nan if x is None else x)
        if position is not None:
            assert values[position][1] <= at  # nothing true or written later
            assert values[position][1] + values[position][2] <= at


@settings(max_examples=150, deadline=None)
@given(values=st.lists(VALUE, max_size=25))
def test_latest_values_are_the_last_by_event_created_and_position(values):
    best = {}
    for i, (key, event, lag, _) in enumerate(values):
        if None not in key:
            best[key] = max(best.get(key, (-1, -100, -1)), (event, event + lag, i))
    found = latest_values(values_table(values), one_read(None))
    assert found.tolist() == sorted(i for _, _, i in best.values())


@settings(max_examples=50, deadline=None)
@given(values=st.lists(VALUE, max_size=20), rows=st.lists(ASKED, max_size=8), data=st.data())
def test_the_order_of_rows_does_not_matter_and_chunks_do_not_either(values, rows, data):
    table = pa.table(
        key_columns([r[0] for r in rows], swap=False) | {"at": clock(r[1] for r in rows)}
    )
    order = data.draw(st.permutations(range(len(rows))))
    whole = point_in_time_join(table, values_table(values), one_read(3), timestamp="at")
    pieces = pa.concat_tables([table.slice(0, 0), table.take(pa.array(order, pa.int64()))])
    shuffled = point_in_time_join(pieces, values_table(values), one_read(3), timestamp="at")
    expected = whole.columns["v__position"][list(order)] if order else np.empty(0)
    np.testing.assert_equal(shuffled.columns["v__position"], expected)


def test_a_join_makes_no_warnings_on_extreme_numbers(read, values, asked):
    known = values(("JFK", 0, 0, 1e308), ("LGA", 0, 0, -math.inf))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        joined = point_in_time_join(asked(("JFK", 1), ("LGA", 1)), known, read(), timestamp="at")
    assert x_of(joined) == [1e308, -math.inf]
