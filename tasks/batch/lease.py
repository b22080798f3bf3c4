"""Leases: of all runs that would write an output, one at a time, and later ones by a higher epoch.

::

    <output>/leases/<epoch>.json   who holds it: a chain, so two can never take the same epoch
    <output>/leases/<epoch>.beat   the holder's heartbeat

A lease keeps runs from doing the same work twice; it is no lock that safety rests on. A holder may
be stopped for an hour and wake after another has taken over: what it has written by then is useful
to everybody, and its commit fails, because a manifest carries its epoch (``commit.py``).
"""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from headrace import chain, storage
from headrace.errors import HeadraceError
from headrace.sealed import seal, unseal
from headrace.spec import Part
from tasks.batch.liveness import Heartbeat, Observer, Process, this_process

_log = logging.getLogger(__name__)

SECONDS = 15.0
"""How long a holder may give no sign of life before another takes over."""

_LOOKS = 30  # a waiting run looks so often in the time of a lease, or more often
_LONGEST_PAUSE_SECONDS = 0.5


class LeaseLost(HeadraceError):
    """An output that another run has taken over."""

    def __init__(self, output: str, epoch: int, newer: int) -> None:
        self.output, self.epoch, self.newer = output, epoch, newer
        super().__init__(
            f"{output} was taken over: this run wrote it in epoch {epoch}, another one does in "
            f"epoch {newer}, because this one gave no sign of life for too long. Nothing is lost: "
            "what it scored is used by the other; look for that run's result."
        )


class Holder(Part):
    """Who holds an epoch."""

    epoch: int
    owner: str
    """In words, for those who wait."""
    process: Process
    seconds: float
    """How long it may give no sign of life before another takes over."""
    token: str
    """Random: two that want the same epoch never write the same bytes."""


class Lease:
    """The right to commit to an output, for as long as nobody has a higher epoch."""

    def __init__(self, output: str, epoch: int) -> None:
        self.output, self.epoch = output, epoch
        self._newer = 0
        self._lost = threading.Event()

    @property
    def is_lost(self) -> bool:
        """True once the heartbeat has seen another holder. Costs nothing."""
        return self._lost.is_set()

    def check(self) -> None:
        """Stop a run whose output was taken over. Costs nothing: ask it often.

        Raises:
            LeaseLost: if the heartbeat has seen another holder.
        """
        if self.is_lost:
            raise LeaseLost(self.output, self.epoch, self._newer)

    def confirm(self) -> None:
        """Look on storage itself.

        Raises:
            LeaseLost: if there is another holder.
            StorageFailed: if storage cannot say.
        """
        self.still_holds()
        self.check()

    def still_holds(self) -> bool:
        """Look on storage for another holder; True if there is none."""
        if chain.holds(_folder(self.output), self.epoch + 1):
            self._newer = chain.newest(_folder(self.output))
            self._lost.set()
        return not self.is_lost


@contextlib.contextmanager
def held(
    output: str, *, owner: str, seconds: float = SECONDS, say: Callable[[str], None] = _log.info
) -> Iterator[Lease]:
    """Hold the lease of ``output`` inside the block; wait as long as another run holds it.

    Whoever has waited looks first whether the other run has done the work.

    Args:
        output: what will be written.
        owner: who wants it, in words: those who wait are told.
        seconds: how long this run may give no sign of life before another takes over.
        say: is told once that this run waits, and for whom.
    """
    while True:
        holder = holder_of(output)
        if holder:
            _wait_for_end(output, holder, say)
        lease = take(output, owner=owner, seconds=seconds, after=holder.epoch if holder else 0)
        if lease:
            break
    with _alive(lease, seconds):
        yield lease


@contextlib.contextmanager
def held_if_free(output: str, *, owner: str, seconds: float = SECONDS) -> Iterator[Lease | None]:
    """The same without waiting: None if a holder lives, or nobody can tell at once."""
    holder = holder_of(output)
    lease = None
    if holder is None or observer_of(output, holder).has_ended():
        lease = take(output, owner=owner, seconds=seconds, after=holder.epoch if holder else 0)
    with _alive(lease, seconds) if lease else contextlib.nullcontext():
        yield lease


def take(output: str, *, owner: str, seconds: float, after: int) -> Lease | None:
    """Take the epoch after ``after``, whoever holds that; None if somebody else was faster."""
    epoch = after + 1
    holder = Holder(
        epoch=epoch,
        owner=owner,
        process=this_process(),
        seconds=seconds,
        token=uuid.uuid4().hex,
    )
    if not chain.add(_folder(output), epoch, seal(holder)):
        return None
    # An epoch that was cleaned away in the meantime can be taken again, but is no longer the last.
    return Lease(output, epoch) if chain.newest(_folder(output)) == epoch else None


def holder_of(output: str) -> Holder | None:
    """Who holds the highest epoch, alive or not; None if nobody ever held one."""
    folder = _folder(output)
    epoch = chain.newest(folder)
    if not epoch:
        return None
    return unseal(chain.read(folder, epoch), Holder, uri=chain.address(folder, epoch))


def observer_of(output: str, holder: Holder) -> Observer:
    """What finds out whether ``holder`` has ended."""
    return Observer(_beat(output, holder.epoch), holder.process, seconds=holder.seconds)


def forget_older(lease: Lease) -> None:
    """Remove what is left of the epochs before that of ``lease``."""
    folder = _folder(lease.output)
    for epoch in chain.numbers(folder):
        if epoch < lease.epoch:
            storage.remove(_beat(lease.output, epoch))
            storage.remove(chain.address(folder, epoch))


def forget_all(output: str) -> None:
    """Remove every epoch of what nobody will write any more."""
    for name in storage.list_names(_folder(output)):
        storage.remove(f"{_folder(output)}/{name}")


@contextlib.contextmanager
def _alive(lease: Lease, seconds: float) -> Iterator[None]:
    heartbeat = Heartbeat(
        _beat(lease.output, lease.epoch), seconds=seconds, on_beat=lease.still_holds
    )
    heartbeat.start()
    try:
        yield
    finally:
        heartbeat.stop()


def _wait_for_end(output: str, holder: Holder, say: Callable[[str], None]) -> None:
    """Return when ``holder`` has ended, or somebody else has found that and taken over."""
    observer, told = observer_of(output, holder), False
    while not observer.has_ended():
        if chain.holds(_folder(output), holder.epoch + 1):
            return
        if not told:
            who = f"process {holder.process.pid} on {holder.process.host}"
            say(f"{output} is being written by {holder.owner} ({who}): waiting for it to end")
            told = True
        time.sleep(min(holder.seconds / _LOOKS, _LONGEST_PAUSE_SECONDS))


def _folder(output: str) -> str:
    return f"{output}/leases"


def _beat(output: str, epoch: int) -> str:
    return chain.address(_folder(output), epoch).removesuffix(".json") + ".beat"
