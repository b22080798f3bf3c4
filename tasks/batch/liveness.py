"""Whether a process that left a note on shared storage still lives.

Of this machine the system knows: a process is named by its number, its start, its boot and its
space of process numbers, so a number that is used again is no mistake. Of another machine only its
heartbeat tells: a small file with a count that the process raises. An observer judges by its own
monotonic clock how long the count has stood still; no clock of another machine is believed.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from headrace import storage
from headrace.errors import StorageFailed
from headrace.spec import Part

_log = logging.getLogger(__name__)

BEATS_IN_A_LEASE = 3
"""How often a heart beats in the time after which it is given up: one beat may be lost, or two."""

ENDED = b"ended"
"""What a heartbeat says when its process has ended in good order."""


class Process(Part):
    """A process, as others can recognise it."""

    host: str
    """Its machine's name, for people."""
    boot: str
    """Id of the machine's boot, from the kernel; empty where the system does not tell."""
    namespace: str
    """In which space of process numbers it is: containers of one machine have their own."""
    pid: int
    started: int
    """In clock ticks since the boot."""


def this_process() -> Process:
    """The process that asks."""
    return Process(
        host=os.uname().nodename,
        boot=_boot(),
        namespace=_namespace(),
        pid=os.getpid(),
        started=_started(os.getpid()) or 0,
    )


def is_dead(process: Process) -> bool:
    """True if a process of this machine has surely ended; False if it lives or nobody can tell."""
    here = bool(process.boot) and process.boot == _boot() and process.namespace == _namespace()
    return here and _started(process.pid) != process.started


class Heartbeat:
    """A thread that raises a count on storage until it is told to stop.

    Storage that fails for a while is told in the log once; the next beats are tried all the same.
    """

    def __init__(self, uri: str, *, seconds: float, on_beat: Callable[[], bool]) -> None:
        """Make one that beats at ``uri`` so often that ``seconds`` of silence mean death.

        Args:
            uri: the file that holds the count.
            seconds: how long observers wait.
            on_beat: asked after each beat; the heart stops when it says False.
        """
        self._uri, self._pause = uri, seconds / BEATS_IN_A_LEASE
        self._on_beat, self._stop = on_beat, threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat {uri}", daemon=True)

    def start(self) -> None:
        """Beat from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more, and say that the end came in good order."""
        self._stop.set()
        self._thread.join()
        try:
            storage.write_atomic(self._uri, ENDED, durable=False)
        except (StorageFailed, OSError) as error:
            _log.warning("%s; others find out by waiting", error)

    def _run(self) -> None:
        count, failing = 0, False
        while not self._stop.wait(self._pause):
            count += 1
            try:
                storage.write_atomic(self._uri, b"%d" % count, durable=False)
                goes_on, failing = self._on_beat(), False
            except (StorageFailed, OSError) as error:
                if not failing:
                    _log.warning("a heartbeat was lost: %s Trying again.", error)
                goes_on = failing = True
            if not goes_on:
                return


class Observer:
    """Watches the heartbeat of a process until it is sure that it has ended.

    Only time in which it looked counts: an observer that was stopped itself, or whose storage was
    away, has not seen the other stand still.
    """

    def __init__(
        self,
        uri: str,
        process: Process,
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch the heartbeat at ``uri`` of ``process``, whose silence for ``seconds`` is death."""
        self._uri, self._process, self._seconds = uri, process, seconds
        self._clock, self._last, self._looked_at = clock, b"", clock()
        self._silent = 0.0

    @property
    def in_good_order(self) -> bool:
        """True if its last word, when last looked at, was that it has ended."""
        return self._last == ENDED

    def has_ended(self) -> bool:
        """Look once. True if the process said so, is surely dead, or was silent for too long."""
        count = self._count()
        now = self._clock()
        seen = min(now - self._looked_at, self._seconds / BEATS_IN_A_LEASE)
        self._silent = self._silent + seen if count == self._last else 0.0
        self._last, self._looked_at = count, now
        return self.in_good_order or is_dead(self._process) or self._silent >= self._seconds

    def _count(self) -> bytes:
        try:
            return storage.read_bytes(self._uri)
        except FileNotFoundError:
            return b""  # it has not beaten yet


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: nobody can tell, and observers wait
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process of this machine started, None if it has ended."""
    try:
        # "pid (name) state parent ..."; the name may hold anything, brackets too.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else int(started)  # a dead one stays until its parent has looked
