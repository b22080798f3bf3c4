"""What the whole suite shares: one Prefect server, and one small world trained on real flights."""

import contextlib
import importlib
import io
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from filelock import FileLock
from google.protobuf.timestamp_pb2 import Timestamp

from featurestore.stores import packed, redis_layout
from featurestore.wire.numbers import decode_numbers
from headrace import telemetry
from headrace.plan import ViewRead
from headrace.settings import Settings

telemetry.turn_off()

pytest_plugins = ["tests.scorecard", "tests.s3", "tests.postgres"]

SAMPLE_UNTIL = datetime(2013, 4, 1, tzinfo=UTC)
TRAINED_UNTIL = "2013-03-01"


def _without_settings_of_the_person() -> None:
    for variable in list(os.environ):
        if variable.startswith(("HEADRACE_", "PREFECT_")):
            del os.environ[variable]


_without_settings_of_the_person()
telemetry.turn_off()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, and those of the full year's home, which is dear.

    The slow files come first: then no process is left alone with a long one at the end.
    """
    groups = {item: _group(item) for item in items}
    slow = {group for item, group in groups.items() if item.get_closest_marker("slow")}
    items.sort(key=lambda item: groups[item] not in slow)
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))


def _group(item: pytest.Item) -> str:
    return "demo_home" if "demo_home" in getattr(item, "fixturenames", ()) else str(item.path)


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Prefect server for the whole suite, the kept one in a home of its own."""
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tasks import prefect_server

    settings = Settings(home=tmp_path_factory.mktemp("prefect-home"))
    os.environ["PREFECT_API_URL"] = prefect_server.ensure_server(settings).api_url
    # Prefect has read its settings by now: without this, a flow called directly starts a server.
    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
        yield os.environ["PREFECT_API_URL"]
    APILogWorker.drain_all()  # the last lines of the last flow, before nobody takes them
    del os.environ["PREFECT_API_URL"]
    prefect_server.stop(settings)


@dataclass(frozen=True)
class World:
    """A home folder, and the flows run in it as commands."""

    home: Path

    @property
    def settings(self) -> Settings:
        """The settings that its flows see."""
        return Settings(home=self.home)

    def report(self, flow: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run a flow with ``--json``; return its exit code and its report."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            code = self.run(flow, *arguments, "--json")
        return code, json.loads(printed.getvalue() or "{}")

    def run(self, flow: str, *arguments: str) -> int:
        """Run ``python -m flows.<flow> <arguments>`` in this process; return its exit code."""
        os.environ["HEADRACE_HOME"] = str(self.home)
        try:
            main: Callable[[list[str]], int] = importlib.import_module(f"flows.{flow}").main
            return main(list(arguments))
        finally:
            del os.environ["HEADRACE_HOME"]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a home that all processes of the suite share: the first one makes it, others wait."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def made_once(name: str, make: Callable[[World], None], *, start: Path | None = None) -> Path:
        home, is_made = root / name / "home", root / name / "is_made"
        with FileLock(root / f"{name}.lock"):
            if not is_made.exists():
                shutil.rmtree(home, ignore_errors=True)  # of a process that failed half way
                if start:
                    shutil.copytree(start, home)
                make(World(home))
                is_made.touch()
        return home

    return made_once


@pytest.fixture(scope="session")
def sample_home(shared: Callable[..., Path]) -> Path:
    """A home with the sample tables of January to March, and nothing else. Read only."""
    from featurestore.flights.sources import write_tables

    return shared(
        "sample", lambda world: write_tables(world.settings.uri("offline"), until=SAMPLE_UNTIL)
    )


@pytest.fixture(scope="session")
def trained_home(sample_home: Path, prefect_api: str, shared: Callable[..., Path]) -> Path:
    """The sample home, materialised, with a model trained until March and deployed. Read only."""
    return shared("trained", _train, start=sample_home)


def _train(world: World) -> None:
    assert world.run("materialize", "--until", TRAINED_UNTIL) == 0
    assert world.run("train", "--model", "flight_delay", "--until", TRAINED_UNTIL) == 0
    assert world.run("deploy", "--model", "flight_delay") == 0


@pytest.fixture(scope="session")
def demo_home(prefect_api: str, shared: Callable[..., Path]) -> Path:
    """What `make demo` leaves behind, and its report as `report.json`. Read only."""
    return shared("demo", _demonstrate)


def _demonstrate(world: World) -> None:
    code, report = world.report("quickstart")
    assert code == 0
    (world.home / "report.json").write_text(json.dumps(report))


@pytest.fixture
def world_of(prefect_api: str, tmp_path: Path) -> Callable[[Path], World]:
    """Makes a world of the test's own from a home, to do with as it likes."""

    def copy(home: Path) -> World:
        shutil.copytree(home, tmp_path / "home")
        return World(tmp_path / "home")

    return copy


@pytest.fixture
def world(trained_home: Path, world_of: Callable[[Path], World]) -> World:
    """A trained world of the test's own."""
    return world_of(trained_home)


@pytest.fixture
def bare_world(sample_home: Path, world_of: Callable[[Path], World]) -> World:
    """A world of the test's own with the sample tables alone."""
    return world_of(sample_home)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of the suite's own, on a free port and without a file; its address."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with subprocess.Popen(
        [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
    ) as process:
        try:
            _wait_for_port(port, process)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The address of an empty Redis database."""
    from featurestore.stores import resp

    connection = resp.Connection(redis_server, timeout_seconds=10)
    connection.ask(resp.command(b"FLUSHALL"), replies=1)
    connection.close()
    return redis_server


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, f"redis-server ended with code {process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"redis-server does not listen on port {port} after 10 seconds")


@pytest.fixture
def held() -> Callable[..., dict[bytes, tuple[Any, ...]]]:
    """What an online store holds of a view of numbers: (event, created, *values) by entity key.

    Times are microseconds since 1970. Says where Feast's messages and the packed copy disagree.
    """
    return _held


def _held(
    settings: Settings, view: ViewRead, project: str = "tiny"
) -> dict[bytes, tuple[Any, ...]]:
    if settings.online_uri.startswith("redis"):
        return _held_in_redis(settings, view, project)
    return _held_in_sqlite(settings, view, project)


def _held_in_sqlite(
    settings: Settings, view: ViewRead, project: str
) -> dict[bytes, tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(settings.online_path)) as db:
        copies = dict(db.execute(f'SELECT entity_key, row FROM "headrace_{project}_{view.view}"'))
        query = f'SELECT entity_key, feature_name, value, event_ts FROM "{project}_{view.view}"'
        messages: dict[bytes, dict[str, bytes]] = {}
        for key, name, value, seconds in db.execute(query):
            messages.setdefault(key, {})[name] = value
            assert seconds == packed.HEADER.unpack_from(copies[key])[1] // 1_000_000
    assert set(messages) == set(copies)
    return {key: _row(view, copies[key], messages[key]) for key in copies}


def _held_in_redis(
    settings: Settings, view: ViewRead, project: str
) -> dict[bytes, tuple[Any, ...]]:
    found: dict[bytes, tuple[Any, ...]] = {}
    with contextlib.closing(redis.Redis.from_url(settings.online_uri)) as server:
        found_keys = server.scan_iter(b"*" + project.encode(), count=1000)
        keys = [key for key in found_keys if not key.startswith(b"headrace:")]
        with server.pipeline(transaction=False) as asked:
            for key in keys:
                asked.hgetall(key)
            entities: list[dict[bytes, bytes]] = asked.execute()
        for key, entity in zip(keys, entities, strict=True):
            if (row := entity.get(redis_layout.packed_field(view.view))) is None:
                continue
            stamp = Timestamp.FromString(entity[redis_layout.timestamp_field(view.view)])
            assert stamp.ToMicroseconds() == packed.HEADER.unpack_from(row)[1]
            names = [feature.name for feature in view.features]
            fields = [redis_layout.feature_field(view.view, name) for name in names]
            messages = {name: entity[field] for name, field in zip(names, fields, strict=True)}
            found[key.removesuffix(project.encode())] = _row(view, row, messages)
    return found


def _row(view: ViewRead, row: bytes, messages: dict[str, bytes]) -> tuple[Any, ...]:
    _, event, created = packed.HEADER.unpack_from(row)
    numbers = np.frombuffer(row, "<f8", offset=packed.HEADER_BYTES).tolist()
    decoded = [decode_numbers([messages[f.name]], f.dtype, f.name)[0] for f in view.features]
    assert str(decoded) == str([np.float64(number) for number in numbers])  # NaN equals NaN so
    return (event, created, *numbers)
