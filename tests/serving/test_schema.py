import json
from datetime import UTC, timedelta, timezone

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead
from headrace.spec import RequestField
from serving.errors import FieldsRefused
from serving.schema import MOST_PROBLEMS, RequestSchema, parse_timestamp

PLAN = FeaturePlan(
    project="headrace",
    feature_service="trips",
    definitions_sha256="0" * 64,
    event_timestamp="asked_at",
    views=(
        ViewRead(
            view="trips",
            table="trips",
            join_keys=(JoinKey(name="zone", dtype="INT32"), JoinKey(name="plate")),
            event_timestamp="event_timestamp",
            created_timestamp="created_timestamp",
            ttl_seconds=None,
            features=(FeatureRead(name="fare", dtype="FLOAT"),),
        ),
    ),
    request=(
        RequestField(name="seats", dtype="int64", description="seats", at_least=1, at_most=9),
        RequestField(name="colour", dtype="string", description="colour"),
        RequestField(name="weight", description="kilograms"),
        RequestField(name="size", dtype="string", description="size", one_of=("small", "large")),
        RequestField(name="wheels", dtype="int64", description="wheels", one_of=(2, 4)),
    ),
    inputs_from_request=("seats", "weight"),
    transforms=(),
)
SCHEMA = RequestSchema(PLAN)
GOOD = {
    "zone": 7,
    "plate": "AB",
    "asked_at": "2013-08-01T12:00:00Z",
    "seats": 4,
    "colour": "red",
    "weight": 1.5,
    "size": "small",
    "wheels": 4,
}
NAMES = ["zone", "plate", "seats", "colour", "weight", "size", "wheels"]
DECODER = msgspec.json.Decoder(list[SCHEMA.row_type])
ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["small", "large", 2, 4, 2.0, 9.0, 2**31, 2**63, 10**400])
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)
)


def is_good(name, value):
    """The rules again, one value at a time and in other words."""
    number = type(value) in (int, float)
    oracle = {
        "zone": value is None or (type(value) is int and -(2**31) <= value < 2**31),
        "plate": value is None or type(value) is str,
        "seats": type(value) is int and 1 <= value <= 9,
        "colour": type(value) is str,
        "weight": number and abs(value) <= 3.4028234663852886e38,
        "size": type(value) is str and value in ("small", "large"),
        "wheels": type(value) is int and value in (2, 4),
    }
    return oracle[name]


@given(st.sampled_from(NAMES), ANYTHING)
def test_a_value_is_taken_or_refused_as_the_plain_rules_say(name, value):
    rows = [GOOD, GOOD | {name: value}]
    if is_good(name, value):
        assert len(SCHEMA.rows(rows).at) == 2
    else:
        with pytest.raises(FieldsRefused) as refused:
            SCHEMA.rows(rows)
        assert [(p.row, p.field) for p in refused.value.problems] == [(1, name)]


@given(st.sampled_from(NAMES), ANYTHING)
def test_what_the_decoder_takes_is_what_the_full_check_takes_but_for_null(name, value):
    if isinstance(value, float) and not np.isfinite(value):
        return  # JSON cannot say it
    try:
        typed = DECODER.decode(json.dumps([GOOD | {name: value}]))
    except msgspec.MsgspecError:
        assert value is None or not is_good(name, value)
        return
    assert is_good(name, value)
    given, wanted = SCHEMA.rows(typed), SCHEMA.rows([GOOD | {name: value}])
    assert given.keys == wanted.keys
    assert given.at == wanted.at
    assert {n: c.tolist() for n, c in given.request.items()} == {
        n: c.tolist() for n, c in wanted.request.items()
    }


def test_decoded_rows_and_dictionaries_may_stand_in_one_batch():
    typed = DECODER.decode(json.dumps([GOOD | {"seats": 7}]))
    rows = SCHEMA.rows([GOOD, *typed, GOOD | {"plate": None}])
    assert rows.request["seats"].tolist() == [4, 7, 4]
    assert rows.keys["plate"] == ["AB", "AB", None]


def test_a_decoded_row_with_a_wrong_moment_is_named():
    typed = DECODER.decode(json.dumps([GOOD, GOOD | {"asked_at": "noon"}]))
    with pytest.raises(FieldsRefused, match='row 1: asked_at = "noon" is not a time'):
        SCHEMA.rows(typed)


def test_an_unknown_value_is_told_the_known_ones():
    with pytest.raises(FieldsRefused, match='size = "huge" is not known; write one of "small"'):
        SCHEMA.rows([GOOD | {"size": "huge"}])


@given(
    st.datetimes().filter(lambda moment: 1 < moment.year < 9999),
    st.integers(-14 * 60, 14 * 60),
)
def test_a_time_with_a_zone_is_that_moment_in_utc(local, offset_minutes):
    moment = local.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    assert parse_timestamp(moment.isoformat()) == moment
    rows = SCHEMA.rows([GOOD | {"asked_at": moment.isoformat()}])
    assert rows.at[0] == np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def test_columns_have_the_types_that_the_offline_side_has():
    rows = SCHEMA.rows([GOOD, GOOD | {"zone": None}])
    assert rows.keys == {"zone": [7, None], "plate": ["AB", "AB"]}
    assert rows.request["seats"].dtype == rows.request["weight"].dtype == np.float64
    assert rows.request["asked_at"].dtype == rows.at.dtype == np.dtype("datetime64[us]")
    assert rows.request["colour"].tolist() == ["red", "red"]


def test_the_moment_of_prediction_is_required_even_if_the_spec_does_not_name_it():
    with pytest.raises(FieldsRefused, match="no field 'asked_at'; write a time with its zone"):
        SCHEMA.rows([{name: value for name, value in GOOD.items() if name != "asked_at"}])


def test_problems_are_listed_up_to_a_limit():
    with pytest.raises(FieldsRefused) as refused:
        SCHEMA.rows([GOOD | {"seats": 0, "weight": "heavy"}] * 1000)
    assert len(refused.value.problems) == MOST_PROBLEMS


@pytest.mark.parametrize("huge", [2**70, -(2**70) * 10**30, 10**400])
def test_a_huge_integer_beside_a_fraction_is_told_as_too_large_or_taken(huge):
    rows = [GOOD | {"weight": 1.5}, GOOD | {"weight": huge}]
    if is_good("weight", huge):
        assert SCHEMA.rows(rows).request["weight"].tolist() == [1.5, float(huge)]
    else:
        with pytest.raises(FieldsRefused, match=r"row 1: weight = .* does not fit a 32-bit float"):
            SCHEMA.rows(rows)
