"""Delivery by BigQuery load jobs, against a local server that speaks their protocol."""

import os

import pytest

from headrace.healing import Patience
from tasks.batch.commit import read_predictions
from tasks.batch.deliver import DeliveryFailed, DeliveryRefused, bigquery, deliver
from tests.faults.proxy import Fault, FaultProxy
from tests.tasks.batch.deliver.bigquery_server import BigQueryServer

TO = "bigquery://my-project/scores/delay"


@pytest.fixture
def server():
    with BigQueryServer() as server:
        yield server


@pytest.fixture
def proxy(server, monkeypatch):
    monkeypatch.setattr(bigquery, "PATIENCE", Patience(attempts=8, first_wait_seconds=0.01))
    monkeypatch.setattr(bigquery, "_POLL_SECONDS", 0.01)
    with FaultProxy(server.url, seed=3) as proxy:
        monkeypatch.setenv(bigquery.EMULATOR, proxy.url)
        yield proxy


def test_every_row_arrives_in_one_job_named_by_the_run(committed, server, proxy):
    manifest, output = committed()
    done = deliver(manifest, output, TO)
    assert (done.rows, done.was_done) == (200, False)
    rows = server.rows("scores.delay")
    assert rows.drop_columns("run").to_pylist() == read_predictions(output).to_pylist()
    assert set(rows["run"].to_pylist()) == {"run-1"}
    (job,) = server.jobs
    assert job.startswith("headrace_run-1_")


def test_a_run_is_delivered_once(committed, server, proxy):
    manifest, output = committed()
    deliver(manifest, output, TO)
    again = deliver(manifest, output, TO)
    assert (again.rows, again.was_done) == (200, True)
    assert server.rows("scores.delay").num_rows == 200


@pytest.mark.parametrize("mode", ["reply_lost", "503", "reset", "cut_body"])
def test_the_rows_are_there_once_whatever_happens_to_requests(committed, server, proxy, mode):
    proxy.faults = [Fault(mode, times=1, methods={"POST"}), Fault(mode, share=0.3)]
    assert deliver(*committed(), TO).rows == 200
    assert proxy.done[mode] >= 1
    assert server.rows("scores.delay").num_rows == 200
    assert len(server.jobs) == 1


def test_a_large_upload_goes_in_chunks(committed, server, proxy, monkeypatch):
    monkeypatch.setattr("google.cloud.bigquery.client._MAX_MULTIPART_SIZE", 1000)
    monkeypatch.setattr("google.cloud.bigquery.client._DEFAULT_CHUNKSIZE", 1 << 18)
    manifest, output = committed(rows=60_000)
    monkeypatch.setenv(bigquery.EMULATOR, server.url)  # the session's address is the server's own
    assert deliver(manifest, output, TO).rows == 120_000
    assert len(server.uploads) == 1
    assert server.rows("scores.delay").num_rows == 120_000


def test_a_partition_is_replaced(committed, server, proxy):
    deliver(*committed("run-1"), f"{TO}$20130901")
    deliver(*committed("run-2", rows=10), f"{TO}$20130901")
    assert server.rows("scores.delay$20130901").num_rows == 20


def test_a_job_that_fails_is_told_and_may_be_delivered_after_it_was_mended(
    committed, server, proxy
):
    server.fails_with = ["Provided Schema does not match Table my-project:scores.delay."]
    manifest, output = committed()
    with pytest.raises(DeliveryFailed, match="Provided Schema does not match"):
        deliver(manifest, output, TO)
    assert deliver(manifest, output, TO).rows == 200
    assert len(server.jobs) == 2


def test_a_server_that_stays_away_is_given_up(committed, proxy):
    proxy.faults = [Fault("503")]
    with pytest.raises(DeliveryFailed, match="committed, and nothing of them is visible"):
        deliver(*committed(), TO)


def test_no_credentials_are_told_with_the_remedy(committed, monkeypatch, tmp_path):
    monkeypatch.delenv(bigquery.EMULATOR, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    assert bigquery.EMULATOR not in os.environ
    with pytest.raises(DeliveryRefused, match="Set GOOGLE_APPLICATION_CREDENTIALS"):
        deliver(*committed(), TO)
