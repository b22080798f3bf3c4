"""Start a real server, ask it, stop it: what a deployment would do, on this machine."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect.logging import get_run_logger

from headrace.errors import HeadraceError
from headrace.settings import Settings
from headrace.spec import Part
from tasks.step import step


class ServerFailed(HeadraceError):
    """A server that did not become ready, or did not answer."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the online server failed: {reason}")


class RunningServer(Part):
    """A server process that is ready."""

    url: str
    pid: int
    ready_seconds: float
    """From starting the process to the first answer to `ready`."""


class Answer(Part):
    """What a server answered, and how long it took to get there."""

    predictions: tuple[float, ...]
    digest: str
    ready_seconds: float
    answer_milliseconds: float


@step("ask a server of {endpoint}")
def ask_server(settings: Settings, endpoint: str, instances: list[dict[str, Any]]) -> Answer:
    """Return a fresh server's predictions for a few rows of entity keys.

    Safe to run twice: the server and its port are this run's own; it leaves an inference log.
    """
    answer = ask_once(settings, endpoint, instances)
    get_run_logger().info(
        "%s rows answered by bundle %s", len(answer.predictions), answer.digest[:12]
    )
    return answer


def ask_once(settings: Settings, endpoint: str, instances: list[dict[str, Any]]) -> Answer:
    """Start a server, ask it one request, and end it."""
    with running_server(settings, endpoint) as server:
        begun = time.monotonic()
        reply = _post(f"{server.url}/api/v1/infer", {"instances": instances})
        seconds = time.monotonic() - begun
    return Answer(
        predictions=tuple(row["prediction"] for row in reply["predictions"]),
        digest=reply["digest"],
        ready_seconds=server.ready_seconds,
        answer_milliseconds=1000 * seconds,
    )


@contextlib.contextmanager
def running_server(settings: Settings, endpoint: str) -> Iterator[RunningServer]:
    """A server process on a free port of 127.0.0.1, ready to answer; ended with the block.

    Raises:
        ServerFailed: if it ends or is not ready within 30 s; its last words are in the error.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = settings.home / "logs" / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", "--endpoint", endpoint, "--port", str(port)],
            env=os.environ | {"HEADRACE_HOME": str(settings.home)},
            stdout=output,
            stderr=output,
        )
    try:
        _wait_until_ready(url, process, log)
        ready_seconds = time.monotonic() - begun
        yield RunningServer(url=url, pid=process.pid, ready_seconds=ready_seconds)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5),  # noqa: S310  (http)
        ):
            return
        time.sleep(0.02)
    raise ServerFailed(log.read_text(errors="replace").strip() or "it was not ready within 30 s")


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(  # noqa: S310  (http to this machine)
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise ServerFailed(error.read().decode(errors="replace")) from error
