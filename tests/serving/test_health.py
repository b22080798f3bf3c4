"""What health says of a server in each of its states, and how little it asks for it."""

import asyncio
import time

import pytest

from headrace.errors import StorageFailed
from serving.health import Health
from serving.probe import Probe


class State:
    """A server's health, with the states that it can be in."""

    def __init__(self, repository):
        self.draining, self.asked = False, 0
        self.health = Health(
            repository, is_draining=lambda: self.draining, parts={"jobs": self._jobs}
        )

    def _jobs(self):
        self.asked += 1
        return {"queued": self.asked}

    def report(self):
        return asyncio.run(self.health.report())


@pytest.fixture
def state(repository):
    return State(repository)


def test_a_good_server_tells_its_parts(state, repository):
    body = state.report()
    assert (body["status"], body["ready"], body["redis"]) == ("ok", True, "ok")
    assert body["model"]["digest"] == repository.served().predictor.digest
    assert body["cache_hit_rate"] is None
    assert body["online_store"] == {"status": "ok", "reason": None}
    assert body["models"] == [
        {
            "name": "flight_delay",
            "version": repository.served().version,
            "state": "READY",
            "reason": None,
        }
    ]
    assert body["jobs"] == {"queued": 1}


def test_a_failing_store_degrades_and_the_server_stays_ready(state, repository):
    repository.served().reader.fails = StorageFailed("read", "online.db", "gone")
    body = state.report()
    assert (body["status"], body["ready"], body["redis"]) == ("degraded", True, "failing")
    assert "gone" in body["online_store"]["reason"]


def test_a_draining_server_and_one_without_a_model_are_not_ready(state, repository):
    state.draining = True
    assert (state.report()["status"], state.health.is_ready) == ("draining", False)
    state.draining = False
    assert state.health.is_ready
    repository.unload("flight_delay")
    body = state.report()
    assert (body["status"], body["ready"], body["model"]) == ("unavailable", False, None)


def test_the_hit_rate_is_that_of_the_readers_cache(state, repository):
    class Cache:
        hits, misses = 3, 1

    repository.served().reader.cache = Cache()
    assert state.report()["cache_hit_rate"] == 0.75


def test_however_many_ask_the_store_is_asked_once(state, repository):
    reader, asked = repository.served().reader, []
    read = reader.read
    reader.read = lambda keys, at: (asked.append(keys), time.sleep(0.05), read(keys, at))[2]

    async def many():
        return await asyncio.gather(*(state.health.report() for _ in range(50)))

    bodies = asyncio.run(many())
    assert (len(asked), state.asked) == (1, 1)
    assert {body["redis"] for body in bodies} == {"ok"}


def test_a_store_that_takes_long_does_not_hold_the_loop(state, repository):
    reader = repository.served().reader
    read = reader.read
    reader.read = lambda keys, at: (time.sleep(0.2), read(keys, at))[1]

    async def beside():
        asking = asyncio.create_task(state.health.report())
        turns = 0
        while not asking.done():
            await asyncio.sleep(0.005)
            turns += 1
        return turns

    assert asyncio.run(beside()) > 10


def test_no_cache_answers_in_place_of_the_store(state, repository):
    reader, asked = repository.served().reader, []
    read = reader.read
    reader.read = lambda keys, at: (asked.append(keys), read(keys, at))[1]
    state.health._asked = Probe(state.health._ask, seconds=0)
    state.report()
    state.report()
    first, second = asked
    assert first["origin"] != second["origin"]


def test_a_probe_asks_again_when_its_answer_is_old_and_after_a_failure():
    answers = iter([1, OSError("down"), 3])

    def ask():
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    async def three():
        probe = Probe(ask, seconds=0)
        first = await probe.answer()
        with pytest.raises(OSError, match="down"):
            await probe.answer()
        return first, await probe.answer()

    assert asyncio.run(three()) == (1, 3)


def test_one_who_leaves_takes_the_answer_from_nobody():
    async def leave():
        probe = Probe(lambda: time.sleep(0.05) or "here", seconds=10)
        leaver, stayer = (asyncio.create_task(probe.answer()) for _ in range(2))
        await asyncio.sleep(0.01)
        leaver.cancel()
        return await stayer

    assert asyncio.run(leave()) == "here"


def test_the_routes_tell_readiness_by_their_status(client, repository):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").status_code == 200
    repository.unload("flight_delay")
    ready, health = client.get("/v2/health/ready"), client.get("/health")
    assert (ready.status_code, ready.json()) == (503, {"ready": False})
    assert (health.status_code, health.json()["status"]) == (503, "unavailable")
