import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from headrace import storage
from headrace.errors import StorageFailed
from tasks.batch import lease, liveness
from tasks.batch.lease import LeaseLost, held, held_if_free, holder_of, take
from tasks.batch.liveness import ENDED, Observer, Process, is_dead, this_process

SECONDS = 0.5

_HOLDER = """
import sys, time
from tasks.batch.lease import held
with held(sys.argv[1], owner="the other", seconds=float(sys.argv[2])) as lease:
    print(lease.epoch, flush=True)
    sys.stdin.readline()
    lease.check()
"""


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")


@contextlib.contextmanager
def other(out: str, seconds: float = SECONDS):
    """Another process of this machine that holds the lease."""
    command = [sys.executable, "-c", _HOLDER, out, str(seconds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout.readline() == "1\n"
        try:
            yield process
        finally:
            process.kill()


def far_away() -> Process:
    """A process of a machine that nobody here knows."""
    return this_process().model_copy(update={"boot": "another", "host": "far"})


def beats(uri: str, count: int) -> None:
    storage.write_atomic(uri, b"%d" % count)


class Clock:
    """A monotonic clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_epochs_rise_and_only_the_last_one_holds(out):
    with held(out, owner="a", seconds=SECONDS) as first:
        assert (first.epoch, holder_of(out).owner) == (1, "a")
    with held(out, owner="b", seconds=SECONDS) as second:
        assert second.epoch == 2
        second.confirm()
        with pytest.raises(LeaseLost, match="epoch 1, another one does in epoch 2"):
            first.confirm()


def test_nobody_gets_a_lease_that_is_held_and_whoever_waits_gets_it_next(out, caplog):
    caplog.set_level(logging.INFO)
    got = []

    def want():
        with held(out, owner="waiting", seconds=SECONDS) as lease:
            got.append(lease.epoch)

    with held(out, owner="holding", seconds=SECONDS):
        waiting = threading.Thread(target=want)
        waiting.start()
        time.sleep(3 * SECONDS)
        assert got == []
        with held_if_free(out, owner="in a hurry", seconds=SECONDS) as none:
            assert none is None
    waiting.join()
    assert got == [2]
    assert f"{out} is being written by holding (process {os.getpid()}" in caplog.text


def test_a_killed_owner_of_this_machine_is_followed_at_once(out):
    with other(out, seconds=600) as process:
        process.kill()
        begun = time.monotonic()
        with held(out, owner="next", seconds=SECONDS) as lease:
            assert lease.epoch == 2
        assert time.monotonic() - begun < 5


def test_a_stopped_owner_is_taken_over_and_told_when_it_wakes(out):
    with other(out) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with held(out, owner="next", seconds=SECONDS) as lease:
            assert lease.epoch == 2
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(SECONDS)  # a heartbeat of the one that woke up
            _, told = process.communicate("go on\n", timeout=30)
            lease.confirm()
    assert "LeaseLost" in told
    assert process.returncode == 1


def test_the_heartbeat_survives_a_storage_that_is_away(out, monkeypatch, caplog):
    write = storage.write_atomic
    away = threading.Event()

    def failing(uri, data, **options):
        if away.is_set() and uri.endswith(".beat"):
            raise StorageFailed("write", uri, "away")
        write(uri, data, **options)

    monkeypatch.setattr(liveness.storage, "write_atomic", failing)
    with held(out, owner="a", seconds=SECONDS) as lease:
        away.set()
        time.sleep(SECONDS)
        away.clear()
        uri = f"{out}/leases/00000001.beat"
        before = Path(uri).read_bytes() if Path(uri).exists() else b""
        time.sleep(SECONDS)
        assert Path(uri).read_bytes() != before
        lease.check()
    assert Path(uri).read_bytes() == ENDED
    assert caplog.text.count("a heartbeat was lost") == 1


def test_an_epoch_that_is_not_the_last_is_no_lease(out):
    assert take(out, owner="a", seconds=1, after=0).epoch == 1
    assert take(out, owner="b", seconds=1, after=0) is None
    assert take(out, owner="b", seconds=1, after=1).epoch == 2
    Path(out, "leases", "00000001.json").unlink()  # as cleaning does
    assert take(out, owner="late", seconds=1, after=0) is None


def test_of_many_that_want_a_free_lease_one_gets_it(out):
    got, barrier = [], threading.Barrier(8)

    def want():
        barrier.wait()
        got.append(take(out, owner="x", seconds=1, after=0))

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in got if one]) == 1


def test_a_process_of_this_machine_is_known_by_number_and_start():
    me = this_process()
    assert not is_dead(me)
    assert is_dead(me.model_copy(update={"started": me.started - 1}))  # its number is used again
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        child_process = me.model_copy(update={"pid": child.pid, "started": _started(child.pid)})
    assert is_dead(child_process)
    assert not is_dead(far_away())
    assert not is_dead(me.model_copy(update={"namespace": "another container", "started": 0}))


def _started(pid: int) -> int:
    return liveness._started(pid) or -1


def test_a_far_process_is_dead_when_its_count_stood_still_for_its_time(tmp_path):
    uri, clock = str(tmp_path / "beat"), Clock()
    observer = Observer(uri, far_away(), seconds=15, clock=clock)
    for count in range(20):  # it lives: whatever the clocks say, its count moves
        beats(uri, count)
        clock.now += 5
        assert not observer.has_ended()
    for _ in range(2):
        clock.now += 5
        assert not observer.has_ended()
    clock.now += 5
    assert observer.has_ended()


def test_time_in_which_nobody_looked_does_not_count(tmp_path):
    uri, clock = str(tmp_path / "beat"), Clock()
    beats(uri, 7)
    observer = Observer(uri, far_away(), seconds=15, clock=clock)
    assert not observer.has_ended()
    clock.now += 3_600  # the observer was stopped, or the whole machine
    assert not observer.has_ended()
    for _ in range(2):
        clock.now += 5
    assert not observer.has_ended()
    clock.now += 5
    assert observer.has_ended()


def test_a_clock_of_another_machine_means_nothing(tmp_path):
    uri, clock = str(tmp_path / "beat"), Clock()
    beats(uri, 1)
    observer = Observer(uri, far_away(), seconds=15, clock=clock)
    observer.has_ended()
    for days in (-3_650, 3_650):
        moment = time.time() + days * 86_400
        os.utime(uri, (moment, moment))
        assert not observer.has_ended()


def test_who_ended_in_good_order_is_followed_at_once(tmp_path):
    uri = str(tmp_path / "beat")
    storage.write_atomic(uri, ENDED)
    observer = Observer(uri, far_away(), seconds=600)
    assert observer.has_ended()
    assert observer.in_good_order


def test_old_epochs_are_forgotten_but_their_numbers_are_not_used_again(out):
    for owner in "abc":
        with held(out, owner=owner, seconds=SECONDS) as last:
            lease.forget_older(last)
    assert sorted(p.name for p in Path(out, "leases").glob("*.json")) == ["00000003.json"]
    with held(out, owner="d", seconds=SECONDS) as last:
        assert last.epoch == 4
