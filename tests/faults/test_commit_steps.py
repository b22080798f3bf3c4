"""R3: every step of a commit hit by every fault, and three writers in any order of their steps."""

import contextlib
import functools
import itertools
import random

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from headrace import chain, storage
from headrace.errors import StorageFailed
from tasks.batch import commit, lease, output
from tasks.batch.lease import LeaseLost
from tests.faults.simulated import FAULTS, Actor, Crashed, Interleaving, Store

WORKS = {"A": ("a1", "a2"), "B": ("a1", "b2")}
"""Two runs of one output, which share a shard: the second file of the input was changed."""


def score(shard: str) -> dict[str, pa.Table]:
    """What becomes of a shard: two rows are scored, one is rejected."""
    first = sum(shard.encode())
    return {
        "predicted": pa.table({"row": [first, first + 1], "prediction": [0.5, 0.25]}),
        "rejected": pa.table({"row": [first + 2], "reason": ["distance is null"]}),
    }


def write(uri: str, shard: str) -> output.ShardRecord:
    """Score and write a shard."""
    return output.write_shard(uri, shard, **score(shard))


@functools.cache
def scored(shard: str) -> tuple[output.ShardRecord, dict[str, bytes]]:
    """The record of a shard, and the objects it is made of in the order they are written."""
    store = Store()
    record = write(store.uri, shard)
    return record, store.objects


def write_scored(uri: str, shard: str) -> output.ShardRecord:
    """The same requests with the same bytes; building the parts once is enough."""
    record, objects = scored(shard)
    for name, data in objects.items():
        storage.write_atomic(f"{uri}/{name}", data)
    return record


def batch(uri: str, run: str, write=write) -> commit.Manifest:
    """A batch as the flow does it, but taking the lease from whoever has it: nobody waits.

    Safety must not rest on anybody's patience.
    """
    held = None
    while held is None:
        holder = lease.holder_of(uri)
        after = holder.epoch if holder else 0
        held = lease.take(uri, owner=run, seconds=15, after=after)
    done = commit.is_committed(uri, run)
    if done:
        return done
    shards = WORKS[run]
    records = [output.finished_shard(uri, shard) or write(uri, shard) for shard in shards]
    return commit.commit(
        uri,
        lease=held,
        run=run,
        model="m",
        bundle="d" * 64,
        input="table",
        rows=3 * len(shards),
        shards=records,
    )


def attempt(uri: str, run: str, actor: Actor) -> commit.Manifest | None:
    """One process that tries; None if it crashed, or ended with an error."""
    manifest = None
    with actor.acting(), contextlib.suppress(StorageFailed, ConnectionError):
        manifest = batch(uri, run)
    return manifest


def wrong_with(uri: str) -> list[str]:
    """What is wrong with what readers find at ``uri``, now and in its history."""
    found = []
    revisions = commit.history(uri)
    if [one.revision for one in revisions] != list(range(1, len(revisions) + 1)):
        found.append("a revision is missing")
    for before, after in itertools.pairwise(revisions):
        if after.epoch < before.epoch:
            found.append(f"revision {after.revision} is of an older epoch than the one before")
        if after.digest == before.digest:
            found.append(f"revision {after.revision} was committed twice")
    store = Store.stores[uri.split("/")[2]]
    folder = uri.split("/", 3)[3]
    for one in revisions:
        for shard in one.shards:
            for file in shard.files:
                data = store.objects.get(f"{folder}/parts/{file.name}")
                if data is None or storage.sha256(data) != file.sha256:
                    found.append(f"revision {one.revision} names {file.name}, which is not whole")
    return found


def rows_of(uri: str) -> list[int]:
    """Every row that a reader gets, scored or rejected."""
    both = [commit.read_predictions(uri, rejected=rejected) for rejected in (False, True)]
    return sorted(row for table in both for row in table["row"].to_pylist())


def rows_in(run: str) -> list[int]:
    return sorted(sum(shard.encode()) + n for shard in WORKS[run] for n in range(3))


def steps_of_a_batch() -> list[str]:
    actor = Actor()
    assert attempt(f"{Store().uri}/out", "A", actor)
    return actor.steps


STEPS = steps_of_a_batch()


def test_a_commit_has_at_least_fourteen_steps():
    assert len(STEPS) >= 14
    assert STEPS[-1] == "create out/manifests/00000001.json"


def recovers(number: int, fault: str, lands_at: int | None = None) -> list[str]:
    """What is wrong after one step was hit and the command was run once more.

    A request on its way arrives before step ``lands_at`` of the second run; None: after its end.
    """
    store = Store()
    uri = f"{store.uri}/out"
    told = attempt(uri, "A", Actor(faults={number: fault}))
    wrong = [] if told in (None, commit.read_manifest(uri)) else ["a commit was told that is not"]
    again = Actor()
    again.pause = lambda: store.land() if len(again.steps) == lands_at else None
    done = attempt(uri, "A", again)
    store.land()
    if done != commit.read_manifest(uri) or len(commit.history(uri)) != 1:
        wrong.append(f"{len(commit.history(uri))} revisions, not one")
    if rows_of(uri) != rows_in("A"):
        wrong.append("rows are lost or doubled")
    return wrong + wrong_with(uri)


def cases() -> list[tuple]:
    """Every step with every fault; a creation may arrive before any step of the next run."""
    once = [(number, fault) for number in range(len(STEPS)) for fault in FAULTS]
    creations = [n for n, step in enumerate(STEPS) if step.startswith("create")]
    return once + [(n, "in flight", later) for n in creations for later in range(len(STEPS))]


def test_every_step_of_a_commit_recovers_from_every_fault(scorecard):
    wrong = {case: found for case in cases() if (found := recovers(*case))}
    figure = f"{len(cases()) - len(wrong)} of {len(cases())} crash points and unclear replies"
    scorecard("R3", passed=not wrong, figure=f"{figure} recover", steps=len(STEPS))
    assert not wrong


class Schedule:
    """Three processes that write one output, in an order and with faults of somebody's choice.

    One that ends without a commit is started again, as people and reapers do.
    """

    def __init__(self, runs: list[str], faults: list[dict[int, str]]) -> None:
        self.store, self.wrong, self._seen = Store(), [], ""
        self.uri = f"{self.store.uri}/out"
        self.store.after_step = self._look
        self._processes = Interleaving()
        for run, hit in zip(runs, faults, strict=True):
            actor = Actor(faults=dict(hit))
            self._processes.start(actor, functools.partial(self._work, actor, run))

    def run(self, choices: list[tuple[int, int]]) -> list[str]:
        """Let a process take some steps, for each choice; then all, to their end.

        Returns what was wrong at any moment.
        """
        for process, steps in choices:
            for _ in range(steps):
                self._processes.step(process)
            self.store.land()
        while self._processes.step(0):
            pass
        self.store.land()
        return self.wrong + wrong_with(self.uri)

    def _work(self, actor: Actor, run: str) -> None:
        for _ in range(20):
            try:
                mine = batch(self.uri, run, write_scored)
                is_there = mine in commit.history(self.uri)
            except (StorageFailed, ConnectionError, LeaseLost):
                continue
            except Crashed:
                actor.is_crashed, actor.faults = False, {}
                continue
            if not is_there:
                self.wrong.append(f"{run} was told of a commit that is not there")
            return
        self.wrong.append(f"{run} never came to an end")

    def _look(self) -> None:
        newest = max((name for name in self.store.objects if "/manifests/" in name), default="")
        if newest > self._seen:
            self._seen = newest
            self.wrong += wrong_with(self.uri)


three = st.lists(st.sampled_from("AAB"), min_size=3, max_size=3)
hits = st.dictionaries(st.integers(0, 40), st.sampled_from(FAULTS), max_size=2)
schedules = {
    "runs": three,
    "faults": st.lists(hits, min_size=3, max_size=3),
    "choices": st.lists(st.tuples(st.integers(0, 2), st.integers(1, 24)), max_size=12),
}


@settings(max_examples=300, deadline=None, database=None, phases=[Phase.generate])
@given(**schedules)
def test_three_writers_in_any_order_never_commit_twice_or_backwards(runs, faults, choices):
    assert Schedule(runs, faults).run(choices) == []


@pytest.mark.soak
def test_three_writers_in_five_thousand_orders(scorecard):
    wrong = []

    @settings(max_examples=5_000, deadline=None, database=None, phases=[Phase.generate])
    @given(**schedules)
    def schedule(runs, faults, choices):
        wrong.extend(Schedule(runs, faults).run(choices))

    schedule()
    figure = f"5000 schedules of 3 writers, {len(wrong)} wrong"
    scorecard("R3", passed=not wrong, figure=figure)
    assert not wrong


def finds(told: str, *, seed: int = 1) -> bool:
    """Whether some random schedule finds what ``told`` says."""
    chosen = random.Random(seed)
    for _ in range(300):
        choices = [(chosen.randrange(3), chosen.randrange(1, 25)) for _ in range(8)]
        if any(told in wrong for wrong in Schedule(["A", "B", "A"], [{}, {}, {}]).run(choices)):
            return True
    return False


def test_a_store_without_conditional_put_is_found_out(monkeypatch):
    def overwrite(folder: str, number: int, document: bytes) -> bool:
        storage.write_atomic(chain.address(folder, number), document)
        return True

    monkeypatch.setattr(chain, "add", overwrite)
    assert finds("told of a commit that is not there")


def test_a_commit_that_only_takes_the_next_number_is_found_out(monkeypatch):
    def append(uri: str, wanted: commit.Manifest) -> commit.Manifest:
        revision = 1
        while not commit.create(uri, wanted.model_copy(update={"revision": revision})):
            revision += 1
        return commit.read_manifest(uri, revision)

    monkeypatch.setattr(commit, "_append", append)
    assert finds("committed twice")
    assert finds("of an older epoch")
