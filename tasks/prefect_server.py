"""The local Prefect server: started once when first needed, then kept.

A temporary server for each command costs ten seconds and more and forgets its runs. This one is
started by the first flow, listens on 127.0.0.1, keeps its SQLite database in the home folder, and
shows every run in its UI until it is stopped. With ``PREFECT_API_URL`` set, that server is used and
none is started.

$ python -m tasks.prefect_server up      start it, deploy prefect.yaml and run the schedules
$ python -m tasks.prefect_server status
$ python -m tasks.prefect_server down
"""

import argparse
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace import telemetry
from headrace.errors import ExitCode, HeadraceError
from headrace.settings import Settings, load_settings

WORK_POOL = "headrace"
_START_TIMEOUT_SECONDS = 180.0
_PATIENCE_SECONDS = 20.0


class PrefectServerFailed(HeadraceError):
    """The local Prefect server, or its worker, did not start."""

    def __init__(self, what: str, log: Path) -> None:
        self.what, self.log = what, log
        super().__init__(f"{what} did not start; its output is in {log}.")


@dataclass(frozen=True)
class Kept:
    """What runs in the background: the server's address, its process and its worker's."""

    url: str
    pid: int
    worker_pid: int | None = None

    @property
    def api_url(self) -> str:
        """The address that ``PREFECT_API_URL`` takes."""
        return f"{self.url}/api"


def api_url(settings: Settings) -> str:
    """Return the API that flows report to, starting the kept server if there is none.

    Raises:
        PrefectServerFailed: if it does not answer in time.
    """
    return os.environ.get("PREFECT_API_URL") or ensure_server(settings).api_url


def ensure_server(settings: Settings) -> Kept:
    """Return the kept server, starting it first if it does not run. Safe to call at once twice."""
    running = kept_server(settings)
    if running:
        return running
    with _only_one(settings):
        return kept_server(settings) or _start_server(settings)


def kept_server(settings: Settings) -> Kept | None:
    """The kept server if it runs and answers, else None."""
    try:
        kept = Kept(**json.loads(_record(settings).read_text()))
    except FileNotFoundError:
        return None
    # A busy server may be slow to answer; starting a second one beside it would be worse.
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _is_alive(kept.pid) and time.monotonic() < deadline:
        if _answers(kept.url):
            return kept
        time.sleep(0.5)
    return None


def stop(settings: Settings) -> bool:
    """End the kept server and its worker; True if there was one."""
    with _only_one(settings):
        kept = kept_server(settings)
        for pid in filter(None, (kept.worker_pid, kept.pid) if kept else ()):
            _end(pid)
        _record(settings).unlink(missing_ok=True)
        return kept is not None


def up(settings: Settings) -> Kept:
    """Start the server, deploy everything in prefect.yaml, and run what is due or asked for."""
    kept = ensure_server(settings)
    if kept.worker_pid and _is_alive(kept.worker_pid):
        return kept
    _say(f"deploying {Path('prefect.yaml').absolute()}")
    environment = _environment(settings) | {"PREFECT_API_URL": kept.api_url}
    for command in (
        ["work-pool", "create", WORK_POOL, "--type", "process", "--overwrite"],
        ["--no-prompt", "deploy", "--all"],
    ):
        _run_prefect(command, environment, log=_folder(settings) / "deploy.log")
    worker = _start_detached(
        ["worker", "start", "--pool", WORK_POOL, "--name", "local"],
        environment,
        log=_folder(settings) / "worker.log",
    )
    kept = Kept(kept.url, kept.pid, worker)
    _remember(settings, kept)
    return kept


def _start_server(settings: Settings) -> Kept:
    port = _free_port(preferred=4200)
    url = f"http://127.0.0.1:{port}"
    log = _folder(settings) / "server.log"
    _say(f"starting a local Prefect server at {url} (once: later runs reuse it) ...")
    pid = _start_detached(
        ["server", "start", "--host", "127.0.0.1", "--port", str(port)],
        _environment(settings),
        log=log,
    )
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while not _answers(url):
        if not _is_alive(pid) or time.monotonic() > deadline:
            _end(pid)
            raise PrefectServerFailed("the local Prefect server", log)
        time.sleep(0.1)
    kept = Kept(url, pid)
    _remember(settings, kept)
    return kept


def _environment(settings: Settings) -> dict[str, str]:
    telemetry.turn_off()
    return os.environ | {
        "PREFECT_HOME": str(_folder(settings)),
        "HEADRACE_HOME": str(settings.home),  # a run in the background finds the same state
        "PWD": str(Path.cwd()),  # prefect.yaml's pull step names the project folder by it
    }


def _run_prefect(arguments: list[str], environment: dict[str, str], *, log: Path) -> None:
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    log.write_text(done.stdout + done.stderr)
    if done.returncode:
        raise PrefectServerFailed(f"`prefect {' '.join(arguments)}`", log)


def _start_detached(arguments: list[str], environment: dict[str, str], *, log: Path) -> int:
    # In a session of its own it outlives the command that needed it first; posix_spawn leaves no
    # object behind that would complain about a child still running.
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "prefect", *arguments],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _folder(settings: Settings) -> Path:
    folder = settings.home / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _record(settings: Settings) -> Path:
    return _folder(settings) / "server.json"


def _remember(settings: Settings, kept: Kept) -> None:
    temporary = _record(settings).with_suffix(".new")
    temporary.write_text(json.dumps(asdict(kept)))
    temporary.replace(_record(settings))


@contextlib.contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    with (_folder(settings) / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api/health", timeout=5) as reply:  # noqa: S310  (http)
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child of ours that has ended stays as a zombie until somebody asks for it.
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    return True


def _end(pid: int) -> None:
    """SIGTERM to the process group we started, SIGKILL if it is still there after 10 s."""
    for sent, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, sent)
        deadline = time.monotonic() + patience
        while _is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not _is_alive(pid):
            return


def _free_port(preferred: int) -> int:
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise PrefectServerFailed("the local Prefect server (no free port)", Path(os.devnull))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  (this is a command)


def main(argv: list[str] | None = None) -> int:
    """Run the command; the result goes to stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.prefect_server", description="The local Prefect server."
    )
    parser.add_argument(
        "what", choices=["up", "status", "down"], help="start with schedules, look, or stop"
    )
    what = parser.parse_args(argv).what
    try:
        settings = load_settings()
        kept = up(settings) if what == "up" else kept_server(settings)
        stopped = stop(settings) if what == "down" else False
    except HeadraceError as error:
        _say(f"error: {error}")
        return error.exit_code
    if what == "down":
        line = "stopped" if stopped else "no local Prefect server was running"
    elif kept:
        worker = "runs the schedules" if kept.worker_pid else "not started (make up)"
        line = f"Prefect UI  {kept.url}\nprocess     {kept.pid}\nworker      {worker}"
    else:
        line = "no local Prefect server runs; the first flow starts one, and so does `make up`"
    print(line)  # noqa: T201
    return ExitCode.DONE


if __name__ == "__main__":
    raise SystemExit(main())
