import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from headrace.bundle import model_file
from headrace.errors import BundleRefused
from serving import trial_process
from serving.errors import TrialFailed
from serving.trial import Trials
from serving.trial_process import Job


@pytest.fixture(scope="module")
def process():
    """The process that forks, started once: its bundles are named by each job."""
    trials = Trials("nowhere", seconds=20.0, memory_bytes=256 << 20)
    yield trials
    trials.close()


@pytest.fixture
def trials(process, store):
    """Trials of the store's bundles."""
    process.bundles_root = f"{store.root}/bundles"
    return process


def model(store, digest):
    return Path(store.root, "bundles", digest, model_file("xgboost"))


def test_a_good_bundle_passes_and_its_size_is_measured(trials, store):
    size = trials.check(store.bundle())
    assert 50_000 < size < 200_000_000


def test_a_bundle_is_tried_once(trials, store):
    digest = store.bundle(seed=1)
    size = trials.check(digest)
    model(store, digest).unlink()
    assert trials.check(digest) == size


def test_a_changed_file_is_refused_before_any_parser_sees_it(trials, store):
    digest = store.bundle(seed=2)
    model(store, digest).write_bytes(b"{}")
    with pytest.raises(BundleRefused, match=r"model\.ubj was changed"):
        trials.check(digest)


def test_what_was_refused_is_tried_again_only_when_it_is_asked_for(trials, store):
    digest = store.bundle(seed=3)
    content = model(store, digest).read_bytes()
    model(store, digest).write_bytes(b"{}")
    with pytest.raises(BundleRefused):
        trials.check(digest)
    model(store, digest).write_bytes(content)
    with pytest.raises(BundleRefused):
        trials.check(digest)
    assert trials.check(digest, again=True)


def test_a_wrong_golden_row_is_refused(trials, store, bundle_files):
    golden = bundle_files(seed=5)["golden.arrow"]
    digest = store.bundle(seed=4, **{"golden.arrow": golden})
    with pytest.raises(BundleRefused, match="golden row 0 gives"):
        trials.check(digest)


def test_it_starts_again_where_somebody_ended_it(trials, store):
    os.kill(trials.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{trials.pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert trials.check(store.bundle(seed=6))


def watched(monkeypatch, tmp_path, load, **changes):
    """What becomes of a trial whose loader does ``load``, in children of this very process."""
    monkeypatch.setattr(trial_process, "load_predictor", lambda *_, **__: load())
    job = {"seconds": 5.0, "memory_bytes": 64 << 20} | changes
    return trial_process.watch_over(Job(str(tmp_path), "0" * 64, "cpu", 1, **job))


def test_a_loader_that_crashes_costs_the_child(monkeypatch, tmp_path):
    def crash():
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # pytest would print a traceback first
        os.kill(os.getpid(), signal.SIGSEGV)

    outcome = watched(monkeypatch, tmp_path, crash)
    assert outcome.reason == "loading it ended the process by SIGSEGV"


def test_a_loader_that_ends_its_process_is_refused(monkeypatch, tmp_path):
    outcome = watched(monkeypatch, tmp_path, lambda: os._exit(0))
    assert outcome.reason == "loading it ended the process with code 0"


def test_a_loader_that_hangs_is_ended_in_time(monkeypatch, tmp_path):
    begun = time.monotonic()
    outcome = watched(monkeypatch, tmp_path, lambda: time.sleep(60), seconds=0.2)
    assert outcome.reason == "loading it took longer than 0.2 s"
    assert time.monotonic() - begun < 2


def test_a_loader_that_eats_memory_is_refused(monkeypatch, tmp_path):
    outcome = watched(monkeypatch, tmp_path, lambda: bytearray(1 << 30))
    assert outcome.kind == "refused"
    assert outcome.reason == "loading it took more than 64 MiB beyond its files"


def test_a_place_that_cannot_be_read_is_no_refusal(monkeypatch, tmp_path, trials):
    def away():
        raise ConnectionError("the store is away")

    outcome = watched(monkeypatch, tmp_path, away)
    assert (outcome.kind, outcome.reason) == ("failed", "the store is away")
    monkeypatch.setattr(trials, "_try", lambda _: outcome)
    with pytest.raises(TrialFailed, match="the store is away"):
        trials.check("1" * 64)


def test_a_trial_measures_what_a_model_takes(monkeypatch, tmp_path):
    kept = []

    def load():
        kept.append(b"y" * (32 << 20))
        return SimpleNamespace(bundle=SimpleNamespace(files={"model": b"x" * 1000}), runtime=None)

    outcome = watched(monkeypatch, tmp_path, load, memory_bytes=256 << 20)
    assert outcome.kind == "good"
    assert 32 << 20 <= outcome.size_bytes < 40 << 20
