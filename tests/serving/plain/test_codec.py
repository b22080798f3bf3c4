"""What may be asked, what comes back, and that the quick way and the full one agree."""

import json
import math
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tries
from hypothesis import strategies as st

from headrace.errors import HeadraceError
from serving.errors import BodyRefused, BodyTooLarge, FieldsRefused, ModelNotServed
from serving.http.codec import Head
from serving.plain.asked import SingleQuery

HEAD = Head("/api/v1/infer")
RAW = [71.5, 12.0, 178.0, 2475.0, 8.0]


@pytest.fixture
def wanted(booster):
    """What the model answers for raw features."""

    def predict(*rows):
        matrix = np.array([[np.nan if v is None else v for v in row] for row in rows], np.float32)
        return booster().inplace_predict(matrix).tolist()

    return predict


@pytest.fixture
def columns(repository):
    return repository.served().predictor.columns


def test_rows_of_keys_are_answered_in_order_with_what_was_found(infer, instance, wanted, store):
    body = infer({"instances": [instance(), instance(origin="XXX")]})
    assert body | {"predictions": ...} == {
        "model": "flight_delay",
        "digest": store.digests[0],
        "revision": 1,
        "request_id": "r1",
        "degraded": False,
        "cached": False,
        "predictions": ...,
    }
    first, second = body["predictions"]
    assert [first["prediction"], second["prediction"]] == wanted(RAW, [None, None, *RAW[2:]])
    assert first["features"] == {"weather": "present", "planes": "present"}
    assert second["features"] == {"weather": "never_seen", "planes": "present"}


def test_a_row_that_is_asked_alone_is_answered_alone(infer, instance, wanted):
    body = infer({"instance": instance()})
    assert "predictions" not in body
    assert [body["prediction"]] == wanted(RAW)
    assert body["features"] == {"weather": "present", "planes": "present"}


def test_raw_features_are_taken_by_name_and_in_declared_order(infer, columns, wanted):
    gaps = [None, *RAW[1:]]
    listed = infer({"features": [RAW, gaps]})["predictions"]
    named = infer({"features": [dict(zip(columns, row, strict=True)) for row in (RAW, gaps)]})
    assert listed == named["predictions"]
    assert [row["prediction"] for row in listed] == wanted(RAW, gaps)
    assert listed[0]["features"] == {}


def test_what_a_row_brings_wins_over_what_is_read(infer, instance, wanted):
    brings = {"weather__temperature": 30, "planes__seats": None}
    rows = [instance(features=brings), instance()]
    body = infer({"instances": rows})
    found = [row["prediction"] for row in body["predictions"]]
    assert found == wanted([30, 12.0, None, 2475.0, 8.0], RAW)


def test_a_row_that_brings_every_column_needs_nothing_else_and_reads_nothing(
    infer, repository, columns, wanted
):
    repository.served().reader.fails = HeadraceError("nobody asks")
    brings = dict(zip(columns, RAW, strict=True))
    body = infer({"instances": [{"features": brings}, {"features": brings, "origin": "JFK"}]})
    assert [row["prediction"] for row in body["predictions"]] == wanted(RAW, RAW)


def test_the_endpoint_may_be_named_and_another_one_is_not_here(infer, codec, instance):
    assert infer({"model": "flight_delay", "instance": instance()})["model"] == "flight_delay"
    with pytest.raises(ModelNotServed, match="model 'arrivals' is not served here"):
        codec.decode(json.dumps({"model": "arrivals", "instances": []}).encode(), HEAD)


REFUSED = {
    "two forms": ({"instances": [{}], "features": [[]]}, "'instances' and 'features'"),
    "a misspelt form": ({"instanzes": []}, "did you mean 'instances'?"),
    "a number for the model": ({"model": 7, "features": [RAW]}, "'model' = 7 is a whole number"),
    "no rows": ({"features": []}, "'features' is empty"),
    "a short list": ({"features": [RAW, RAW[:3]]}, "row 1 has 3 values; write 5"),
    "a row that is a number": ({"features": [5]}, "row 0 has 5; write an object or a list"),
    "text for a number": (
        {"features": [[*RAW[:4], "8"]]},
        'scheduled_hour = "8", text; write a number, like 2475.0, or null',
    ),
    "true for a number": ({"features": [[True, *RAW[1:]]]}, "weather__temperature = true, a bool"),
    "beyond a float": ({"features": [[1e39, *RAW[1:]]]}, "= 1e39, beyond a 32-bit float"),
    "a huge integer": ({"features": [[10**300, *RAW[1:]]]}, "beyond a 32-bit float"),
    "a missing column": (
        {"features": [{"weather__temperature": 1}]},
        "row 0 has no value of 'weather__wind_speed'; write it, null where it is missing",
    ),
    "a misspelt column": (
        {"instances": [{"features": {"weather__temperatur": 1}}]},
        "did you mean 'weather__temperature'?",
    ),
    "a list beside keys": ({"instances": [{"features": RAW}]}, "write {column: value, ...}"),
    "a wrong number beside keys": (
        {"instances": [{"features": {"planes__seats": "many"}}]},
        'features.planes__seats = "many", text',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_body_is_told_row_field_and_remedy(codec, case):
    asked, said = REFUSED[case]
    with pytest.raises(FieldsRefused) as refused:
        codec.decode(json.dumps(asked).encode(), HEAD)
    assert said in str(refused.value)


def test_fields_beside_a_full_set_of_columns_must_fit_too(codec, columns):
    row = {"features": dict(zip(columns, RAW, strict=True)), "origin": 7, "orgin": "JFK"}
    with pytest.raises(FieldsRefused) as refused:
        codec.decode(json.dumps({"instance": row}).encode(), HEAD)
    assert {problem.field for problem in refused.value.problems} == {"origin", "orgin"}


def test_a_problem_is_told_with_its_value_and_remedy(codec):
    with pytest.raises(FieldsRefused) as refused:
        codec.decode(b'{"features": [["x", 1, 1, 1, 1]]}', HEAD)
    error = json.loads(codec.encode_error(refused.value, "r1"))
    assert error["request_id"] == "r1"
    assert error["problems"] == [
        {
            "row": 0,
            "field": "weather__temperature",
            "value": '"x"',
            "message": error["error"],
            "remedy": "write a number, like 2475.0, or null where it is missing",
        }
    ]


def test_more_rows_than_the_limit_are_refused_by_either_way(codec, columns):
    for row in (RAW, dict(zip(columns, RAW, strict=True))):
        with pytest.raises(BodyTooLarge, match="51 rows"):
            codec.decode(json.dumps({"features": [row] * 51}).encode(), HEAD)


def test_a_body_of_unknown_names_is_refused_in_little_time(codec):
    row = {"features": {f"feature_{n}": n for n in range(300)} | {"x" * 100_000: 1}}
    body = json.dumps({"instances": [row | {"n": n} for n in range(50)]}).encode()
    begun = time.process_time()
    with pytest.raises(FieldsRefused):
        codec.decode(body, HEAD)
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    "body",
    [
        b'{"instance": {"origin": "JFK", "origin": "LGA", "tailnum": "N1", '
        b'"scheduled_departure": "2013-08-01T12:00:00Z", "distance_miles": 1}}',
        b'{"features": [[1,2,3,4,5]], "features": [[1,2,3,4,6]]}',
        b'{"features": [[1,2,3,4,5]], "\\u0066eatures": [[1,2,3,4,6]]}',
        b'{"features": [{"weather__temperature": 1, "weather__wind_speed": 2, "planes__seats": 3,'
        b'"distance_miles": 4, "scheduled_hour": 5, "scheduled_hour": null}]}',
        b'{"instance": {"origin": null, "origin": "JFK", "tailnum": null, '
        b'"scheduled_departure": "2013-08-01T12:00:00Z", "distance_miles": 1}}',
    ],
)
def test_a_key_that_is_there_twice_is_refused_by_the_quick_way_too(codec, body):
    with pytest.raises(BodyRefused, match="is there twice"):
        codec.decode(body, HEAD)


NUMBERS = st.none() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | st.sampled_from([1e39])
ODD = st.sampled_from([None, True, "x", "2475", [], {}, -1, 10_001, 2**70, "2013-08-01", '"', "é"])


@st.composite
def bodies(draw):
    """Mostly good bodies of all forms, with one odd value here and there."""
    columns = [
        "weather__temperature",
        "weather__wind_speed",
        "planes__seats",
        "distance_miles",
        "scheduled_hour",
    ]
    good = {
        "origin": st.sampled_from(["JFK", "LGA", 'J"K', "Zürich", "a\nb", None]),
        "tailnum": st.text(max_size=6) | st.none(),
        "scheduled_departure": st.sampled_from(
            ["2013-08-01T12:00:00Z", "2013-08-01T08:00:00-04:00", "2013-08-01T12:00:00"]
        ),
        "distance_miles": st.integers(0, 10_000) | st.floats(0, 10_000),
    }
    keyed = st.fixed_dictionaries(good)
    raw = st.lists(NUMBERS, min_size=5, max_size=5)
    form = draw(st.sampled_from(["instances", "instance", "features", "named"]))
    if form == "instance":
        document = {"instance": draw(keyed)}
    elif form == "instances":
        document = {"instances": draw(st.lists(keyed, min_size=1, max_size=3))}
    else:
        rows = draw(st.lists(raw, min_size=1, max_size=3))
        if form == "named":
            rows = [dict(zip(columns, row, strict=True)) for row in rows]
        document = {"features": rows}
    if draw(st.integers(0, 3)) == 0:
        (rows,) = document.values()
        row = rows[-1] if isinstance(rows, list) else rows
        place = draw(st.sampled_from(sorted(row) if isinstance(row, dict) else range(len(row))))
        row[place] = draw(ODD)
    return json.dumps(document, ensure_ascii=draw(st.booleans())).encode()


def seen(query):
    """What a query will make the model see, or why it will not."""
    if query.features is not None:
        return [None if v is None or math.isnan(v) else float(v) for v in query.features]
    try:
        rows = query.model.schema.rows(query.instances)
    except FieldsRefused as error:
        return [problem.message for problem in error.problems]
    return rows.keys, {n: c.tolist() for n, c in rows.request.items()}, rows.at.tolist()


@tries(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(bodies())
def test_the_quick_way_gives_what_the_full_decoder_gives(codec, repository, body):
    def full():
        return codec.read_fully(body).query("plain", HEAD)

    model = repository.served()
    quick = codec._form(model).usual.read(body, model)
    if quick is None:
        return
    query, wanted = quick.query("plain", HEAD), full()
    assert (type(query) is SingleQuery) == (type(wanted) is SingleQuery)
    assert (query.rows, query.overrides) == (wanted.rows, None)
    assert (query.features is None) == (wanted.features is None)
    assert seen(query) == seen(wanted)


def test_the_usual_bodies_go_the_quick_way(codec, repository, instance, columns):
    model = repository.served()
    usual = codec._form(model).usual
    for document in (
        {"instances": [instance(), instance(distance_miles=1.5)]},
        {"instance": instance()},
        {"features": [RAW]},
        {"features": [dict.fromkeys(columns)]},
    ):
        assert usual.read(json.dumps(document).encode(), model) is not None


def test_another_release_has_other_words(codec, repository, instance, store):
    def head():
        query = codec.decode(json.dumps({"instance": instance()}).encode(), HEAD)
        return codec.wording(query.model)._head

    before = head()
    store.release(store.bundle(seed=5))
    repository.look()
    assert store.digests[0].encode() in before
    assert store.digests[1].encode() in head()
