"""What benchmarks share: a timed process, a small world, a Redis server, a table with its JSON."""

import argparse
import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from headrace import telemetry
from headrace.settings import Settings

Figures = dict[str, float | None]
SAMPLE_UNTIL = datetime(2013, 2, 1, tzinfo=UTC)


def arguments(name: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags of a benchmark."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: done within 50 s")
    return parser.parse_args(argv)


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """A process's environment in which Headrace lives in ``settings.home``."""
    telemetry.turn_off()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HEADRACE_", "PREFECT_"))}
    return clean | {"HEADRACE_HOME": str(settings.home)} | more


def seconds_of(command: Sequence[str], env: Mapping[str, str]) -> float:
    """The wall time of a whole Python process, from its start to its end; it must succeed."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], env=dict(env), capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return seconds


def small_world(home: Path) -> Settings:
    """A home with sample flights of a month, materialised, and a released model; no Prefect."""
    from featurestore.catalog.catalog import load_catalog
    from featurestore.flights.sources import write_tables
    from featurestore.stores.materialize import materialize
    from headrace import bundle, release
    from headrace.spec import load_spec
    from tasks import bundling, fitting, training_sets

    settings = Settings(home=home)
    write_tables(settings.uri("offline"), until=SAMPLE_UNTIL)
    materialize(settings, load_catalog(settings), until=SAMPLE_UNTIL)
    spec = load_spec("flight_delay").model_copy(
        update={"validation": load_spec("flight_delay").validation.model_copy(update={"days": 10})}
    )
    training_set = training_sets.make_training_set(settings, spec, since=None, until=None)
    fitted = fitting.fit(settings, spec, training_set)
    card = fitting.score_holdout(spec, training_set, fitted)
    manifest, files = bundling.bundle_of(spec, training_set, fitted=fitted, card=card, gates=())
    digest = bundle.write_bundle(settings.uri("bundles"), manifest, files)
    release.move_release(
        settings.storage_uri, spec.name, champion=digest, expected=0, by="benchmark", reason="first"
    )
    return settings


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis server of the benchmark's own, which writes no file; its address."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is not installed (Debian: apt-get install redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit("redis-server does not start")


def show(title: str, rows: Sequence[tuple[str, str, str]], figures: Figures) -> None:
    """Print a table (what, figure, goal or peer) and the figures as the last line."""
    print(f"{title}: Python {platform.python_version()}, {os.cpu_count()} cores\n")
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    print()
    rounded = {n: round(v, 3) if isinstance(v, float) else v for n, v in figures.items()}
    print(json.dumps(rounded))
