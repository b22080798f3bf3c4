"""A Dask cluster of somebody else's: a scheduler and workers as processes that are kept running.

Whatever ends is started again at the same address, as systemd or Kubernetes would.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from tasks.clusters.dask_settings import DRAIN

QUIET = {"DASK_LOGGING__DISTRIBUTED": "critical", "DASK_DISTRIBUTED__DIAGNOSTICS__NVML": "False"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Supervised:
    """Processes that are started again when they end, until the block does."""

    def __init__(self, folder: Path, *, workers: int, settings: dict | None = None) -> None:
        port = free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        self.environment = os.environ | QUIET | (settings or {})
        self._folder, self._stop = folder, threading.Event()
        place = ("--host", "127.0.0.1", "--no-dashboard")
        self._commands = {"scheduler": ("scheduler", "--port", str(port), *place)}
        for number in range(workers):
            self._commands[f"worker-{number}"] = (
                *("worker", self.address, "--name", f"w{number}", *place),
                *("--nworkers", "1", "--nthreads", "1", "--memory-limit", "1GiB"),
                # No nanny: the one who keeps them running is here. A process less for each.
                *("--local-directory", str(folder), "--no-nanny", "--preload", DRAIN),
            )
        self.started: dict[str, int] = dict.fromkeys(self._commands, 0)
        self._processes: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "Supervised":
        for name in self._commands:
            self._start(name)
        self._thread = threading.Thread(target=self._supervise)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for process in self._processes.values():
            process.kill()
            process.wait()

    def signal(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of the processes: to the command, not to what it started."""
        self._processes[name].send_signal(number)

    def rest(self, name: str) -> None:
        """Do not start it again when it ends."""
        del self._commands[name]

    def has_ended(self, name: str) -> int | None:
        """The exit code of a process that rests; None while it runs."""
        return self._processes[name].poll()

    def _start(self, name: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *self._commands[name]],
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.started[name] += 1

    def _supervise(self) -> None:
        while not self._stop.is_set():
            for name in list(self._commands):
                if self._processes[name].poll() is not None:
                    self._start(name)
            time.sleep(0.05)
