import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.catalog.catalog import Catalog
from featurestore.columns import TIMESTAMP
from featurestore.stores.materialize import materialize
from headrace.settings import Settings
from monitoring.inference_log import read_log
from serving.__main__ import main

HEAVY = (
    "prefect", "feast", "mlflow", "evidently", "pandas", "scipy", "sklearn", "xgboost", "dask",
    "onnx", "onnxruntime", "torch", "grpc",
)  # fmt: skip
WRITTEN = datetime(2013, 8, 1, 11, 30, tzinfo=UTC)


def write_table(settings, name, columns):
    times = dict.fromkeys(("event_timestamp", "created_timestamp"), pa.array([WRITTEN], TIMESTAMP))
    path = settings.home / "storage" / "offline" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, **times}), path)


@pytest.fixture
def home(tmp_path, store, plan):
    """A home folder with a release, a bundle and a materialised online store of two entities."""
    settings = Settings(home=tmp_path)
    weather = {"origin": ["JFK"], "temperature": [71.5], "wind_speed": [12.0]}
    write_table(settings, "weather", weather)
    write_table(settings, "planes", {"tailnum": ["N123AA"], "seats": [178.0]})
    catalog = Catalog(
        project=plan.project, definitions_sha256="0" * 64, views=plan.views, services={}
    )
    materialize(settings, catalog, until=WRITTEN + timedelta(minutes=1))
    store.release(store.bundle())
    return tmp_path


@contextlib.contextmanager
def running(home, *arguments):
    """A server in a process of its own, and the address in its ready line."""
    command = [sys.executable, "-m", "serving", "--port", "0", *arguments]
    environment = os.environ | {
        "HEADRACE_HOME": str(home),
        "HEADRACE_SERVER_POLL_SECONDS": "0.05",
        "HEADRACE_SERVER_LOG_FLUSH_SECONDS": "600",
    }
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process, re.search(r"http://[\d.:]+", process.stdout.readline())[0]
    finally:
        process.kill()
        process.communicate()


def test_a_server_starts_answers_from_the_store_and_ends_in_order(home, store, instance, booster):
    with running(home) as (process, url):
        body = httpx.post(f"{url}/api/v1/infer", json={"instances": [instance()]}).json()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    wanted = booster().inplace_predict(np.array([[71.5, 12, 178, 2475, 8]], np.float32))
    assert np.float32(body["predictions"][0]["prediction"]) == wanted[0]
    assert body["predictions"][0]["features"] == {"weather": "present", "planes": "present"}
    now = datetime.now(UTC)
    (row,) = read_log(
        store.root, "flight_delay", since=now - timedelta(hours=1), until=now + timedelta(hours=1)
    ).to_pylist()
    assert row["request_id"] == body["request_id"]
    assert row["event_time__weather"] == WRITTEN


def test_values_too_old_or_not_known_yet_are_told_apart(home, instance):
    moments = ("2013-08-01T11:00:00Z", "2013-08-01T12:00:00Z", "2013-08-01T13:00:00Z")
    rows = [instance(scheduled_departure=moment) for moment in moments]
    with running(home) as (_, url):
        body = httpx.post(f"{url}/api/v1/infer", json={"instances": rows}).json()
    states = [row["features"]["weather"] for row in body["predictions"]]
    assert states == ["future", "present", "expired"]


def test_a_release_moves_under_load_without_one_failed_request(home, store, instance, booster):
    row = np.array([[71.5, 12, 178, 2475, 8]], np.float32)
    digests = {store.digests[0]: booster().inplace_predict(row)[0]}
    seen, wrong, stop = set(), [], threading.Event()

    def ask(url):
        with httpx.Client() as client:
            while not stop.is_set():
                response = client.post(f"{url}/api/v1/infer", json={"instances": [instance()]})
                body = response.json()
                seen.add(body.get("digest"))
                given = np.float32(body["predictions"][0]["prediction"])
                if response.status_code != 200 or given != digests[body["digest"]]:
                    wrong.append(body)

    def wait_until_seen(digest):
        deadline = time.monotonic() + 30  # beside other tests a server gets little time
        while digest not in seen and time.monotonic() < deadline:
            time.sleep(0.01)

    with running(home) as (_, url):
        askers = [threading.Thread(target=ask, args=(url,)) for _ in range(3)]
        for asker in askers:
            asker.start()
        wait_until_seen(store.digests[0])
        for seed in (1, 2, 3):
            digest = store.bundle(seed=seed)
            digests[digest] = booster(seed).inplace_predict(row)[0]
            store.release(digest)
            wait_until_seen(digest)
        stop.set()
        for asker in askers:
            asker.join()
    assert wrong == []
    assert seen == set(store.digests)


def test_a_server_that_has_answered_stays_small_and_without_pandas(home, store, instance):
    with running(home, "--endpoint", "flight_delay") as (process, url):
        body = {"instances": [instance()] * 100}
        for _ in range(20):
            assert httpx.post(f"{url}/api/v1/infer", json=body).status_code == 200
        status = Path(f"/proc/{process.pid}/status").read_text().split()
        maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert int(status[status.index("VmRSS:") + 1]) < 150_000
    assert "/pandas/" not in maps


def test_serving_starts_without_the_heavy_libraries_and_within_150_mb():
    code = (
        "import json, sys, serving.app, serving.listener, uvloop, httptools\n"
        "import featurestore.online.reader\n"
        "from serving.runtimes.booster import _library; _library()\n"
        "status = open('/proc/self/status').read().split()\n"
        "print(json.dumps([status[status.index('VmRSS:') + 1], list(sys.modules)]))"
    )
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    resident_kb, modules = json.loads(process.stdout)
    assert not {name.split(".")[0] for name in modules} & set(HEAVY)
    assert int(resident_kb) < 150_000


def test_help_loads_neither_numpy_nor_the_web_framework():
    code = (
        "import sys, serving.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: print(sorted({'numpy', 'starlette', 'pydantic'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert process.stdout.decode().rstrip().endswith("[]")


@pytest.fixture
def at_home(home, monkeypatch):
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    return home


def test_a_taken_port_is_one_clear_error(at_home, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: cannot listen on 127.0.0.1:{port}: Address already in use")
    assert "--port" in said


def test_an_endpoint_without_a_release_is_one_clear_error(at_home, capsys):
    assert main(["--endpoint", "flight_dealy", "--port", "0"]) == 2
    assert "did you mean 'flight_delay'?" in capsys.readouterr().err


def test_a_changed_bundle_is_one_clear_error(at_home, store, capsys):
    model = at_home / "storage" / "bundles" / store.digests[0] / "model.ubj"
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    assert main(["--port", "0"]) == 1
    assert "model.ubj was changed" in capsys.readouterr().err


def test_an_online_store_that_is_not_there_is_one_clear_error(at_home, capsys):
    (at_home / "online.db").unlink()
    assert main(["--port", "0"]) == 1
    assert "python -m flows.materialize" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HEADRACE_SERVER_PORT", "http", "HEADRACE_SERVER_PORT = 'http' is refused"),
        ("HEADRACE_SERVER_MAX_ROWS", "0", "greater than or equal to 1 (most rows in one request)"),
        ("HEADRACE_SERVER_ENDPOINT", "../x", "endpoint name '../x' is refused"),
        ("HEADRACE_SERVER_PROT", "1", "did you mean 'HEADRACE_SERVER_PORT'?"),
    ],
)
def test_a_wrong_variable_is_named_before_anything_starts(
    monkeypatch, capsys, variable, value, said
):
    monkeypatch.setenv(variable, value)
    assert main([]) == 2
    assert said in capsys.readouterr().err
