"""Several processes on one port: a parent that keeps the socket and answers nothing itself.

The workers accept from one listening socket, which stays open for as long as the parent lives: no
connection is refused while a worker is replaced. A worker that dies is started again, after a pause
that grows while it keeps dying. SIGHUP replaces the workers one by one, each by a new one that is
ready before the old one drains; SIGTERM drains them all.

The parent imports nothing heavy and has no threads, so a worker is a fork of it. Each holds one end
of a socket pair: it says there when it is ready, and sees there that the parent has gone.
"""

import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from headrace.errors import ExitCode

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_STEADY_SECONDS = 30.0
"""A worker that lived this long did not die of what it began with."""

Work = Callable[[int, socket.socket], int]
"""What a worker does: given its number, from 1, and its end of the pair, it returns its exit code.
It sends what it has to say once it answers."""


@dataclass(eq=False)
class _Worker:
    number: int
    pid: int
    pair: socket.socket
    since: float
    said: str | None = None
    """What it said when it was ready; None until then."""
    leaving: bool = False
    replaces: "_Worker | None" = None


@dataclass
class Parent:
    """Keeps ``count`` workers running until it is told to stop."""

    count: int
    work: Work
    ready: Callable[[str], None]
    """Called once, with what the first worker said, when all of them answer."""
    tell: Callable[[str], None]
    """Told of every worker that died or was replaced."""
    _workers: list[_Worker] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _pause: float = _FIRST_PAUSE
    _start_at: float = 0.0
    _stopping: bool = False
    _roll: list[_Worker] = field(default_factory=list)
    _answers: bool = False

    def run(self) -> int:
        """Return the exit code: 0 where it was told to stop, else that of a worker that cannot."""
        wake, woken = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, _only_wake)
        self._selector.register(woken, selectors.EVENT_READ, self._signalled)
        for _ in range(self.count):
            self._start()
        while self._workers or not self._stopping:
            for key, _ in self._selector.select(self._timeout()):
                key.data(key.fileobj)
            if (code := self._bury()) is not None:
                self._stop()
                return code
            self._fill()
        return ExitCode.DONE

    def _start(self, replaces: _Worker | None = None) -> None:
        taken = {worker.number for worker in self._workers}
        number = next(n for n in range(1, len(taken) + 2) if n not in taken)
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            self._be_worker(number, ours, theirs)
        theirs.close()
        worker = _Worker(number, pid, ours, time.monotonic(), replaces=replaces)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, lambda _: self._heard(worker))

    def _be_worker(self, number: int, ours: socket.socket, theirs: socket.socket) -> NoReturn:
        code: int = ExitCode.FAILED
        try:
            signal.set_wakeup_fd(-1)
            for known in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(known, signal.SIG_DFL)
            self._selector.close()
            for worker in self._workers:  # a sibling's end would keep it from seeing us gone
                worker.pair.close()
            ours.close()
            code = self.work(number, theirs)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else ExitCode.FAILED
        except BaseException:  # noqa: BLE001  (what nothing else would print: this is the whole stack)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _heard(self, worker: _Worker) -> None:
        said = worker.pair.recv(4096)
        self._selector.unregister(worker.pair)
        if not said:
            return  # it died; _bury takes care of it
        worker.said = said.decode()
        if (old := worker.replaces) is not None:
            worker.replaces = None
            old.leaving = True
            if old in self._workers:  # else it died meanwhile, and its number may be another's
                os.kill(old.pid, signal.SIGTERM)
            self.tell(f"worker {worker.number} (pid {worker.pid}) replaces pid {old.pid}")
        if not self._answers and all(one.said is not None for one in self._workers):
            self._answers = True
            self.ready(worker.said)

    def _signalled(self, woken: socket.socket) -> None:
        numbers = set(woken.recv(4096))
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._stop()
        elif signal.SIGHUP in numbers and not self._roll:
            self._roll = [worker for worker in self._workers if not worker.leaving]

    def _stop(self) -> None:
        self._stopping, self._roll = True, []
        for worker in self._workers:
            os.kill(worker.pid, signal.SIGTERM)

    def _bury(self) -> int | None:
        """Take leave of workers that have ended; the exit code if the server cannot go on."""
        for worker in list(self._workers):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if not pid:
                continue
            self._workers.remove(worker)
            if worker.pair.fileno() in self._selector.get_map():
                self._selector.unregister(worker.pair)
            worker.pair.close()
            code = os.waitstatus_to_exitcode(status)
            if self._stopping or worker.leaving:
                continue
            if not self._answers and code > 0:
                return code  # it has said why; the others would say the same
            self._mourn(worker, code)
        return None

    def _mourn(self, worker: _Worker, code: int) -> None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        lived = time.monotonic() - worker.since
        self._pause = _FIRST_PAUSE if lived > _STEADY_SECONDS else self._pause
        self._start_at = time.monotonic() + self._pause
        self.tell(
            f"worker {worker.number} (pid {worker.pid}) ended with {how} after {lived:.1f} s; "
            f"another is started in {self._pause:g} s"
        )
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        # The next one of a roll would fare no better than one that could not begin.
        self._roll = [] if worker.replaces else [one for one in self._roll if one is not worker]

    def _fill(self) -> None:
        """Start what is missing, and the next one of a roll."""
        if self._stopping:
            return
        staying = [worker for worker in self._workers if not worker.leaving]
        if any(worker.replaces is not None for worker in staying):
            return  # one by one
        if len(staying) < self.count:
            if time.monotonic() >= self._start_at:
                self._start()
        elif self._roll and not any(worker.leaving for worker in self._workers):
            self._start(replaces=self._roll.pop(0))

    def _timeout(self) -> float | None:
        missing = self.count - sum(not worker.leaving for worker in self._workers)
        if missing > 0 and not self._stopping:
            return max(0.0, self._start_at - time.monotonic())
        return None


def _only_wake(_signal: int, _frame: Any) -> None:
    """A handler that does nothing: the number arrives in the pair that ``run`` reads."""
