"""The online server beside its peers: requests a second on one core, latency, start and size.

The server on one core, wrk (and Redis) on the other, 64 connections, single-row JSON requests,
XGBoost with 200 trees of depth 6 and 20 features, every answer checked. Peers run in environments
of their own (``make bench-serving-peers``); one that is not there is named and its figure is null.

``raw``: the 20 features are in the request. ``keys``: an entity is, drawn by Zipf from 100,000, and
its features are read from Redis (rows of entities may be one second old). ``rows``: requests of
10,000 rows as binary tensors, over the bare model called in one process. ``constant``: a fixed
answer, what the HTTP stack itself can do.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import _wrk
from benchmarks._serving_peers import Peer, peers
from benchmarks._serving_world import (
    COLUMNS,
    ENDPOINT,
    RAW_PATH,
    World,
    keyed_questions,
    make_world,
    raw_questions,
)
from benchmarks._wrk import Load, Questions
from benchmarks.harness import Figures, redis_server, show
from benchmarks.serving_grpc import grpc_over_empty_unary
from benchmarks.serving_peers.__main__ import python_of

ENTITIES, QUICK_ENTITIES = 100_000, 10_000
ROWS = 10_000
GOALS = {
    "raw_rps": ">= 30,000",
    "raw_p95_ms": "< 5",
    "raw_over_best_peer": ">= 15",
    "raw_over_constant_uvicorn": "> 1",
    "keys_rps": ">= 20,000",
    "keys_p95_ms": "< 8",
    "keys_over_feast_sdk": ">= 40",
    "rows_over_bare_model": ">= 0.8",
    "grpc_over_empty_unary": ">= 0.5",
    "first_answer_seconds": "< 2",
    "rss_mb": "< 150",
    "install_mb": "< 400",
    "wrong": "0",
    "errors": "0",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    told = _arguments(argv)
    seconds = 3 if told.quick else 10
    with tempfile.TemporaryDirectory() as name, _on_core(_wrk.CLIENT_CORE, Path(name)) as redis:
        entities = QUICK_ENTITIES if told.quick else ENTITIES
        world = make_world(Path(name), redis, entities=entities)
        loads: dict[str, Load | None] = {}
        if "ours" in told.only:
            loads |= ours(world, told.python, entities, seconds)
        if "peers" in told.only:
            loads |= {p.name: peer(p, world, seconds) for p in peers(entities)}
        figures = figures_of(loads)
        if "ours" in told.only:
            figures |= around(world, told.python, quick=told.quick)
    show("serving", [*_load_rows(loads), *_figure_rows(figures)], figures)


def ours(world: World, python: str, entities: int, seconds: int) -> dict[str, Load | None]:
    """Our server: raw features, entity keys, and the same protocol class with a constant answer."""
    loads: dict[str, Load | None] = {}
    with headrace(world, python, raw_questions(world)) as (pid, port):
        loads["raw"] = best(pid, port, raw_questions(world), seconds)
    questions = keyed_questions(world, entities)
    with headrace(world, python, questions, HEADRACE_SERVER_CACHE_SECONDS="1") as (pid, port):
        loads["keys"] = best(pid, port, questions, seconds)
    return loads


def best(pid: int, port: int, questions: Questions, seconds: int) -> Load:
    """The better of two loads after one that warms the server up; faults are added up."""
    _wrk.load(pid, port, questions, seconds=2)
    loads = [_wrk.load(pid, port, questions, seconds=seconds) for _ in range(2)]
    fastest = max(loads, key=lambda load: load.rps)
    print(f"{questions.path}: {fastest}", file=sys.stderr, flush=True)
    wrong, errors = (sum(getattr(load, n) for load in loads) for n in ("wrong", "errors"))
    return Load(**(vars(fastest) | {"wrong": wrong, "errors": errors}))


@contextlib.contextmanager
def headrace(
    world: World, python: str, questions: Questions, **settings: str
) -> Iterator[tuple[int, int]]:
    """Our server; its process id and port."""
    port = _wrk.free_port()
    command = [python, "-m", "serving", "--endpoint", ENDPOINT, "--port", port]
    with _wrk.server(
        command, environment(world, **settings), port=port, questions=questions
    ) as pid:
        yield pid, port


def environment(world: World, **settings: str) -> dict[str, str]:
    """The environment of our server."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    home, store = str(world.settings.home), str(world.settings.online_uri)
    return clean | {"HEADRACE_HOME": home, "HEADRACE_ONLINE_STORE": store} | settings


def peer(one: Peer, world: World, seconds: int) -> Load | None:
    """A load on a peer; None where it is not installed."""
    python = sys.executable if one.environment == "ours" else python_of(one.environment)
    if python is None:
        print(f"{one.name} is not installed: run make bench-serving-peers", file=sys.stderr)
        return None
    port, questions = _wrk.free_port(), one.questions(world)
    env = environment(world, MODEL=str(world.model), RAY_DEDUP_LOGS="0")
    with _wrk.server(
        one.command(world, str(python), port), env, port=port, questions=questions
    ) as p:
        return best(p, port, questions, seconds)


def figures_of(loads: dict[str, Load | None]) -> Figures:
    """The figures that come from loads."""
    figures: Figures = {}
    raw, keys = loads.get("raw"), loads.get("keys")
    rps = {name: load.rps for name, load in loads.items() if load is not None}
    for name, load in (("raw", raw), ("keys", keys)):
        if load is not None:
            figures |= {f"{name}_rps": load.rps, f"{name}_p95_ms": load.p95_ms}
            figures[f"{name}_cpu_us"] = load.cpu_us
    rivals = [
        rps[name] for name in ("bentoml", "mlserver", "ray", "litserve", "fastapi") if name in rps
    ]
    if raw is not None:
        figures["raw_over_best_peer"] = raw.rps / max(rivals) if rivals else None
        figures["raw_over_constant_uvicorn"] = _ratio(raw.rps, rps.get("constant_uvicorn"))
        figures["raw_over_constant_limit"] = _ratio(raw.rps, rps.get("constant_limit"))
    if keys is not None:
        figures["keys_over_feast_sdk"] = _ratio(keys.rps, rps.get("fastapi_feast"))
    ours_only = [load for load in (raw, keys) if load is not None]
    figures["wrong"] = sum(load.wrong for load in ours_only)
    figures["errors"] = sum(load.errors for load in ours_only)
    return figures


def around(world: World, python: str, *, quick: bool) -> Figures:
    """Large requests, gRPC, the start, and what the server takes on disk and in memory."""
    figures = rows_over_bare(world, python)
    figures["grpc_over_empty_unary"] = grpc_over_empty_unary(calls=4_000 if quick else 20_000)
    starts = [start(world, python) for _ in range(2 if quick else 5)]
    figures["first_answer_seconds"] = min(seconds for seconds, _ in starts)
    figures["rss_mb"] = max(megabytes for _, megabytes in starts)
    figures["install_mb"] = None if quick else install_megabytes(world.folder / "install")
    return figures


def start(world: World, python: str) -> tuple[float, float]:
    """Seconds from the start of the process to its first answer, and its resident megabytes."""
    begun = time.perf_counter()
    with headrace(world, python, raw_questions(world)) as (pid, _):
        seconds = time.perf_counter() - begun
        time.sleep(1)
        return seconds, _resident_megabytes(pid)


def rows_over_bare(world: World, python: str) -> Figures:
    """Rows a second of requests of 10,000 rows, over those of a bare model in one process.

    ``rows_over_bare_model`` is over XGBoost's own predictor through its C entry,
    ``rows_over_bare_kernel`` over the forest kernel that answers in the server too.
    """
    from serving.runtimes.booster import Booster
    from serving.runtimes.xgboost import XGBoostRuntime

    matrix = np.tile(world.rows, (ROWS // len(world.rows) + 1, 1))[:ROWS].copy()
    runtime, booster = XGBoostRuntime(world.ubjson), Booster(world.ubjson)
    runtime.wait_for_kernel()
    kernel = _fastest(lambda: runtime.predict(matrix))
    bare = _fastest(lambda: booster.predict(matrix))
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "features", "shape": [ROWS, COLUMNS], "datatype": "FP32",
                    "parameters": {"binary_data_size": matrix.nbytes},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()  # fmt: skip
    with headrace(world, python, raw_questions(world)) as (_, port):
        url = f"http://127.0.0.1:{port}{RAW_PATH}"
        headers = {"Inference-Header-Content-Length": str(len(head))}
        request = urllib.request.Request(url, head + matrix.tobytes(), headers)

        def ask() -> bytes:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return bytes(answer.read())

        if ask()[-4 * ROWS :] != runtime.predict(matrix).tobytes():
            raise SystemExit("a large request gives other predictions than the bare model")
        served = _fastest(ask)
    return {"rows_over_bare_model": bare / served, "rows_over_bare_kernel": kernel / served}


def install_megabytes(folder: Path) -> float:
    """What the server takes on disk, installed as docs/serving.md says, without pip itself."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet"]
    locked = ["--no-deps", "--require-hashes", "--requirement", "requirements-serving.lock"]
    subprocess.run([*pip, *locked], check=True)
    subprocess.run([*pip, "--no-deps", "."], check=True)
    done = subprocess.run(["du", "-sm", folder / "lib"], capture_output=True, text=True, check=True)
    shutil.rmtree(folder)
    return float(done.stdout.split()[0])


def _fastest(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(30):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def _resident_megabytes(first: int) -> float:
    """Of a process and all below it; pages that they share are counted once."""
    total = 0.0
    for process in _wrk.processes_of(first):
        facts = dict(
            line.split(":", 1) for line in (process / "smaps_rollup").open() if ":" in line
        )
        total += int(facts["Pss"].split()[0]) / 1024
    return total


def _ratio(ours: float, theirs: float | None) -> float | None:
    return None if theirs is None else ours / theirs


def _load_rows(loads: dict[str, Load | None]) -> list[tuple[str, str, str]]:
    rows = []
    for name, load in loads.items():
        if load is None:
            rows.append((name, "not installed", ""))
        else:
            told = f"{load.rps:>9,.0f} a second, p95 {load.p95_ms:.1f} ms, {load.cpu_us:.1f} CPU-us"
            rows.append((name, told, f"wrong {load.wrong}, errors {load.errors}"))
    return rows


def _figure_rows(figures: Figures) -> list[tuple[str, str, str]]:
    return [
        (name, "-" if value is None else f"{value:,.2f}", GOALS.get(name, ""))
        for name, value in figures.items()
    ]


@contextlib.contextmanager
def _on_core(core: str, folder: Path) -> Iterator[str]:
    """A Redis server on a core; its address."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(core)})
    with redis_server(folder) as url:
        os.sched_setaffinity(0, cores)
        yield url


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("--quick", action="store_true", help="shorter loads, fewer entities")
    parser.add_argument("--only", nargs="+", default=["ours", "peers"], choices=["ours", "peers"])
    parser.add_argument("--python", default=sys.executable, help="the environment of our server")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
