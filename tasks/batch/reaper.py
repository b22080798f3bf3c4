"""Find batch runs whose process was killed, tell Prefect, and start their work again, once.

A run of this machine is known to be dead at once. One of another machine is watched: it is dead
when its heartbeat has stood still for as long as it allowed itself. Of several reapers one deals
with a dead run, by a lease on it; one that dies itself in the middle is followed by another.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Literal

import httpx
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel

from headrace.settings import Settings
from headrace.spec import Part
from tasks import background
from tasks.batch import prefect_runs, running
from tasks.batch.lease import forget_all, held_if_free
from tasks.batch.liveness import BEATS_IN_A_LEASE, Observer, is_dead
from tasks.batch.running import Run

_log = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
"""So often is the same work started again: what kills its process each time must not go on."""


class Reaped(Part):
    """A run that was killed, and what became of its work."""

    run: Run
    outcome: Literal["started again", "given up", "not started again"]
    reason: str = ""

    @property
    def told(self) -> str:
        """The same as a sentence."""
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.run.command}, whose process was killed, is {self.outcome}{why}"


@contextlib.contextmanager
def batch_run(settings: Settings, *, module: str, config: BaseModel) -> Iterator[None]:
    """What every batch flow does first: be known as running, then deal with those that were killed.

    A flow inside another batch flow leaves both to that one.

    Args:
        settings: where runs are written down.
        module: what ``python -m`` takes to start the flow.
        config: its parameters.
    """
    with running.registered(settings, module=module, config=config) as run:
        if run.flow_run == flow_run.id:
            reap(settings, say=get_run_logger().info)
        yield


def reap(
    settings: Settings, *, watch: bool = False, say: Callable[[str], None] = _log.info
) -> tuple[Reaped, ...]:
    """Deal with every run that was killed. Safe to call anywhere and at once.

    A run that ended in good order is only forgotten.

    Args:
        settings: where the runs are written down.
        watch: also wait until it is sure which runs of other machines live; up to the time that
            they allow themselves.
        say: is told of each run that was killed.
    """
    reaped = []
    for run, observer in _ended(settings, watch=watch):
        one = _settle(settings, run, observer)
        if one:
            say(one.told)
            reaped.append(one)
    return tuple(reaped)


def _ended(settings: Settings, *, watch: bool) -> list[tuple[Run, Observer]]:
    watched = [(run, running.observer_of(settings, run)) for run in running.runs(settings)]
    longest = max((run.seconds for run, _ in watched), default=0.0)
    deadline = time.monotonic() + longest * (1 + 1 / BEATS_IN_A_LEASE)
    ended: list[tuple[Run, Observer]] = []
    while True:
        now = [pair for pair in watched if pair[1].has_ended()]
        ended += now
        watched = [pair for pair in watched if pair not in now]
        if not watch or not watched or time.monotonic() > deadline:
            return ended
        time.sleep(min(longest / 10, 1.0))


def _settle(settings: Settings, run: Run, observer: Observer) -> Reaped | None:
    claim = running.claim_uri(settings, run)
    with held_if_free(claim, owner=f"reaper of {run.id}", seconds=run.seconds) as lease:
        # Gone: another reaper has dealt with it between the look and the claim.
        if lease is None or running.read(settings, run.id) is None:
            return None
        try:
            believed = _believed(run, observer)
            if observer.in_good_order and believed == "going on" and not is_dead(run.process):
                return None  # its process is about to tell Prefect
            was_killed = believed == "going on" or not observer.in_good_order
            reaped = None
            if was_killed and believed != "over":
                if run.flow_run:
                    prefect_runs.mark_crashed(run.flow_run, _told(run))
                reaped = _start_again(settings, run)
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            _log.warning("Prefect is told later that %s was killed: %s", run.command, error)
            return None
        running.forget(settings, run)
    forget_all(claim)  # whoever takes it now finds no entry
    return reaped


def _believed(run: Run, observer: Observer) -> prefect_runs.Belief:
    """What Prefect believes of a run; of one that it never knew, what the heart said last."""
    if run.flow_run:
        return prefect_runs.belief(run.flow_run)
    return "over" if observer.in_good_order else "going on"


def _start_again(settings: Settings, run: Run) -> Reaped:
    if run.attempt >= MOST_ATTEMPTS:
        reason = f"its process died {run.attempt + 1} times; run it by hand to see why"
        return Reaped(run=run, outcome="given up", reason=reason)
    if _goes_on(settings, run):
        return Reaped(run=run, outcome="started again", reason="by somebody else, it goes on now")
    running.count_attempt(settings, run)
    try:
        if run.deployment:
            key = f"after-{run.id}"
            prefect_runs.run_deployment_again(run.deployment, run.config, key=key)
        else:
            _start_process(settings, run)
    except (ObjectNotFound, FileNotFoundError) as error:
        return Reaped(run=run, outcome="not started again", reason=str(error))
    return Reaped(run=run, outcome="started again")


def _goes_on(settings: Settings, run: Run) -> bool:
    """Whether another run does the same work, as when a person was faster."""
    same = [one for one in running.runs(settings) if one.key == run.key and one.id != run.id]
    return any(not running.observer_of(settings, one).has_ended() for one in same)


def _start_process(settings: Settings, run: Run) -> None:
    logs = settings.home / "started_again"
    logs.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "HEADRACE_HOME": str(settings.home),
        "HEADRACE_STORAGE": settings.storage_uri,
    }
    if PREFECT_API_URL.value():
        environment["PREFECT_API_URL"] = PREFECT_API_URL.value()
    with contextlib.chdir(run.folder):
        background.start(run.arguments, environment, log=logs / f"{run.id}.log")


def _told(run: Run) -> str:
    return f"process {run.process.pid} on {run.process.host} was killed"
