import asyncio
import shutil
import socket
import subprocess
import time

import pytest

from serving.dataplane import DataPlane
from serving.results.batch import Results
from serving.results.cache import ResultCache
from serving.results.shared import SharedResults
from serving.settings import ServerSettings
from tests.serving.plane_models import keyed_query, raw_query, served


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


@pytest.fixture
def model(plan, open_reader):
    """A factory: another digest, another bundle."""
    return lambda digest: served(plan, open_reader(plan), digest=digest)


def run(url, *turns):
    """Answer one query after the other, by one server of its own; return answers and cache."""

    async def answer():
        shared = SharedResults(url, deadline_seconds=1.0)
        cache = ResultCache(1_000_000, 60.0, shared)
        results = Results(cache)
        plane = DataPlane(ServerSettings(), results)
        try:
            answers = [await plane.infer(query) for query in turns]
        finally:
            plane.close()
            await results.close()
        return answers, cache

    return asyncio.run(answer())


@pytest.mark.parametrize("make", [raw_query, keyed_query])
def test_what_one_server_computed_another_finds(url, model, make):
    asked = model(f"{make is raw_query:064x}")
    (first,), _ = run(url, make(asked, [100, 200]))
    (second,), cache = run(url, make(asked, [100, 200]))
    assert asked.predictor.calls == [2]
    assert second.values == first.values
    assert second.matrix.tobytes() == first.matrix.tobytes()
    assert (cache.counted.shared_hits, cache.counted.misses) == (2, 0)


def test_another_bundle_finds_nothing(url, model):
    before, after = model("2" * 64), model("3" * 64)
    run(url, raw_query(before, [100]))
    run(url, raw_query(after, [100]))
    assert after.predictor.calls == [1]


def test_results_leave_redis_when_they_expire(url):
    async def keep_and_find():
        shared = SharedResults(url, deadline_seconds=1.0)
        shared.keep([b"short", b"long", b"never"], [b"1", b"2", b"3"], [0.05, 60.0, 0.0])
        await asyncio.sleep(0.02)
        before = await shared.find([b"short", b"long", b"never"])
        await asyncio.sleep(0.06)
        after = await shared.find([b"short", b"long", b"never"])
        await shared.close()
        return before, after

    before, after = asyncio.run(keep_and_find())
    assert before == [b"1", b"2", None]
    assert after == [None, b"2", None]


def test_a_record_of_another_shape_is_not_believed(url, model):
    asked = model("4" * 64)
    run(url, raw_query(asked, [100]))

    async def spoil():
        from redis.asyncio import Redis

        client = Redis.from_url(url)
        for name in await client.keys("headrace:result:*"):
            await client.set(name, b"short")
        await client.aclose()

    asyncio.run(spoil())
    (answer,), _ = run(url, raw_query(asked, [100]))
    assert answer.values == [pytest.approx(0.01)]
    assert asked.predictor.calls == [1, 1]


def test_redis_that_is_gone_means_misses_and_is_left_alone_for_a_while(model):
    asked = model("5" * 64)
    (answer, again), cache = run(
        f"redis://127.0.0.1:{free_port()}/0", raw_query(asked, [100]), keyed_query(asked, [100])
    )
    assert answer.values == again.values == [pytest.approx(0.01)]
    assert cache.shared.failure
    assert cache.counted.misses == 2


def test_redis_that_does_not_answer_costs_its_deadline_once(model):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"

        async def ask():
            shared = SharedResults(url, deadline_seconds=0.05, retry_seconds=10.0)
            begun = time.perf_counter()
            found = [await shared.find([b"a"]) for _ in range(20)]
            took = time.perf_counter() - begun
            await shared.close()
            return found, took

        found, took = asyncio.run(ask())
    assert found == [[None]] * 20
    assert 0.04 <= took < 1.0
