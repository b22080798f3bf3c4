"""S15: requests that are cancelled or late never get, or leave behind, the answer of another one.

Every request asks for an entity of its own number and brings that number, and the model's answer
is made of both, so an answer tells whose it is. Features come from Redis, whose connection is
shared; four of ten requests are cancelled, dropped or late at a moment drawn at random.
"""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from featurestore.online.reader import OnlineReader, ReaderOptions
from featurestore.stores.redis_store import RedisStore
from featurestore.stores.stored import StoredView, stored_view
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead
from headrace.spec import RequestField
from serving.dataplane import DataPlane
from serving.errors import DeadlineExceeded
from serving.query import Query
from serving.settings import ServerSettings
from tests.faults.naive.batcher import Batcher
from tests.serving.plane_models import PlainPredictor, served

ENTITIES = 500
AT = "2013-06-01T00:00:00Z"
VIEW = ViewRead(
    view="hourly",
    table="hourly",
    join_keys=(JoinKey(name="origin"),),
    event_timestamp="event_timestamp",
    created_timestamp=None,
    ttl_seconds=None,
    features=(FeatureRead(name="x", dtype="DOUBLE"),),
)
PLAN = FeaturePlan(
    project="tiny",
    feature_service="s",
    definitions_sha256="",
    event_timestamp="at",
    views=(VIEW,),
    request=(
        RequestField(name="at", dtype="timestamp", description="now"),
        RequestField(name="own", description="the request's number"),
    ),
    inputs_from_request=("own",),
    transforms=(),
)


class WhoseAnswers(PlainPredictor):
    """Answers with the number of the request and of its entity in one number."""

    def predict(self, matrix):
        if len(self.calls) % 3 == 0:
            time.sleep(0.0005)
        self.calls.append(len(matrix))
        return matrix[:, 1] * np.float32(512) + matrix[:, 0]  # exact below 2**24


def expected(number):
    return float(number * 512 + number % ENTITIES)


@dataclass
class Seen:
    answers: int = 0
    wrong: int = 0
    kinds: Counter = field(default_factory=Counter)
    after_the_end: int = 0

    def note(self, number, prediction):
        self.answers += 1
        self.wrong += prediction != expected(number)


def fill(url):
    store = RedisStore(url, "tiny")
    stored = StoredView(view=stored_view(VIEW), loading=True)
    store.put_view(stored)
    times = [datetime(2013, 5, 31, 23, 30, tzinfo=UTC)] * ENTITIES
    rows = {
        "origin": [f"A{n}" for n in range(ENTITIES)],
        "event_timestamp": pa.array(times, pa.timestamp("us", tz="UTC")),
        "x": [float(n) for n in range(ENTITIES)],
    }
    store.write(stored, pa.table(rows))
    store.put_view(stored.model_copy(update={"loading": False, "until_us": 0}))
    store.close()


@pytest.fixture
def model(redis_url):
    fill(redis_url)
    options = ReaderOptions(deadline_seconds=5.0, cache_seconds=0.01, cache_rows=100)
    reader = OnlineReader(redis_url, PLAN, options)
    model = served(PLAN, reader, task="regression")
    object.__setattr__(model, "predictor", WhoseAnswers(PLAN, task="regression"))
    yield model
    reader.close()


def query(model, number, **options):
    instances = [{"origin": f"A{number % ENTITIES}", "at": AT, "own": number}]
    now = time.perf_counter()
    if number % 4 == 3:  # raw features among the keyed ones
        features = [float(number % ENTITIES), float(number)]
        return Query(model, "v2", 1, str(number), now, features=features, **options)
    return Query(model, "plain", 1, str(number), now, instances=instances, **options)


async def one_request(plane, model, number, draw, seen):
    """Ask once, and leave early four times of ten: in one of three ways."""
    kind = draw.choices(["stays", "cancels", "drops", "late"], [60, 20, 10, 10])[0]
    seen.kinds[kind] += 1
    moment = draw.random() * 0.004
    if kind == "drops":
        asked, told = query(model, number), []
        plane.submit(asked, lambda _, outcome: told.append(outcome))
        await asyncio.sleep(moment)
        asked.drop()
        before = len(told)
        await asyncio.sleep(0.02)
        seen.after_the_end += len(told) > before
        for outcome in told:
            seen.note(number, outcome.values[0])
        return
    options = {"deadline": time.perf_counter() + moment} if kind == "late" else {}
    task = asyncio.create_task(plane.infer(query(model, number, **options)))
    if kind == "cancels":
        await asyncio.sleep(moment)
        task.cancel()
    await asyncio.wait([task])
    if task.cancelled():
        return
    if isinstance(task.exception(), DeadlineExceeded):
        seen.kinds["told to be late"] += 1
        return
    seen.note(number, task.result().values[0])


async def storm(ask, requests, at_once=128):
    """Let ``at_once`` callers ask, one request after the other, until there were so many."""
    numbers = iter(range(requests))

    async def caller():
        for number in numbers:
            await ask(number)

    await asyncio.gather(*(caller() for _ in range(at_once)))


def check(model, scorecard, requests, seed):
    draw, seen = random.Random(seed), Seen()

    async def run():
        plane = DataPlane(ServerSettings(max_wait_seconds=30))
        await storm(lambda n: one_request(plane, model, n, draw, seen), requests)
        plane.close()

    asyncio.run(run())
    left = requests - seen.kinds["stays"]
    figure = (
        f"{requests} requests, {left} cancelled, dropped or late, {seen.answers} answered in "
        f"{len(model.predictor.calls)} calls of the model: {seen.wrong} of another request"
    )
    passed = seen.wrong == 0 and seen.after_the_end == 0
    scorecard("S15", passed=passed, figure=figure, seed=seed)
    assert passed, figure
    assert seen.answers >= seen.kinds["stays"]
    assert left > 0.3 * requests
    assert len(model.predictor.calls) < seen.answers / 2  # they were computed together


def test_no_answer_goes_to_another_request(model, scorecard):
    check(model, scorecard, requests=3_000, seed=15)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_answer_of_twenty_thousand_goes_to_another_request(model, scorecard, seed):
    check(model, scorecard, requests=20_000, seed=seed)


def test_a_batcher_that_deals_answers_by_position_is_found_out():
    draw, seen = random.Random(15), Seen()

    async def compute(numbers):
        await asyncio.sleep(0.001)
        return [expected(number) for number in numbers]

    async def run():
        batcher = Batcher(compute)

        async def ask(number):
            task = asyncio.create_task(batcher.ask(number))
            if draw.random() < 0.4:
                await asyncio.sleep(draw.random() * 0.002)
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                seen.note(number, task.result())

        await storm(ask, 1_000)

    asyncio.run(run())
    assert seen.wrong > 100
