"""The first load of a bundle, in a child: a model that crashes, hangs or eats memory costs it only.

A model file with the right hash can still be one that its library was never tested with: XGBoost
segfaults on about a fifth of the files that have one bit changed. So no bundle is loaded into the
server before a child has loaded it and got its golden rows right. Verdicts are remembered by
digest, which fixes every byte.
"""

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict

from headrace.errors import BundleRefused
from serving.errors import TrialFailed
from serving.runtimes.device import DeviceChoice
from serving.trial_process import MESSAGE_BYTES, Job, Outcome, serve

_GRACE_SECONDS = 10.0
"""How much longer than a trial may take the server waits for word of it."""


class Trials:
    """Tries bundles in children. Safe to use from several threads."""

    def __init__(
        self,
        bundles_root: str,
        *,
        device: DeviceChoice = "cpu",
        threads: int = 1,
        seconds: float = 20.0,
        memory_bytes: int = 2 << 30,
        fork: bool = False,
    ) -> None:
        """Start the process that forks the children.

        Args:
            bundles_root: the folder or URL that holds ``<digest>/``.
            device: where to compute.
            threads: cores that one ``predict`` may use; 0: all.
            seconds: how long loading may take, beside reading the files.
            memory_bytes: what loading may take in memory, beside four times the files.
            fork: make that process by a fork, which costs milliseconds; only while this process
                has no other thread. Else it starts from nothing, which takes half a second.
        """
        self.bundles_root = bundles_root
        self._device, self._threads = device, threads
        self._seconds, self._memory_bytes = seconds, memory_bytes
        self._known: dict[str, Outcome] = {}
        self._starting = threading.Lock()
        self._process = _forked() if fork else _spawned()

    def check(self, digest: str, *, again: bool = False) -> int:
        """Return the size of the model in bytes, once a child has loaded it and proved it.

        Args:
            digest: which bundle.
            again: try once more what was refused before.

        Raises:
            BundleRefused: if it does not prove itself, or ends, outlasts or outgrows the child.
            TrialFailed: if it could not be tried; trying again may do.
        """
        outcome = self._known.get(digest)
        if outcome is None or (again and outcome.kind == "refused"):
            outcome = self._try(digest)
        if outcome.kind == "failed":
            raise TrialFailed(digest, outcome.reason)
        self._known[digest] = outcome
        if outcome.kind == "refused":
            raise BundleRefused(digest, outcome.reason)
        return outcome.size_bytes

    @property
    def pid(self) -> int:
        """The process that forks the children."""
        return self._process.pid

    def close(self) -> None:
        """End the process; safe to call twice."""
        self._process.close()

    def _try(self, digest: str) -> Outcome:
        job = Job(
            self.bundles_root,
            digest,
            self._device,
            self._threads,
            self._seconds,
            self._memory_bytes,
        )
        reading, writing = os.pipe()
        try:
            self._ask(json.dumps(asdict(job)).encode(), writing)
        finally:
            os.close(writing)
        with os.fdopen(reading, "rb", buffering=0):
            return self._outcome(reading)

    def _ask(self, message: bytes, writing: int) -> None:
        with self._starting:
            try:
                socket.send_fds(self._process.asked, [message], [writing])
            except OSError:  # it is gone, as where somebody ended it: start another
                self._process.close()
                self._process = _spawned()
                socket.send_fds(self._process.asked, [message], [writing])

    def _outcome(self, said: int) -> Outcome:
        """Read what the watcher writes before it ends."""
        message, waits = b"", self._seconds + _GRACE_SECONDS
        while select.select([said], [], [], waits)[0]:
            more = os.read(said, MESSAGE_BYTES)
            if not more:
                break
            message += more
        if not message:
            return Outcome("failed", "the process that watches over it ended without a word")
        return Outcome(**json.loads(message))


class _Process:
    """The process that forks, and the socket that it is asked on."""

    def __init__(self, asked: socket.socket, pid: int, wait: Callable[[], object]) -> None:
        self.asked, self.pid, self._wait = asked, pid, wait

    def close(self) -> None:
        if self.asked.fileno() >= 0:
            self.asked.close()  # which it takes as the sign to end
            self._wait()


def _forked() -> _Process:
    ours, theirs = _pair()
    child = os.fork()
    if child == 0:
        # Nothing of the server's stays open here, its port least of all.
        os.dup2(theirs.fileno(), 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        try:
            serve(socket.socket(fileno=3))
        finally:
            os._exit(0)
    theirs.close()
    return _Process(ours, child, lambda: os.waitpid(child, 0))


def _spawned() -> _Process:
    ours, theirs = _pair()
    number = theirs.fileno()
    command = [sys.executable, "-m", "serving.trial_process", str(number)]
    child = subprocess.Popen(command, pass_fds=[number])
    theirs.close()
    return _Process(ours, child.pid, child.wait)


def _pair() -> tuple[socket.socket, socket.socket]:
    # Messages, not a stream: a job arrives whole and with its descriptor.
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
