"""Progress is told to Prefect while the run goes on, and never holds it up."""

import json
import logging

import httpx
import pytest

from tasks.batch import progress
from tasks.batch.output import ShardRecord
from tasks.batch.parts import File
from tasks.batch.plan import Files, Options, make_plan
from tasks.batch.progress import Progress


@pytest.fixture
def plan(settings, plain, write_input, numbers):
    """Four shards of ten rows."""
    source = Files(uri=str(write_input(numbers(40), row_group_size=10)))
    return make_plan(settings, source, Options(rows_per_shard=10), digest=plain)


@pytest.fixture
def told(monkeypatch):
    """What Prefect is told, instead of Prefect."""
    calls = []

    class Client:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update_artifact(self, _, update):
            calls.append(("table", json.loads(update.data)))

    def create_table(**given):
        calls.append(("table", given["table"]))
        return "table id"

    def create(**given):
        calls.append(("share", given["progress"]))
        return "progress id"

    monkeypatch.setattr(progress, "create_progress_artifact", create)
    monkeypatch.setattr(progress, "create_table_artifact", create_table)
    monkeypatch.setattr(
        progress,
        "update_progress_artifact",
        lambda _, progress: calls.append(("share", progress)),
    )
    monkeypatch.setattr(progress, "get_client", lambda **_: Client())
    return calls


def record(shard, rejected=0):
    def file(name, rows):
        return File(name=name, rows=rows, sha256="0" * 64, bytes=1)

    left = file("rejected", rejected) if rejected else None
    return ShardRecord(shard=shard, rows=10, predicted=file("part", 10 - rejected), rejected=left)


def test_every_shard_has_a_state_and_the_worst_come_first(plan, told):
    ids = [shard.id for shard in plan.shards]
    with Progress(plan, logging.getLogger("test"), recorded=frozenset(ids[:1])) as run:
        run.done(record(ids[0]))
        run.began(ids[1])
        run.done(record(ids[1], rejected=3))
        run.began(ids[2])
        run.failed(ids[3], ValueError("no luck"))
    shares = [value for what, value in told if what == "share"]
    table = [value for what, value in told if what == "table"][-1]
    states = {row["shard"]: row["state"] for row in table}
    assert shares[-1] == 50.0
    assert [states[shard] for shard in ids] == ["kept", "done", "running", "failed"]
    assert (table[0]["state"], table[0]["reason"]) == ("failed", "no luck")
    assert {row["rejected"] for row in table} == {0, 3}


def test_a_prefect_that_is_away_is_told_of_once_and_holds_up_nothing(
    plan, told, monkeypatch, caplog
):
    def away(**_):
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr(progress, "create_progress_artifact", away)
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.01)
    with Progress(plan, logging.getLogger("test"), recorded=frozenset()) as run:
        for shard in plan.shards:
            run.done(record(shard.id))
    said = [one for one in caplog.records if "cannot be told" in one.getMessage()]
    assert len(said) == 1
    assert not told


def test_the_log_says_rows_and_time_left(plan, told, caplog):
    caplog.set_level(logging.INFO)
    with Progress(plan, logging.getLogger("test"), recorded=frozenset()) as run:
        run.done(record(plan.shards[0].id))
    assert "10 of 40 rows (25%)" in caplog.text
    assert "shards: 3 waiting, 1 done" in caplog.text
