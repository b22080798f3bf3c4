"""R12: the release moves under load; no request fails and every answer is its version's own."""

import collections
import json
import time
from dataclasses import dataclass

import httpx
import numpy as np
import pytest

from tests.faults.load import Load, request, serving
from tests.faults.models import ROW, Models, train

QUICKLY = {"poll_seconds": 0.05, "max_wait_seconds": 30}
"""The server looks often, so that a test sees many moves, and sheds no load: a busy machine makes
it do that with or without moves, and here every request counts that is not answered."""


@dataclass
class World:
    """A home with several versions of one endpoint."""

    home: object
    models: Models
    answers: dict
    """By version: what it answers for ROW."""
    digests: list

    def move(self, number):
        """Move the release on; return the version that must answer then."""
        digest = self.digests[number % len(self.digests)]
        self.models.release(digest)
        return digest[:12]


class Checked(Load):
    """A load that compares every answer with what its version answers."""

    def __init__(self, port, world, sent):
        super().__init__(port, sent=sent)
        self.world, self.wrong = world, []
        self.versions = collections.Counter()

    def answered(self, body):
        said = json.loads(body)
        version, value = said["model_version"], said["outputs"][0]["data"][0]
        self.versions[version] += 1
        if self.world.answers.get(version) != float(np.float32(value)):
            self.wrong.append((version, value))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    models = Models(str(home / "storage"), endpoint="flights")
    trained = [train(seed, trees=40, depth=5) for seed in range(1, 4)]
    digests = [models.bundle(model) for model in trained]
    answers = {d[:12]: m.answer for d, m in zip(digests, trained, strict=True)}
    assert len(set(answers.values())) == len(answers)
    world = World(home, models, answers, digests)
    world.move(0)
    return world


@pytest.fixture
def sent():
    tensor = {"name": "features", "shape": [1, len(ROW)], "datatype": "FP32", "data": ROW}
    body = json.dumps({"inputs": [tensor]}).encode()
    return request(body, "/v2/models/flights/infer")


def until_version(port, wanted, seconds=10.0):
    """How long it takes until ``wanted`` answers."""
    begun = time.monotonic()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        while client.get("/v2/models/flights").json()["versions"] != [wanted]:
            assert time.monotonic() < begun + seconds, f"{wanted} never answered"
            time.sleep(0.01)
    return time.monotonic() - begun


def p99(seconds):
    return sorted(seconds)[int(0.99 * len(seconds))]


@pytest.mark.parametrize(
    ("switches", "least"), [(20, 1_000), pytest.param(300, 50_000, marks=pytest.mark.soak)]
)
def test_no_answer_fails_or_is_another_versions(world, sent, switches, least, scorecard):
    with serving(world.home, **QUICKLY) as server:
        with Checked(server.port, world, sent) as quiet:
            time.sleep(1.5)
        with Checked(server.port, world, sent) as load:
            took = [until_version(server.port, world.move(n)) for n in range(1, switches + 1)]
            while sum(load.outcomes.values()) < least:
                time.sleep(0.05)
    asked = sum(load.outcomes.values())
    ratio = p99(load.seconds) / p99(quiet.seconds)
    figure = (
        f"{switches} switches, {asked:,} requests, {len(load.failed)} kinds of failures, "
        f"{len(load.wrong)} wrong, p99 {ratio:.1f} times that without switches, the longest "
        f"switch {max(took):.2f} s"
    )
    print(figure, f"p99 {1000 * p99(quiet.seconds):.1f} -> {1000 * p99(load.seconds):.1f} ms")
    good = not load.failed and not load.wrong and len(load.versions) == len(world.digests)
    scorecard("R12", passed=good, figure=figure)
    assert load.failed == {}
    assert load.wrong == []
    assert set(load.versions) == set(world.answers)


def test_a_moved_release_answers_within_two_seconds(world, sent, scorecard):
    with (
        serving(world.home, max_wait_seconds=30) as server,
        Checked(server.port, world, sent) as load,
    ):
        took = [until_version(server.port, world.move(n)) for n in range(1, 4)]
    scorecard("R12", passed=max(took) <= 2.0, figure=f"{max(took):.2f} s until a release answers")
    assert max(took) <= 2.0
    assert not load.failed
