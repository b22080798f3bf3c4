"""What a command costs with all of its processes: wall time, CPU-seconds, peak memory."""

import ctypes
import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Cost:
    """What one run of a command took."""

    seconds: float
    cpu_seconds: float
    """Of its whole tree of processes, and of the servers that worked for it."""
    worker_peak_mb: float
    """The highest resident memory of any process below the first; of the first if it is alone."""


def adopt_orphans() -> None:
    """Make this process the parent of orphans below it, so that their CPU time is counted."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def cost_of(command: Sequence[str], env: Mapping[str, str], *, servers: Sequence[int]) -> Cost:
    """Run a command to its end, which must be a good one, and say what it cost.

    Args:
        command: the program and its arguments.
        env: its environment.
        servers: processes that work for it and live on.
    """
    before, served = _children_seconds(), sum(map(_process_seconds, servers))
    begun = time.perf_counter()
    with subprocess.Popen(
        command, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        peaks = _Peaks(process.pid)
        output, _ = process.communicate()
        seconds = time.perf_counter() - begun
        peaks.stop()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output[-4000:]}")
    _reap(servers)
    cpu = _children_seconds() - before + sum(map(_process_seconds, servers)) - served
    return Cost(seconds, cpu, peaks.worker_mb)


class _Peaks:
    """Looks at the memory of a process and all below it until it is told to stop."""

    def __init__(self, root: int) -> None:
        self._root, self._stop = root, threading.Event()
        self._peak: dict[int, float] = {}
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def worker_mb(self) -> float:
        below = [peak for pid, peak in self._peak.items() if pid != self._root]
        return max(below or self._peak.values(), default=0.0)

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            for pid in _tree(self._root):
                with suppress(FileNotFoundError, ProcessLookupError, KeyError):  # it has ended
                    status = Path(f"/proc/{pid}/status").read_text()
                    fields = dict(line.split(":", 1) for line in status.splitlines())
                    peak = int(fields["VmHWM"].split()[0]) / 1024
                    self._peak[pid] = max(peak, self._peak.get(pid, 0.0))


def _tree(root: int) -> list[int]:
    found, ahead = [], [root]
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        with suppress(OSError):  # it has ended
            for task in Path(f"/proc/{pid}/task").iterdir():
                ahead += map(int, (task / "children").read_text().split())
    return found


def _reap(servers: Sequence[int]) -> None:
    """Wait for the orphans that were adopted; the servers go on."""
    deadline = time.monotonic() + 30
    for pid in _tree(os.getpid())[1:]:
        while pid not in servers and time.monotonic() < deadline:
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.05)
                    continue
            break


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _process_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
