import asyncio
import time

import numpy as np
import pytest

from featurestore.freshness import ReadStatus
from serving.dataplane import DataPlane
from serving.query import Computed
from serving.results.batch import Results
from serving.results.cache import ResultCache
from serving.results.records import Layout, keyed_keys, raw_keys
from serving.settings import ServerSettings
from tests.serving.plane_models import keyed_query, raw_query, served

MOMENT = np.datetime64("2013-08-01T12:00", "us")


@pytest.fixture
def model(plan, open_reader):
    return served(plan, open_reader(plan))


@pytest.fixture
def cache():
    return ResultCache(1_000_000, 60.0)


@pytest.fixture
def ask(cache):
    """The outcomes of queries that are submitted in one turn, to a plane that keeps results."""

    def send(*queries):
        async def run():
            plane = DataPlane(ServerSettings(), Results(cache))
            try:
                waiting = [plane.infer(query) for query in queries]
                return await asyncio.gather(*waiting, return_exceptions=True)
            finally:
                plane.close()

        return asyncio.run(run())

    return send


@pytest.mark.parametrize("make", [raw_query, keyed_query])
def test_a_result_is_computed_once_and_told_the_same(model, ask, cache, make):
    (first,) = ask(make(model, [100, 200]))
    (second,) = ask(make(model, [100, 200]))
    assert model.predictor.calls == [2]
    assert second.values == first.values
    assert second.matrix.tobytes() == first.matrix.tobytes()
    assert second.statuses.keys() == first.statuses.keys()
    for view, codes in first.statuses.items():
        assert (second.statuses[view] == codes).all()
        assert (second.event_times[view] == first.event_times[view]).all()
    assert (cache.counted.hits, cache.counted.misses) == (2, 2)
    assert cache.counted.rate == 0.5


@pytest.mark.parametrize("make", [raw_query, keyed_query])
def test_only_queries_with_a_row_that_was_never_seen_are_computed(model, ask, make):
    if make is keyed_query:
        kept = [make(model, [100]), make(model, [300])]
        asked = [make(model, [100]), make(model, [100, 200]), make(model, [300])]
    else:
        kept = [raw_query(model, [100]), raw_query(model, [300])]
        asked = [raw_query(model, [100]), raw_query(model, [100, 200]), raw_query(model, [300])]
    ask(*kept)
    answers = ask(*asked)
    assert model.predictor.calls == [2, 2]
    wanted = [[0.01], [0.01, 0.02], [0.03]]
    assert [answer.values for answer in answers] == [pytest.approx(values) for values in wanted]
    assert [answer.query for answer in answers] == asked


def test_another_bundle_finds_nothing_of_the_one_before(model, plan, open_reader, ask):
    after = served(plan, open_reader(plan), digest="e" * 64)
    ask(raw_query(model, [100]))
    ask(raw_query(after, [100]))
    assert after.predictor.calls == [1]


def test_a_query_with_values_of_its_own_is_neither_found_nor_kept(model, ask, cache):
    for _ in range(2):
        query = keyed_query(model, [100])
        query.overrides = {"distance_miles": {0: 500.0}}
        (answer,) = ask(query)
        assert answer.values == [pytest.approx(0.05)]
    assert model.predictor.calls == [1, 1]
    assert len(cache) == 0


def test_an_answer_that_is_refused_is_refused_again(model, ask):
    first, second = (ask(raw_query(model, [7_500]))[0] for _ in range(2))
    assert type(first) is type(second)
    assert model.predictor.calls == [1, 1]


def test_every_nan_is_the_same_missing_value(model):
    odd = np.array([0x7FC00001], np.uint32).view(np.float32)
    rows = np.array([[1.0, np.nan], [1.0, odd[0]], [1.0, 2.0]], np.float32)
    first, second, third = raw_keys(model, rows)
    assert first == second != third


def test_rows_that_differ_in_key_field_or_moment_have_different_keys(model, instance):
    changes = [
        {},
        {"origin": "LGA"},
        {"origin": None},
        {"tailnum": "N1"},
        {"distance_miles": 1},
        {"scheduled_departure": "2013-08-01T12:00:01Z"},
    ]
    rows = model.schema.rows([instance(**change) for change in changes])
    assert len(set(keyed_keys(model, rows))) == len(changes)
    again = model.schema.rows([instance(scheduled_departure="2013-08-01T08:00:00-04:00")])
    assert keyed_keys(model, again) == keyed_keys(model, rows)[:1]


def computed(plan, **changes):
    """One row: weather one minute old of an hour's TTL, planes never seen."""
    facts = {
        "statuses": {
            "weather": np.array([ReadStatus.PRESENT], np.uint8),
            "planes": np.array([ReadStatus.NEVER_SEEN], np.uint8),
        },
        "event_times": {
            "weather": np.array([MOMENT - np.timedelta64(60, "s")]),
            "planes": np.array([np.datetime64("NaT", "us")]),
        },
        "predictions": np.array([0.5], np.float32),
    } | changes
    return Computed(np.zeros((1, len(plan.columns)), np.float32), **facts)


@pytest.mark.parametrize(
    ("setting", "wanted"), [(10.0, 10.0), (10_000.0, 3540.0)], ids=["setting", "first to expire"]
)
def test_a_result_lasts_until_its_first_feature_expires(plan, setting, wanted):
    left = Layout(plan).seconds_left(computed(plan), np.array([MOMENT]), setting)
    assert left.tolist() == [wanted]


@pytest.mark.parametrize(
    "changes",
    [
        {"predictions": np.array([np.nan], np.float32)},
        {
            "statuses": {
                "weather": np.array([ReadStatus.UNAVAILABLE], np.uint8),
                "planes": np.array([ReadStatus.PRESENT], np.uint8),
            }
        },
    ],
    ids=["no number", "store away"],
)
def test_what_a_failure_made_is_not_kept(plan, changes):
    left = Layout(plan).seconds_left(computed(plan, **changes), np.array([MOMENT]), 60.0)
    assert left.tolist() == [0.0]


def test_records_come_back_as_they_were(plan):
    layout, before = Layout(plan), computed(plan)
    records = layout.records(before)
    after = layout.computed(records, is_keyed=True)
    assert after.predictions.tobytes() == before.predictions.tobytes()
    assert {v: c.tolist() for v, c in after.statuses.items()} == {"weather": [0], "planes": [1]}
    assert after.event_times["weather"] == before.event_times["weather"]
    assert np.isnat(after.event_times["planes"][0])
    assert layout.fits(records[0], is_keyed=True)
    assert not layout.fits(records[0][:-1], is_keyed=True)


def test_a_result_expires(cache):
    cache.keep([b"a", b"b"], [b"1", b"2"], [0.02, 60.0])
    assert cache.find([b"a", b"b"]) == [b"1", b"2"]
    time.sleep(0.03)
    assert cache.find([b"a", b"b"]) == [None, b"2"]


def test_the_least_recently_used_results_leave_within_the_bytes_given():
    cache = ResultCache(3_000, 60.0)
    keys = [b"%d" % n for n in range(100)]
    for key in keys:
        cache.keep([key], [b"x" * 100], [60.0])
        cache.find([b"0"])
    kept = [key for key, record in zip(keys, cache.find(keys), strict=True) if record]
    assert cache.bytes <= 3_000
    assert kept[0] == b"0"
    assert kept[1:] == keys[-len(kept) + 1 :]


def test_what_is_kept_again_is_counted_once(cache):
    cache.keep([b"a"], [b"1"], [60.0])
    before = cache.bytes
    cache.keep([b"a"], [b"2"], [60.0])
    assert (cache.bytes, len(cache), cache.find([b"a"])) == (before, 1, [b"2"])


def test_the_memory_that_is_counted_is_about_what_is_taken():
    import tracemalloc

    tracemalloc.start()
    try:
        cache = ResultCache(1 << 30, 60.0)
        before = tracemalloc.get_traced_memory()[0]
        for n in range(20_000):
            cache.keep([b"%080d" % n], [b"%0100d" % n], [60.0])
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.7 < cache.bytes / taken < 1.4
