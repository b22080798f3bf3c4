"""Delivery into a real PostgreSQL server."""

import os
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from tasks.batch.commit import read_predictions
from tasks.batch.deliver import DeliveryFailed, DeliveryRefused, deliver, postgresql
from tasks.batch.parts import PartRefused


def rows_of(postgres, table="delay", order="row"):
    with psycopg.connect(postgres) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()


def test_every_row_and_value_arrives(committed, postgres):
    manifest, output = committed()
    done = deliver(manifest, output, f"{postgres}/scores.delay")
    assert (done.rows, done.was_done) == (200, False)
    wanted = read_predictions(output).to_pylist()
    for row in wanted:
        assert row.pop("at").isoformat() == "2013-09-01T00:00:00+00:00"
    found = rows_of(postgres, "scores.delay")
    as_written = [(r["row"], r["origin"], r["prediction"], "run-1") for r in wanted]
    # psycopg reads a real as the shortest decimal of the float32.
    assert [(a, b, pytest.approx(d, rel=1e-6), e) for a, b, _, d, e in found] == as_written
    assert found[0][2].isoformat().startswith("2013-09-01T00:00:00")


def test_a_run_is_delivered_once(committed, postgres):
    manifest, output = committed()
    deliver(manifest, output, f"{postgres}/delay")
    again = deliver(manifest, output, f"{postgres}/delay")
    assert (again.rows, again.was_done) == (200, True)
    assert len(rows_of(postgres)) == 200


def test_a_later_run_of_the_output_replaces_the_earlier_one_and_leaves_others(committed, postgres):
    deliver(*committed("run-1", output="september"), f"{postgres}/delay")
    deliver(*committed("run-2", output="october"), f"{postgres}/delay")
    old = committed("run-3", rows=10, output="september")
    deliver(*old, f"{postgres}/delay")
    with psycopg.connect(postgres) as connection:
        counts = dict(connection.execute("SELECT run, count(*) FROM delay GROUP BY run"))
    assert counts == {"run-2": 200, "run-3": 20}


def test_an_older_revision_does_not_replace_a_newer_one(committed, postgres):
    older, output = committed("run-1")
    newer, _ = committed("run-2")
    deliver(newer, output, f"{postgres}/delay")
    with pytest.raises(DeliveryRefused, match=r"revision 2 .* newer than 1"):
        deliver(older, output, f"{postgres}/delay")


def test_a_table_whose_columns_do_not_fit_is_refused_and_left_alone(committed, postgres):
    with psycopg.connect(postgres) as connection:
        connection.execute(
            "CREATE TABLE delay (row bigint, prediction text, run text, must int NOT NULL)"
        )
    with pytest.raises(DeliveryRefused) as refused:
        deliver(*committed(), f"{postgres}/delay")
    told = str(refused.value)
    assert "column origin (text) is missing" in told
    assert "column prediction is text, but must be real or double precision" in told
    assert "column must may not be null" in told
    assert rows_of(postgres) == []


def test_a_table_of_the_users_own_with_wider_types_is_filled(committed, postgres):
    with psycopg.connect(postgres) as connection:
        connection.execute(
            "CREATE TABLE delay (id serial, run varchar, prediction double precision, "
            "row numeric, origin varchar(20), at timestamptz, note text)"
        )
    assert deliver(*committed(), f"{postgres}/delay").rows == 200
    assert len(rows_of(postgres)) == 200


def test_a_damaged_part_delivers_nothing(committed, postgres, tmp_path):
    manifest, output = committed()
    last = list(manifest.files())[-1]
    path = tmp_path / "out" / "parts" / last.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PartRefused, match="SHA-256"):
        deliver(manifest, output, f"{postgres}/delay")
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT to_regclass('delay')").fetchone() == (None,)


def test_a_delivery_that_is_killed_half_way_leaves_nothing(committed, postgres):
    manifest, output = committed(rows=30_000)
    deliver(*committed("run-0", rows=10, output="other"), f"{postgres}/delay")
    command = [sys.executable, "-c", _SLOW_DELIVERY, output, f"{postgres}/delay"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"half\n"  # rows are on their way
        process.send_signal(signal.SIGKILL)
    assert len(rows_of(postgres)) == 20
    assert deliver(manifest, output, f"{postgres}/delay").was_done is False
    assert len(rows_of(postgres)) == 60_020


_SLOW_DELIVERY = """
import sys, time
from tasks.batch.commit import read_manifest
from tasks.batch.deliver import deliver, postgresql

batches = postgresql.committed_batches
def slow(manifest, output):
    for number, batch in enumerate(batches(manifest, output)):
        if number:
            print("half", flush=True)
            time.sleep(60)
        yield batch
postgresql.committed_batches = slow
deliver(read_manifest(sys.argv[1]), *sys.argv[1:])
"""


def test_a_lost_reply_to_the_commit_is_found_out(committed, postgres, monkeypatch):
    manifest, output = committed()
    lost = []
    real = postgresql._deliver

    def commit_and_lose_the_reply(connection, *rest):
        done = real(connection, *rest)
        if not lost:
            lost.append(done)
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return done

    monkeypatch.setattr(postgresql, "_deliver", commit_and_lose_the_reply)
    done = deliver(manifest, output, f"{postgres}/delay")
    assert (done.rows, done.was_done) == (200, True)
    assert len(rows_of(postgres)) == 200


def test_two_deliveries_of_one_run_at_once_are_one(committed, postgres):
    manifest, output = committed()
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(deliver(manifest, output, f"{postgres}/delay"))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.was_done for result in results) == [False, True, True, True]
    assert len(rows_of(postgres)) == 200


def test_a_server_that_refuses_is_named_without_a_secret(committed, postgres, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    with pytest.raises(DeliveryFailed, match=r"database .* does not exist") as failed:
        deliver(*committed(), postgres.rsplit("/", 1)[0] + "/nowhere/delay")
    assert "hunter2" not in str(failed.value)


def test_nobody_listening_is_told_after_some_tries(committed, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(DeliveryFailed, match="committed, and nothing of them is visible"):
        deliver(*committed(), "postgresql://postgres@127.0.0.1:9/x/delay")
    assert os.environ.get("PGPASSWORD") is None
