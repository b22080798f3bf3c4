"""Models with valid hashes that crash, hang or swell in their loader, beside one that answers."""

import collections
import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from serving.loading import ModelLoader
from serving.repository import ModelRepository
from serving.trial import Trials
from tests.faults.models import ROW, Models, spoiled, train

MATRIX = np.array([ROW], np.float32)
SECONDS = 20.0
"""In which each of them must be refused (row R11)."""
KINDS = ("flipped", "flipped", "flipped", "truncated", "swollen", "endless")


@dataclass
class Asked:
    """What a model answered while others were loaded beside it."""

    answers: collections.Counter = field(default_factory=collections.Counter)
    longest: float = 0.0

    @contextlib.contextmanager
    def asking(self, repository):
        """Ask the endpoint again and again."""
        done = threading.Event()

        def ask():
            while not done.is_set():
                begun = time.perf_counter()
                model = repository.served()
                answer = float(model.predictor.predict(MATRIX)[0])
                self.answers[model.predictor.digest, answer] += 1
                self.longest = max(self.longest, time.perf_counter() - begun)
                time.sleep(0.001)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@pytest.fixture(scope="module")
def good():
    """The model that answers."""
    return train(1)


@pytest.fixture
def models(tmp_path, good):
    models = Models(str(tmp_path / "storage"))
    models.release(models.bundle(good))
    return models


@pytest.fixture
def repository(models):
    trials = Trials(models.bundles, seconds=1.5, memory_bytes=512 << 20)
    repository = ModelRepository(
        [models.endpoint], ModelLoader(models.root, pytest.fail, trials=trials)
    )
    yield repository
    repository.close()


@pytest.mark.parametrize(
    "count", [pytest.param(40, id="short"), pytest.param(200, marks=pytest.mark.soak)]
)
def test_no_model_with_valid_hashes_hurts_the_server(models, good, repository, count, scorecard):
    seed = time.time_ns() % 1_000_000
    rng, outcomes, slowest, asked = random.Random(seed), collections.Counter(), 0.0, Asked()
    endpoint, first = repository.endpoints[models.endpoint], repository.served().predictor.digest
    passed = {first: good.answer}
    with asked.asking(repository):
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            digest = models.bundle(spoiled(good, kind, rng))
            models.release(digest)
            begun = time.perf_counter()
            moved = repository.look()
            slowest = max(slowest, time.perf_counter() - begun)
            assert repository.served()
            if not moved:
                outcomes[_kind_of(endpoint.refused)] += 1
                continue
            # Golden rows came out right: it is as good as another, until the next release.
            outcomes["proved itself"] += 1
            passed[digest] = float(repository.served().predictor.predict(MATRIX)[0])
            models.release(first)
            assert repository.look()
    wrong = sum(n for (digest, answer), n in asked.answers.items() if passed[digest] != answer)
    total = asked.answers.total()
    print(f"seed={seed} outcomes={dict(outcomes)} slowest={slowest:.2f} s asked={total}")
    refused = count - outcomes["proved itself"]
    scorecard(
        "R11",
        passed=not wrong and slowest <= SECONDS and refused >= 0.6 * count,
        figure=f"{refused} of {count} refused, the slowest in {slowest:.1f} s, the rest proved "
        f"themselves; 0 deaths; {total:,} answers beside, {wrong} wrong",
        seed=seed,
    )
    assert not wrong
    assert slowest <= SECONDS
    assert refused >= 0.6 * count
    assert outcomes["ended its process"] > 0, "nothing crashed: the corpus is too tame"


def _kind_of(refusal):
    signs = {
        "ended the process": "ended its process",
        "longer than": "hung",
        "bad_alloc": "wanted too much memory",
        "MiB": "wanted too much memory",
        "golden row": "wrong golden row",
    }
    return next((kind for sign, kind in signs.items() if sign in refusal), "refused by its library")


def test_a_model_file_spoiled_on_disk_changes_nothing_that_runs(models, good, repository):
    digest = repository.served().predictor.digest
    content = models.file(digest).read_bytes()
    for spoilt in (b"\0" * len(content), content[:100], b""):
        models.file(digest).write_bytes(spoilt)
        assert float(repository.served().predictor.predict(MATRIX)[0]) == good.answer
    models.release(digest)
    assert not repository.look()
    assert "was changed" in repository.endpoints[models.endpoint].refused
    assert float(repository.served().predictor.predict(MATRIX)[0]) == good.answer


def test_without_a_child_such_a_model_ends_the_process_that_loads_it(models, good):
    """The negative control: the same corpus kills a process that loads it directly."""
    digest = models.bundle(spoiled(good, "endless", random.Random(0)))
    load = "import sys; from serving.predictor import load_predictor; load_predictor(*sys.argv[1:])"
    command = [sys.executable, "-c", load, models.bundles, digest]
    assert subprocess.run(command, timeout=60, check=False).returncode == -signal.SIGSEGV
