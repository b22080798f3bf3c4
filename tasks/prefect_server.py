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
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from headrace import telemetry
from headrace.errors import ExitCode, HeadraceError
from headrace.settings import Settings, load_settings
from tasks import background
from tasks.background import Kept, forget, only_one, record, recorded

RETRIED_CODES = {408, 500, 504}
"""Replies of Prefect's API that its client shall try again, beside those that it does anyway (429,
502, 503): a full disk under its database is a 500 that heals. Five times: about a minute."""

_START_TIMEOUT_SECONDS = 180.0
_PATIENCE_SECONDS = 30.0
_PLANNING_SECONDS = 15.0


class PrefectServerFailed(HeadraceError):
    """The local Prefect server did not start."""

    def __init__(self, log: Path) -> None:
        self.log = log
        super().__init__(f"the local Prefect server did not start; its output is in {log}.")


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
    with only_one(_folder(settings), "server"):
        return kept_server(settings) or _start_server(settings)


def kept_server(settings: Settings) -> Kept | None:
    """The kept server if it runs and answers, else None."""
    kept = recorded(_folder(settings), "server")
    # A busy server may be slow to answer; starting a second one beside it would be worse.
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while kept and _runs(kept) and time.monotonic() < deadline:
        if _answers(kept.url, settings):
            return kept
        time.sleep(0.5)
    return None


def kept_worker(settings: Settings) -> Kept | None:
    """The worker that ``up`` started if it runs, else None."""
    worker = recorded(_folder(settings), "worker")
    return worker if worker and background.is_running(worker.pid, _WORKER) else None


def up(settings: Settings) -> str:
    """Deploy everything in prefect.yaml and run what is due or asked for; return the API's address.

    On the server of ``PREFECT_API_URL`` if that is set, else on the kept one. Safe to run twice:
    deployments are brought up to date, and there is one worker.

    Raises:
        NoProjectHere: if the working folder has no prefect.yaml.
    """
    from tasks import deployments

    api = api_url(settings)
    folder = Path.cwd()
    environment = _environment(settings) | {"PREFECT_API_URL": api}
    with only_one(_folder(settings), "worker"):
        _say(f"deploying {folder / 'prefect.yaml'} ...")
        deployments.deploy_all(folder, environment, log=_folder(settings) / "deploy.log")
        worker = kept_worker(settings)
        if worker and worker.api_url != api:
            background.end(worker.pid)
            worker = None
        if not worker:
            deployments.forget_missed(api)
            pid = background.start(_WORKER, environment, log=_folder(settings) / "worker.log")
            record(_folder(settings), "worker", Kept(api.removesuffix("/api"), pid))
    return api


def stop(settings: Settings) -> bool:
    """End the worker, what it runs, and the kept server; True if there was any of them."""
    found = []
    for name, running in (("worker", kept_worker), ("server", _running_server)):
        with only_one(_folder(settings), name):
            kept = running(settings)
            if kept:
                background.end(kept.pid)
                found.append(kept)
            forget(_folder(settings), name)
    return bool(found)


_WORKER = ["-m", "prefect", "worker", "start", "--pool", "headrace", "--name", socket.gethostname()]


def _server(port: int) -> list[str]:
    return ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]


def _runs(kept: Kept) -> bool:
    return background.is_running(kept.pid, _server(int(kept.url.rpartition(":")[2])))


def _running_server(settings: Settings) -> Kept | None:
    """The kept server if it runs, whether it answers or not."""
    kept = recorded(_folder(settings), "server")
    return kept if kept and _runs(kept) else None


def _start_server(settings: Settings) -> Kept:
    last, deaf = recorded(_folder(settings), "server"), _running_server(settings)
    if deaf:
        background.end(deaf.pid)
    # At its last address again if that is free: a worker or a browser may be waiting there.
    preferred = int(last.url.rpartition(":")[2]) if last else 4200
    for _ in range(2):  # somebody else may take the port between the look and the start
        kept = _try_to_start(settings, _free_port(preferred))
        if kept:
            record(_folder(settings), "server", kept)
            return kept
    raise PrefectServerFailed(_folder(settings) / "server.log")


def _try_to_start(settings: Settings, port: int) -> Kept | None:
    url = f"http://127.0.0.1:{port}"
    _say(f"starting a local Prefect server at {url} (once: later runs reuse it) ...")
    # Without this variable the pages of every server ask the one at port 4200.
    environment = _environment(settings) | {"PREFECT_UI_API_URL": f"{url}/api"}
    pid = background.start(_server(port), environment, log=_folder(settings) / "server.log")
    kept = Kept(url, pid)
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while _runs(kept) and time.monotonic() < deadline:
        if _answers(url, settings):
            return kept
        time.sleep(0.1)
    background.end(pid)
    return None


def _environment(settings: Settings) -> dict[str, str]:
    telemetry.turn_off()
    retried = ",".join(str(code) for code in sorted(RETRIED_CODES))
    return (
        {"PREFECT_CLIENT_RETRY_EXTRA_CODES": retried}
        | os.environ
        | {
            "PREFECT_HOME": str(_folder(settings)),
            "HEADRACE_HOME": str(settings.home),  # a run in the background finds the same state
        }
    )


def _answers(url: str, settings: Settings) -> bool:
    """True if a Prefect server of this home answers there: another may have taken the port."""
    try:
        with urllib.request.urlopen(f"{url}/api/admin/settings", timeout=5) as reply:  # noqa: S310
            return bool(json.load(reply)["home"] == str(_folder(settings)))
    except (urllib.error.URLError, ConnectionError, TimeoutError, ValueError, KeyError):
        return False


def _free_port(preferred: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:  # it is taken: any other
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _folder(settings: Settings) -> Path:
    folder = settings.home / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  (this is a command)


def _told(settings: Settings, *, wait_seconds: float = 0.0) -> str:
    """What runs, where its UI is, and what runs next."""
    from tasks.deployments import next_runs

    given = os.environ.get("PREFECT_API_URL")
    server, worker = kept_server(settings), kept_worker(settings)
    api = given or (server and server.api_url)
    if not api:
        return "no local Prefect server runs; the first flow starts one, and so does `make up`"
    runs = f"process {worker.pid}" if worker else "none: nothing scheduled runs (make up)"
    lines = [("Prefect UI", api.removesuffix("/api")), ("worker", runs)]
    if server and not given:
        lines.insert(1, ("server", f"process {server.pid}"))
    return "\n".join(
        f"{what:<12}{value}" for what, value in [*lines, *next_runs(api, wait_seconds=wait_seconds)]
    )


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
        if what == "up":
            up(settings)
            told = _told(settings, wait_seconds=_PLANNING_SECONDS)
        elif what == "down":
            told = "stopped" if stop(settings) else "no local Prefect server was running"
        else:
            told = _told(settings)
    except HeadraceError as error:
        _say(f"error: {error}")
        return error.exit_code
    print(told)  # noqa: T201
    return ExitCode.DONE


if __name__ == "__main__":
    raise SystemExit(main())
