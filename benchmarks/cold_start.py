"""What it costs to start: the server, each flow's --help, and Prefect around a second run.

Whole processes, timed from outside. The overhead of a second run is a flow with nothing left to do
(``flows.materialize`` on a materialised store, against the kept Prefect server) minus a bare Python
process that does the same work without Prefect.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from benchmarks.harness import (
    SAMPLE_UNTIL,
    Figures,
    arguments,
    environment,
    seconds_of,
    show,
    small_world,
)
from headrace.settings import Settings
from headrace.window import Window
from tasks import prefect_server
from tasks.sample import request_rows
from tasks.serving_check import running_server

FLOWS = ["quickstart", "materialize", "train", "deploy", "batch_predict", "check_drift", "retrain"]
"""``quickstart`` imports all the others, so none can be slower: ``--quick`` measures it alone."""
DAY = Window(since=SAMPLE_UNTIL - timedelta(days=1), until=SAMPLE_UNTIL)
BARE_WORK = """
from featurestore.catalog.catalog import load_catalog
from featurestore.stores.materialize import materialize
from featurestore.offline.tables import table_span
from headrace.settings import load_settings
settings = load_settings()
catalog = load_catalog(settings)
root = settings.uri("offline")
until = max(table_span(root, v.table, v.created_timestamp)[1] for v in catalog.views)
materialize(settings, catalog, until=until)
"""
IMPORT = """
import importlib, json, sys, time
begun = time.perf_counter()
importlib.import_module(sys.argv[1])
seconds = time.perf_counter() - begun
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([seconds, int(status["VmHWM"].split()[0]) / 1024]))
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    quick = arguments("cold_start", argv).quick
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with ThreadPoolExecutor(1) as pool:  # the server starts while the model is trained
            starting = pool.submit(prefect_server.ensure_server, Settings(home=home))
            settings = small_world(home)
            starting.result()
        try:
            measure(settings, FLOWS[:1] if quick else FLOWS, rounds=1 if quick else 5)
        finally:
            prefect_server.stop(settings)


def measure(settings: Settings, flows: Sequence[str], *, rounds: int) -> None:
    """Run every measurement ``rounds`` times and show the medians."""
    env = environment(settings)
    modules = ["serving.app", *(f"flows.{flow}" for flow in flows)]
    imports = {module: import_cost(module, env) for module in modules}
    helps = {
        flow: median(lambda f=flow: seconds_of(["-m", f"flows.{f}", "--help"], env), rounds)
        for flow in flows
    }
    servers = [first_answer(settings) for _ in range(rounds)]
    flow = ["-m", "flows.materialize"]
    seconds_of(flow, env)  # the first run; the second and later are what counts
    whole = median(lambda: seconds_of(flow, env), rounds)
    bare = median(lambda: seconds_of(["-c", BARE_WORK], env), rounds)
    first = statistics.median(seconds for seconds, _ in servers)
    memory = max(megabytes for _, megabytes in servers)
    figures: Figures = {
        "server_first_answer_seconds": first,
        "server_rss_mb": memory,
        "slowest_flow_help_seconds": max(helps.values()),
        "second_run_overhead_seconds": whole - bare,
        "second_run_seconds": whole,
        "bare_work_seconds": bare,
    }
    rows = [
        (f"import {module}", f"{seconds:.2f} s, {megabytes:.0f} MB", "")
        for module, (seconds, megabytes) in imports.items()
    ]
    rows += [
        (f"flows.{flow} --help", f"{seconds:.2f} s", "<= 3 s") for flow, seconds in helps.items()
    ]
    rows += [
        (
            "server: start to first answer",
            f"{first:.2f} s",
            "<= 2 s",
        ),
        ("server: resident memory", f"{memory:.0f} MB", "<= 150 MB"),
        ("second run of flows.materialize", f"{whole:.2f} s", ""),
        ("the same work without Prefect", f"{bare:.2f} s", ""),
        ("overhead of a second run", f"{whole - bare:.2f} s", "<= 5 s"),
    ]
    show("cold_start", rows, figures)


def first_answer(settings: Settings) -> tuple[float, float]:
    """Seconds from starting a server to its first prediction, and its memory after it in MB."""
    body = json.dumps({"instances": request_rows(settings, "flight_delay", DAY, rows=1)}).encode()
    begun = time.perf_counter()
    with running_server(settings, "flight_delay") as server:
        request = urllib.request.Request(f"{server.url}/api/v1/infer", body)
        with urllib.request.urlopen(request, timeout=30) as reply:
            reply.read()
        seconds = time.perf_counter() - begun
        status = Path(f"/proc/{server.pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return seconds, int(kilobytes) / 1024


def import_cost(module: str, env: Mapping[str, str]) -> tuple[float, float]:
    """Seconds and peak memory in MB of importing a module in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, module],
        env=dict(env),
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, megabytes = json.loads(done.stdout.splitlines()[-1])
    return seconds, megabytes


def median(measure_once, rounds: int) -> float:
    """The median of some measurements."""
    return statistics.median(measure_once() for _ in range(rounds))


if __name__ == "__main__":
    main()
