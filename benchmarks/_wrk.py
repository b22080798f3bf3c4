"""A server on one core, wrk on the other: requests a second, latency, and every answer checked."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE, CLIENT_CORE = "0", "1"
CONNECTIONS = 64
_SCRIPT = Path(__file__).with_name("_requests.lua")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Questions:
    """What one server is asked, and what it must answer."""

    path: str
    bodies: Path
    """One JSON body a line."""
    expected: Path
    """The prediction of each, one a line."""
    value: str = r'"prediction":%s*([-%d.e]+)'
    """The Lua pattern that finds the prediction in an answer."""
    name: str = r'"id":%s*"(%d+)"'
    """The one that finds the number of its request; ``-`` where answers do not name it."""

    @property
    def first(self) -> bytes:
        """The first body."""
        with self.bodies.open("rb") as lines:
            return lines.readline().strip()


@dataclass(frozen=True)
class Load:
    """What a load of requests gave."""

    rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    wrong: int
    errors: int
    cpu_us: float
    """CPU-microseconds of the server, with all its processes, a request."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(
    command: Sequence[object], env: Mapping[str, str], *, port: int, questions: Questions
) -> Iterator[int]:
    """Run a server on one core until it answers; its process id. All its processes end with it."""
    pinned = ["taskset", "--cpu-list", SERVER_CORE, *map(str, command)]
    log = questions.bodies.with_name(f"server-{port}.log")
    with (
        log.open("wb") as output,
        subprocess.Popen(
            pinned, env=dict(env), stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            _wait(process, port, questions, log)
            yield process.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def load(pid: int, port: int, questions: Questions, *, seconds: int) -> Load:
    """Ask the server ``pid`` at ``port`` with wrk, 64 connections on one thread."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed (Debian: apt-get install wrk)")
    before = cpu_seconds(pid)
    done = subprocess.run(
        ["taskset", "--cpu-list", CLIENT_CORE, wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s",
         "-H", "Content-Type: application/json", "-s", _SCRIPT,
         f"http://127.0.0.1:{port}{questions.path}", "--",
         questions.bodies, questions.expected, questions.value, questions.name],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if found is None:
        raise SystemExit(f"wrk failed:\n{done.stdout}{done.stderr}")
    told = json.loads(found.group(1))
    if wrong := re.search(r"^FIRST WRONG (.*)$", done.stdout, re.MULTILINE | re.DOTALL):
        print(f"  the first wrong answer of {questions.path}: {wrong.group(1)[:300]}")
    return Load(
        told["requests"] / told["seconds"], told["p50_ms"], told["p95_ms"], told["p99_ms"],
        told["wrong"], told["errors"],
        1e6 * (cpu_seconds(pid) - before) / max(1, told["requests"]),
    )  # fmt: skip


def _wait(process: subprocess.Popen[bytes], port: int, questions: Questions, log: Path) -> None:
    url = f"http://127.0.0.1:{port}{questions.path}"
    headers = {"Content-Type": "application/json"}
    for _ in range(1200):
        if process.poll() is not None:
            break
        request = urllib.request.Request(url, questions.first, headers)
        with (
            contextlib.suppress(OSError, urllib.error.HTTPError),
            urllib.request.urlopen(request, timeout=5),
        ):
            return
        time.sleep(0.05)
    raise SystemExit(f"the server does not answer {url}:\n{log.read_text()[-3000:]}")


def processes_of(first: int) -> list[Path]:
    """The folders in ``/proc`` of a process and of all below it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(_fields(stat.parent)[1])
    found = {first}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return [Path(f"/proc/{process}") for process in sorted(found)]


def cpu_seconds(first: int) -> float:
    """CPU time of a process and all below it, and of the children that they waited for."""
    ticks = 0
    for process in processes_of(first):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            ticks += sum(int(field) for field in _fields(process)[11:15])
    return ticks / _TICKS


def _fields(process: Path) -> list[str]:
    """What ``stat`` says of a process, after its name: state, parent, group, session ..."""
    return (process / "stat").read_text().rpartition(")")[2].split()
