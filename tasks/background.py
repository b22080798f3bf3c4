"""Processes that outlive the command which started them: started, known again, and ended."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kept:
    """A process in the background: the server at ``url``, or a worker for it."""

    url: str
    pid: int

    @property
    def api_url(self) -> str:
        """The address that ``PREFECT_API_URL`` takes."""
        return f"{self.url}/api"


def record(folder: Path, name: str, kept: Kept) -> None:
    """Remember a process as ``name`` in ``folder``."""
    temporary = folder / f"{name}.new"
    temporary.write_text(json.dumps(asdict(kept)))
    temporary.replace(folder / f"{name}.json")


def recorded(folder: Path, name: str) -> Kept | None:
    """The process remembered as ``name``, whether it lives or not."""
    try:
        return Kept(**json.loads((folder / f"{name}.json").read_text()))
    except FileNotFoundError:
        return None


def forget(folder: Path, name: str) -> None:
    """Remember no process as ``name``."""
    (folder / f"{name}.json").unlink(missing_ok=True)


@contextlib.contextmanager
def only_one(folder: Path, name: str) -> Iterator[None]:
    """One process at a time inside the block; the others wait."""
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def start(arguments: Sequence[str], environment: Mapping[str, str], *, log: Path) -> int:
    """Start this Python with ``arguments`` in a session of its own and return its process id.

    Its output is appended to ``log``.
    """
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    # Unlike subprocess, posix_spawn leaves no object behind that complains of a running child.
    return os.posix_spawn(
        sys.executable,
        [sys.executable, *arguments],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def is_running(pid: int, arguments: Sequence[str]) -> bool:
    """True if ``pid`` lives and was started with ``arguments``: process ids are used again."""
    process = _processes().get(pid)
    return process is not None and " ".join(arguments) in process.command


def end(pid: int, *, patience_seconds: float = 15.0) -> None:
    """End what ``start`` returned and everything it started: asked first, then killed."""
    family = _family(pid)
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for member in family:
            # Each may lead a group: a flow run has a session of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(member, sent)
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            if not family & _processes().keys():
                _reap(pid)
                return
            time.sleep(0.05)


@dataclass(frozen=True)
class _Process:
    parent: int
    command: str


def _processes() -> dict[int, _Process]:
    """Every process that has not ended, by its id."""
    folder = Path("/proc")
    if not (folder / "self" / "stat").exists():  # not Linux
        return _processes_by_ps()
    found = {}
    for entry in folder.iterdir():
        if entry.name.isdigit():
            # A process may end between being listed and being read.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # "pid (name) state parent ..."; the name may hold anything, brackets too.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                if state != "Z":
                    found[int(entry.name)] = _Process(int(parent), command.decode(errors="replace"))
    return found


def _processes_by_ps() -> dict[int, _Process]:
    listed = subprocess.run(
        ["ps", "-axwwo", "pid=,ppid=,stat=,command="], capture_output=True, text=True, check=True
    )
    rows = (line.split(maxsplit=3) for line in listed.stdout.splitlines())
    return {
        int(pid): _Process(int(parent), command)
        for pid, parent, state, command in (row for row in rows if len(row) == 4)
        if not state.startswith("Z")
    }


def _family(pid: int) -> set[int]:
    """A process with its children, and theirs."""
    processes, family = _processes(), {pid}
    while born := {p for p, one in processes.items() if one.parent in family} - family:
        family |= born
    return family


def _reap(pid: int) -> None:
    # A child of ours that has ended stays in the table until somebody asks for it.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
