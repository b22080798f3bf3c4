"""Many calls on Dask, a few a worker at a time.

Handing all of a job's calls to the scheduler at once would fill every worker's queue: a more urgent
job would wait behind them, and a worker that dies would take many down. So three a slot are under
way, and each that finishes makes room for the next.

What becomes of a call:

- it fails, and may heal: again after a while, four times at most;
- it fails otherwise: given to the caller, and no new call is begun;
- its workers died, more often than Dask allows: calls that were queued on those workers are blamed
  with it, so each of the blamed is run again alone; one whose workers die then is the culprit;
- the scheduler is lost: everything under way is submitted again to the next one.
"""

import heapq
import itertools
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.clusters.compute import Call, Done
from tasks.clusters.errors import CallKillsWorkers, SchedulerLost
from tasks.clusters.priorities import Priority
from tasks.clusters.retries import ATTEMPTS, backoff_seconds, may_heal

if TYPE_CHECKING:
    from tasks.clusters.dask_compute import DaskCompute

IN_FLIGHT_A_SLOT = 3
_LOOK_SECONDS = 5.0
"""How often the scheduler is asked for its workers: they may come, go, or not answer any more."""


@dataclass
class _Flight:
    """A call under way."""

    call: Call
    attempt: int
    deaths: int
    """Of workers that had it, at earlier attempts."""
    future: Any


class Rolling:
    """One ``run`` of a ``DaskCompute``."""

    def __init__(
        self,
        compute: "DaskCompute",
        calls: Iterable[Call],
        *,
        priority: Priority,
        began: Callable[[str], None] | None,
    ) -> None:
        self._compute, self._priority = compute, priority
        self._began = began or (lambda _: None)
        self._calls = iter(calls)
        self._again: deque[tuple[Call, int, int]] = deque()
        """Calls to begin before new ones, each with its attempt and the deaths it has seen."""
        self._resting: list[tuple[float, int, Call, int, int]] = []
        """Those that wait for their next attempt, the earliest first."""
        self._blamed: deque[tuple[Call, int, int]] = deque()
        self._flying: dict[str, _Flight] = {}
        self._landed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._number = itertools.count()
        self._next_look = time.monotonic() + _LOOK_SECONDS
        self._failed = self._exhausted = False

    def __iter__(self) -> Iterator[Done]:
        """What becomes of each call; leaving early cancels what is under way."""
        try:
            while self._has_more():
                done = self._step()
                if done:
                    self._failed |= done.error is not None
                    yield done
        finally:
            for flight in self._flying.values():
                flight.future.cancel()

    def _has_more(self) -> bool:
        if self._failed:
            return bool(self._flying)
        waits = self._again or self._resting or self._blamed or self._flying
        return bool(waits) or not self._exhausted

    def _step(self) -> Done | None:
        try:
            self._fill()
            name = self._wait()
            return self._settle(name) if name else None
        except SchedulerLost as loss:
            self._compute.renew(loss)
            # Everything under way went with the scheduler; what is recorded is found done.
            self._again.extend((f.call, f.attempt, f.deaths) for f in self._flying.values())
            self._flying.clear()
            return None

    def _fill(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._compute.look()
            self._next_look = now + _LOOK_SECONDS
        if self._failed:
            return
        while self._resting and self._resting[0][0] <= now:
            _, _, call, attempt, deaths = heapq.heappop(self._resting)
            self._again.append((call, attempt, deaths))
        room = IN_FLIGHT_A_SLOT * max(self._compute.slots, 1)
        while len(self._flying) < room and (next_one := self._next()):
            self._submit(*next_one)

    def _next(self) -> tuple[Call, int, int] | None:
        if self._again:
            return self._again.popleft()
        if not self._exhausted:
            for call in self._calls:
                return call, 1, 0
            self._exhausted = True
        # The blamed come last and one by one, with nothing beside them that could be the culprit.
        if self._blamed and not self._flying and not self._resting:
            return self._blamed.popleft()
        return None

    def _submit(self, call: Call, attempt: int, deaths: int) -> None:
        # A new name for each attempt: Dask remembers the failure of the old one for a while.
        name = f"{call.key}-{next(self._number)}"
        # In the list before it is handed over: if that fails, the call is not forgotten.
        self._flying[name] = flight = _Flight(call, attempt, deaths, _NEVER)
        flight.future = self._compute.submit(
            call.function, *call.args, key=name, priority=self._priority
        )
        flight.future.add_done_callback(lambda _: self._landed.put(name))
        self._began(call.key)

    def _wait(self) -> str | None:
        until = min([self._next_look, *(due for due, *_ in self._resting[:1])])
        try:
            return self._landed.get(timeout=max(until - time.monotonic(), 0.01))
        except queue.Empty:
            return None

    def _settle(self, name: str) -> Done | None:
        flight = self._flying.get(name)
        if flight is None:
            return None  # of a scheduler that is lost
        call = flight.call
        result, error = self._compute.outcome(flight.future)
        del self._flying[name]
        if error is None:
            return Done(call.key, result, attempts=flight.attempt)
        if isinstance(error, CallKillsWorkers):
            deaths = flight.deaths + error.deaths
            if not flight.deaths:
                self._blamed.append((call, flight.attempt + 1, deaths))
                return None
            error = CallKillsWorkers(call.key, deaths, error.worker)
        elif may_heal(error) and flight.attempt < ATTEMPTS:
            due = time.monotonic() + backoff_seconds(flight.attempt)
            waiting = (due, next(self._number), call, flight.attempt + 1, flight.deaths)
            heapq.heappush(self._resting, waiting)
            return None
        return Done(call.key, error=error, attempts=flight.attempt)


class _Never:
    """In the place of a future that was not made."""

    def cancel(self) -> None:
        """Do nothing."""


_NEVER = _Never()
