"""A Dask worker that is told to end finishes the shard it is at, and hands back the rest.

Loaded by each worker as it starts (``--preload tasks.clusters.draining``, also as
``--preload-nanny``; workers that Headrace starts have it). Dask alone ends a worker at SIGTERM at
once, and the shard is done a second time elsewhere; its own graceful closing waits for data to be
moved, but not for the call that runs.

What tells a worker to end: SIGTERM, to it or to the ``dask worker`` command; and the notice of a
spot machine, which the setting ``headrace.notice`` says how to see (``tasks.clusters.notices``).
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from tasks.clusters.notices import is_given

if TYPE_CHECKING:
    from distributed import Nanny, Worker

DRAIN_SECONDS = 100.0
"""Of a spot machine's two minutes (AWS); ``headrace.drain-seconds`` changes it."""
POLL_SECONDS = 2.0

_log = logging.getLogger(__name__)
_nannies: list["Nanny"] = []
_kept: set[asyncio.Task[None]] = set()
"""A task that nobody holds may be collected before it has run."""


def dask_setup(service: Any) -> None:
    """What Dask calls with the worker, or nanny, that has started."""
    from distributed import Nanny

    if threading.current_thread() is not threading.main_thread():
        return  # a worker inside a test's process: its signals are not ours
    if isinstance(service, Nanny):
        _pass_on(service)
    else:
        _listen(service)


def _listen(worker: "Worker") -> None:
    import dask

    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_sigterm(_number: int, _frame: FrameType | None) -> None:
        if _is_over_its_memory(worker):
            os._exit(128 + signal.SIGTERM)  # its nanny has had enough, and starts another
        loop.call_soon_threadsafe(told.set)

    signal.signal(signal.SIGTERM, on_sigterm)
    notice = dask.config.get("headrace.notice", "")
    if notice:
        _kept.add(asyncio.create_task(_watch(notice, told)))
    _kept.add(asyncio.create_task(_drain_when(told, worker)))


async def _watch(notice: str, told: asyncio.Event) -> None:
    while not await asyncio.to_thread(is_given, notice):
        await asyncio.sleep(POLL_SECONDS)
    told.set()


async def _drain_when(told: asyncio.Event, worker: "Worker") -> None:
    await told.wait()
    await drain(worker)


async def drain(worker: "Worker") -> None:
    """Begin nothing new, finish what runs, hand back what is queued, close worker and nanny."""
    import dask
    from distributed.core import Status

    if worker.status not in (Status.running, Status.paused):
        return
    _log.warning("worker %s is told to end: it finishes what it is at", worker.address)
    # The scheduler gives it nothing more from here on. (``paused`` would do the same, but the
    # worker's memory monitor takes that back.)
    worker.status = Status.closing_gracefully
    deadline = time.monotonic() + float(dask.config.get("headrace.drain-seconds", DRAIN_SECONDS))
    while worker.state.executing and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    with contextlib.suppress(OSError):  # without a scheduler there is nobody to tell
        # What is queued here goes to other workers, and counts as no death of theirs.
        await worker.scheduler.retire_workers(
            workers=[worker.address], close_workers=False, remove=True, stimulus_id="drained"
        )
    await worker.close(nanny=True, reason="drained")


def _is_over_its_memory(worker: "Worker") -> bool:
    """True if the SIGTERM is the nanny's answer to a worker that has grown too large."""
    import dask

    limit = worker.memory_manager.memory_limit
    share = dask.config.get("distributed.worker.memory.terminate") or 1.0
    return limit is not None and worker.monitor.get_process_memory() > float(share) * limit


def _pass_on(nanny: "Nanny") -> None:
    """Let the ``dask worker`` command pass SIGTERM on to its workers, which drain and end it."""
    _nannies.append(nanny)
    if len(_nannies) == 1:
        signal.signal(signal.SIGTERM, _to_workers)


def _to_workers(_number: int, _frame: FrameType | None) -> None:
    for nanny in _nannies:
        if nanny.process is not None and nanny.process.pid is not None:
            os.kill(nanny.process.pid, signal.SIGTERM)
