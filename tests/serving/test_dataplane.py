import asyncio
import gc
import threading
import time
import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.errors import StoredValueBroken
from featurestore.freshness import ReadStatus
from headrace.errors import StorageFailed
from serving.dataplane import DataPlane
from serving.errors import (
    DeadlineExceeded,
    FieldsRefused,
    NotFinite,
    OnlineStoreFailing,
    OutOfRange,
    Overloaded,
    PlaneFailed,
    RuntimeFailed,
)
from serving.query import Answer
from serving.settings import ServerSettings
from tests.serving.plane_models import OUT_FROM, keyed_query, oracle, query, raw_query, served
from tests.serving.plane_models import ask as ask_plane


@pytest.fixture
def model(plan, open_reader):
    """A factory of models; options go to the predictor."""
    return lambda **options: served(plan, open_reader(plan), **options)


@pytest.fixture
def ask():
    """The outcomes of queries that are submitted in one turn."""

    def send(*queries, **options):
        plane = DataPlane(ServerSettings(**options))
        try:
            return ask_plane(plane, *queries)
        finally:
            plane.close()

    return send


def test_a_turn_is_one_call_of_the_model_and_each_gets_its_own_rows(model, ask):
    asked = model()
    queries = [raw_query(asked, [100 * n, 100 * n + 1]) for n in range(5)]
    answers = ask(*queries)
    assert asked.predictor.calls == [10]
    assert [a.query for a in answers] == queries
    assert [a.values for a in answers] == [
        pytest.approx([n / 100, n / 100 + 0.0001]) for n in range(5)
    ]
    assert answers[3].matrix.tolist()[1][1:4:2] == [1.0, 301.0]


def test_lists_and_matrices_of_raw_features_mix(model, ask):
    asked = model()
    both = ask(raw_query(asked, [100]), raw_query(asked, [200, 300], as_matrix=True))
    assert [a.values for a in both] == [pytest.approx([0.01]), pytest.approx([0.02, 0.03])]
    assert asked.predictor.calls == [3]


def test_a_single_matrix_reaches_the_model_without_a_copy(model, ask):
    asked = raw_query(model(), [100] * 3, as_matrix=True)
    (answer,) = ask(asked)
    assert np.shares_memory(answer.matrix, asked.features)


def test_keyed_rows_are_read_and_labelled(model, ask):
    asked = keyed_query(model(), [100, 200])
    asked.instances[1]["origin"] = "XXX"
    (answer,) = ask(asked)
    assert answer.values == pytest.approx([0.01, 0.02])
    assert answer.statuses["weather"].tolist() == [ReadStatus.PRESENT, ReadStatus.NEVER_SEEN]
    assert answer.matrix[0].tolist() == [71.5, 12.0, 178.0, 100.0, 8.0]
    assert np.isnat(answer.event_times["weather"]).tolist() == [False, True]
    assert not answer.degraded


def test_rows_that_an_edge_has_validated_join_the_batch(model, ask):
    asked = model()
    rows = asked.schema.rows(keyed_query(asked, [300]).instances)
    first, second = ask(keyed_query(asked, [100, 200]), query(asked, 1, given=rows))
    assert (first.values, second.values) == (pytest.approx([0.01, 0.02]), pytest.approx([0.03]))


def test_raw_features_beside_keys_win_over_what_is_read_and_feed_transforms(model, ask):
    overrides = {"weather__wind_speed": {1: 99.0}, "scheduled_hour": {0: np.nan}}
    (answer,) = ask(keyed_query(model(), [100, 200], overrides=overrides))
    assert answer.matrix[:, 1].tolist() == [12.0, 99.0]
    assert np.isnan(answer.matrix[:, 4]).tolist() == [True, False]


def test_a_refused_neighbour_costs_nobody_else(model, ask):
    asked = model()
    bad = keyed_query(asked, [100])
    bad.instances[0]["distance_miles"] = "far"
    outcomes = ask(keyed_query(asked, [100]), bad, raw_query(asked, [7_500]), raw_query(asked, [5]))
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Answer, FieldsRefused, NotFinite, Answer]
    assert "row 0: distance_miles" in str(outcomes[1])


def test_a_partial_query_loses_its_bad_rows_alone(model, ask):
    asked = keyed_query(model(), [100, 200, 7_500, 400], partial=True)
    asked.instances[1]["distance_miles"] = -1
    (answer,) = ask(asked)
    assert answer.values == [pytest.approx(0.01), None, None, pytest.approx(0.04)]
    assert np.isnan(answer.predictions).tolist() == [False, True, True, False]
    assert {row: type(error) for row, error in answer.problems.items()} == {
        1: FieldsRefused,
        2: NotFinite,
    }
    assert "row 1: distance_miles = -1" in str(answer.problems[1])
    assert answer.matrix[3, 3] == 400
    assert answer.statuses["weather"][1] == ReadStatus.UNAVAILABLE


def test_a_partial_query_without_a_good_row_is_answered_with_its_problems(model, ask):
    asked = keyed_query(model(), [-1, -2], partial=True)
    (answer,) = ask(asked)
    assert (answer.values, sorted(answer.problems)) == ([None, None], [0, 1])
    assert asked.model.predictor.calls == []


@pytest.mark.parametrize(
    ("task", "miles", "wrong"),
    [("binary", 7_500, NotFinite), ("binary", OUT_FROM, OutOfRange), ("regression", 9_000, Answer)],
)
def test_answers_must_be_finite_and_mean_what_the_task_says(model, ask, task, miles, wrong):
    (outcome,) = ask(raw_query(model(task=task), [miles]))
    assert type(outcome) is wrong


def test_what_is_not_finite_can_be_null(model, ask):
    (answer,) = ask(raw_query(model(), [100, 7_500]), on_not_finite="null")
    assert answer.values == [pytest.approx(0.01), None]


def test_infinite_features_are_refused_by_row_and_column(model, ask):
    asked = model()
    bad, good = ask(raw_query(asked, [1, 1e300]), raw_query(asked, [2]))
    assert (type(bad), bad.problems[0].field, bad.problems[0].row) == (
        FieldsRefused,
        "distance_miles",
        1,
    )
    assert good.values == pytest.approx([0.0002])


def test_an_edge_that_decodes_too_few_values_cannot_shift_its_neighbours(model, ask):
    asked = model()
    short = query(asked, 1, features=[1.0, 2.0])
    wrong, right = ask(short, raw_query(asked, [100]))
    assert (type(wrong), right.values) == (PlaneFailed, pytest.approx([0.01]))


def refuse_tail_number(asked, refused):
    """Let the store hold a damaged value for one plane."""
    read = asked.reader.read

    def picky(keys, at):
        if refused in keys["tailnum"]:
            raise StoredValueBroken("seats of N0", "DOUBLE", b"?")
        return read(keys, at)

    asked.reader.read = picky


def test_a_value_that_cannot_be_read_costs_its_request_alone(model, ask):
    asked = model()
    refuse_tail_number(asked, "N0")
    bad = keyed_query(asked, [100])
    bad.instances[0]["tailnum"] = "N0"
    outcomes = ask(keyed_query(asked, [100]), bad, keyed_query(asked, [300]))
    assert [type(outcome) for outcome in outcomes] == [Answer, OnlineStoreFailing, Answer]
    assert outcomes[2].values == pytest.approx([0.03])


def test_a_value_that_cannot_be_read_costs_a_partial_request_its_row(model, ask):
    asked = model()
    refuse_tail_number(asked, "N0")
    part = keyed_query(asked, [-1, 200, 300, 400], partial=True)
    part.instances[2]["tailnum"] = "N0"
    (answer,) = ask(part)
    assert answer.values == [None, pytest.approx(0.02), None, pytest.approx(0.04)]
    assert [type(answer.problems[row]) for row in (0, 2)] == [FieldsRefused, OnlineStoreFailing]


def test_a_failing_store_fails_keys_and_not_raw_features(model, ask):
    asked = model()
    asked.reader.fails = StorageFailed("read", "online.db", "disk I/O error")
    keyed, raw = ask(keyed_query(asked, [100]), raw_query(asked, [100]))
    assert (type(keyed), type(raw)) == (OnlineStoreFailing, Answer)


@pytest.mark.parametrize(
    ("fails", "told"),
    [(RuntimeFailed("predict", "no"), RuntimeFailed), (ZeroDivisionError(), PlaneFailed)],
)
def test_a_model_that_fails_is_told_to_all_of_its_batch(model, ask, fails, told, caplog):
    asked = model(fails=fails)
    outcomes = ask(raw_query(asked, [1]), keyed_query(asked, [2]))
    assert [type(outcome) for outcome in outcomes] == [told, told]
    assert ("Traceback" in caplog.text) == (told is PlaneFailed)


def test_a_model_that_answers_too_few_rows_shifts_no_answer(model, ask, caplog):
    asked = model()
    asked.predictor.predict = lambda matrix: matrix[1:, 3]
    outcomes = ask(raw_query(asked, [0.1]), raw_query(asked, [0.2]))
    assert [type(outcome) for outcome in outcomes] == [PlaneFailed, PlaneFailed]


def test_a_dropped_query_is_neither_computed_nor_answered(model, ask):
    asked = model()
    gone = raw_query(asked, [100])

    async def scenario():
        plane, told = DataPlane(ServerSettings()), []
        plane.submit(gone, lambda *_: told.append("gone"))
        plane.submit(raw_query(asked, [200]), lambda _, answer: told.append(answer.values))
        gone.drop()
        await asyncio.sleep(0.05)
        return told

    assert asyncio.run(scenario()) == [pytest.approx([0.02])]
    assert asked.predictor.calls == [1]


def test_a_cancelled_caller_drops_its_query(model):
    asked = model(seconds=0.02)

    async def scenario():
        plane = DataPlane(ServerSettings())
        first = asyncio.create_task(plane.infer(raw_query(asked, [1])))
        await asyncio.sleep(0.005)
        second = asyncio.create_task(plane.infer(raw_query(asked, [2, 3])))
        third = asyncio.create_task(plane.infer(raw_query(asked, [4])))
        await asyncio.sleep(0.005)
        second.cancel()
        assert (await third).values == pytest.approx([0.0004])
        with pytest.raises(asyncio.CancelledError):
            await second
        return (await first).values

    assert asyncio.run(scenario()) == pytest.approx([0.0001])
    assert asked.predictor.calls == [1, 1]


def test_a_late_query_is_dropped_before_computing(model, ask):
    asked = model()
    now = time.perf_counter()
    late, early = ask(
        raw_query(asked, [1], deadline=now - 0.25), raw_query(asked, [2], deadline=now + 60)
    )
    assert (type(late), type(early)) == (DeadlineExceeded, Answer)
    assert late.late_seconds >= 0.25
    assert asked.predictor.calls == [1]


def test_what_arrives_while_a_dear_model_computes_is_the_next_batch(model):
    asked = model(seconds=0.03)

    async def scenario():
        plane = DataPlane(ServerSettings(max_wait_seconds=10))
        first = asyncio.create_task(plane.infer(raw_query(asked, [1])))
        await asyncio.sleep(0.005)
        rest = [asyncio.create_task(plane.infer(raw_query(asked, [n]))) for n in range(20)]
        await asyncio.gather(first, *rest)

    asyncio.run(scenario())
    assert asked.predictor.calls == [1, 20]


def test_a_dear_model_never_holds_the_loop(model):
    asked = model(seconds=0.3)

    async def scenario():
        plane, longest = DataPlane(ServerSettings(max_wait_seconds=10)), 0.0
        tasks = [asyncio.create_task(plane.infer(raw_query(asked, [n]))) for n in range(2)]
        while not all(task.done() for task in tasks):
            begun = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - begun)
        return longest

    assert asyncio.run(scenario()) < 0.2


def test_batches_have_at_most_so_many_rows_but_a_request_is_never_cut(model, ask):
    asked = model()
    answers = ask(*(raw_query(asked, [1] * rows) for rows in (3, 3, 9, 1)), max_batch_rows=6)
    assert [len(answer.values) for answer in answers] == [3, 3, 9, 1]
    assert asked.predictor.calls == [6, 9, 1]


def test_a_large_request_goes_its_own_way(model, ask):
    asked = model()
    large = [number / 10 for number in range(2_000)]
    kinds = (raw_query(asked, large), raw_query(asked, [7]), keyed_query(asked, large))
    answers = ask(*kinds)
    assert answers[0].values == pytest.approx([n / 10_000 for n in large])
    assert answers[2].values == answers[0].values
    assert sorted(asked.predictor.calls) == [1, 2_000, 2_000]


def test_large_requests_that_are_late_wrong_or_dropped_compute_nothing(model, ask):
    asked = model()
    late = raw_query(asked, [1] * 600, deadline=time.perf_counter() - 1)
    wrong = keyed_query(asked, [-1] * 600)
    outcomes = ask(late, wrong)
    assert [type(outcome) for outcome in outcomes] == [DeadlineExceeded, FieldsRefused]
    assert asked.predictor.calls == []


def test_more_than_may_wait_are_shed_at_once(model, ask):
    asked = model()
    outcomes = ask(*(raw_query(asked, [n]) for n in range(6)), max_waiting=4)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Answer] * 4 + [Overloaded] * 2
    assert outcomes[-1].retry_after_seconds == 1


def test_who_would_wait_for_too_long_is_shed(model):
    asked = model(seconds=0.05)

    async def scenario():
        plane = DataPlane(ServerSettings(max_wait_seconds=0.12, max_batch_rows=1))
        for n in range(3):  # now it is known what a row costs
            await plane.infer(raw_query(asked, [n]))
        flood = [asyncio.create_task(plane.infer(raw_query(asked, [n]))) for n in range(60)]
        begun = time.perf_counter()
        told = await asyncio.gather(*flood, return_exceptions=True)
        return [type(one) for one in told], time.perf_counter() - begun

    kinds, seconds = asyncio.run(scenario())
    assert set(kinds) == {Answer, Overloaded}
    assert 1 <= kinds.count(Answer) <= 5
    assert seconds < 1.5  # all of them would take 3


def test_an_edge_that_fails_costs_its_neighbours_nothing(model, caplog):
    asked, told = model(), []

    def broken(*_):
        raise ZeroDivisionError

    async def scenario():
        plane = DataPlane(ServerSettings())
        plane.submit(raw_query(asked, [1]), broken)
        plane.submit(raw_query(asked, [2]), lambda _, answer: told.append(answer.values))
        await asyncio.sleep(0.05)

    asyncio.run(scenario())
    assert told == [pytest.approx([0.0002])]
    assert "was not answered" in caplog.text


def test_a_replaced_model_is_freed_with_its_last_query(model):
    asked = model()

    async def scenario(one):
        plane = DataPlane(ServerSettings())
        await plane.infer(raw_query(one, [1]))
        return plane

    plane = asyncio.run(scenario(asked))
    gone = weakref.ref(asked)
    del asked
    gc.collect()
    assert gone() is None
    assert not plane._queues


def test_inputs_can_be_had_without_a_prediction(model):
    asked = model()

    async def scenario():
        plane = DataPlane(ServerSettings())
        read = await plane.matrix(keyed_query(asked, [100]))
        with pytest.raises(FieldsRefused):
            await plane.matrix(keyed_query(asked, [-1]))
        return read

    inputs = asyncio.run(scenario())
    assert inputs.matrix.tolist() == [[71.5, 12.0, 178.0, 100.0, 8.0]]
    assert asked.predictor.calls == []


KINDS = st.sampled_from(["list", "matrix", "keyed", "partial", "wrong", "late", "drop"])
ASKED = st.tuples(
    KINDS,
    st.lists(st.integers(0, 8_500), min_size=1, max_size=6),
    st.integers(0, 2),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(ASKED, min_size=1, max_size=25), st.sampled_from([0.0, 0.004]), st.integers(1, 30))
def test_every_caller_gets_exactly_its_own_rows(model, traffic, seconds, batch_rows):
    asked = model(seconds=seconds)

    async def scenario():
        plane, told = DataPlane(ServerSettings(max_batch_rows=batch_rows, max_wait_seconds=60)), []
        for number, (kind, miles, turns) in enumerate(traffic):
            one = as_query(asked, kind, miles)
            plane.submit(one, lambda _, outcome, n=number: told.append((n, outcome)))
            if kind == "drop":
                one.drop()
            for _ in range(turns):
                await asyncio.sleep(0)
        wanted = sum(kind != "drop" for kind, *_ in traffic)
        for _ in range(3_000):
            if len(told) >= wanted:
                break
            await asyncio.sleep(0.001)
        plane.close()
        return told

    told = dict(asyncio.run(scenario()))
    for number, (kind, miles, _) in enumerate(traffic):
        check(kind, miles, told.pop(number, None))
    assert not told


def as_query(asked, kind, miles):
    if kind in ("list", "matrix", "drop"):
        return raw_query(asked, miles, as_matrix=kind == "matrix")
    if kind == "late":
        return raw_query(asked, miles, deadline=0.0)
    one = keyed_query(asked, miles, partial=kind == "partial")
    if kind == "wrong":
        one.instances[-1]["distance_miles"] = -1
    return one


def check(kind, miles, outcome):
    wanted = [oracle([0, 0, 0, number]) for number in miles]
    fine = [not np.isnan(one) and one <= 1 for one in wanted]
    if kind == "drop":
        assert outcome is None
    elif kind == "late":
        assert isinstance(outcome, DeadlineExceeded)
    elif kind == "wrong":
        assert isinstance(outcome, FieldsRefused)
    elif kind == "partial":
        right = [one if good else None for one, good in zip(wanted, fine, strict=True)]
        assert outcome.values == right
        assert sorted(outcome.problems) == [row for row, good in enumerate(fine) if not good]
    elif all(fine):
        assert outcome.values == wanted
        assert outcome.matrix[:, 3].tolist() == miles
    else:
        assert isinstance(outcome, NotFinite | OutOfRange)


def test_threads_end_with_the_plane(model):
    before = threading.active_count()
    plane = DataPlane(ServerSettings())
    ask_plane(plane, raw_query(model(), [1]))
    plane.close()
    for _ in range(100):
        if threading.active_count() <= before:
            return
        time.sleep(0.01)
    raise AssertionError("a thread is left over")
