"""The processes of a trial: one that forks, one that watches over, one that loads and may die.

``serve`` runs in a small process that has imported what loading needs and has no threads, so that
a fork of it is whole and costs milliseconds. For each bundle it forks a watcher; the watcher forks
the child that loads, waits for it, ends it when its time is over, and says what became of it.
``python -m serving.trial_process`` is that process where it cannot be forked from the server.
"""

import contextlib
import json
import os
import re
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NoReturn

from headrace import storage
from headrace.errors import BundleRefused, HeadraceError
from serving.errors import RuntimeFailed
from serving.predictor import Predictor, load_predictor
from serving.runtimes.device import DeviceChoice
from serving.runtimes.forest import library

MESSAGE_BYTES = 65_536
_KERNEL_SECONDS = 2.0
"""How long the forest kernel may take to prove itself; it is seldom a tenth of that."""


@dataclass(frozen=True)
class Job:
    """A bundle to try, and what its loader may take."""

    bundles_root: str
    digest: str
    device: DeviceChoice
    threads: int
    seconds: float
    memory_bytes: int
    """Beyond what the process has when it begins, and beyond four times the bundle's files."""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    kind: Literal["good", "refused", "failed"]
    """``failed``: it could not be tried, as where storage does not answer."""
    reason: str = ""
    size_bytes: int = 0
    """What the model takes: its files and what loading took in memory."""


def serve(asked: socket.socket) -> None:
    """Fork a watcher for each job that arrives, until the server is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the server ends first, and this process with it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks what became of watchers
    while True:
        message, descriptors, _, _ = socket.recv_fds(asked, MESSAGE_BYTES, 1)
        if not message:
            return
        if os.fork() == 0:
            asked.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            outcome = watch_over(Job(**json.loads(message)))
            with contextlib.suppress(BrokenPipeError):  # the server went away meanwhile
                os.write(descriptors[0], json.dumps(asdict(outcome)).encode())
            os._exit(0)
        os.close(descriptors[0])


def watch_over(job: Job) -> Outcome:
    """Have ``job`` done by a child, and say what became of it."""
    files = _file_bytes(job)
    # Reading and hashing takes about a second for 200 MB, and is done before any parser begins.
    deadline = time.monotonic() + job.seconds + files / 200e6
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_the_child(job, files, writing)
    os.close(writing)
    said, over = _said(reading, deadline)
    if over:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if over:
        return Outcome("refused", f"loading it took longer than {job.seconds:g} s")
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Outcome("refused", f"loading it ended the process by {name}")
    if not said:
        return Outcome(
            "refused", f"loading it ended the process with code {os.WEXITSTATUS(status)}"
        )
    return Outcome(**json.loads(said))


def _said(reading: int, deadline: float) -> tuple[bytes, bool]:
    """What a child wrote until it ended, and whether its time was over before."""
    said = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            return said, True
        more = os.read(reading, MESSAGE_BYTES)
        if not more:
            return said, False
        said += more


def _be_the_child(job: Job, files: int, writing: int) -> NoReturn:
    code = 1
    try:
        _limit(job, files)
        outcome = _tried(job)
        os.write(writing, json.dumps(asdict(outcome)).encode())
        code = 0
    finally:
        os._exit(code)  # nothing of the parent's is flushed or closed here


def _limit(job: Job, files: int) -> None:
    """Hold this process to its memory, and let the kernel choose it first where that is short.

    RLIMIT_DATA counts what a process may write to: unlike RLIMIT_AS, not the pages of a model file
    that is mapped, nor what allocators and CUDA reserve without using it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _data_bytes() + job.memory_bytes + 4 * files
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    Path("/proc/self/oom_score_adj").write_text("1000")


def _tried(job: Job) -> Outcome:
    library.may_compile = False  # that takes longer than this process lives
    sys.modules.setdefault("pandas", None)  # type: ignore[arg-type]  # pyarrow would bring it: 0.5 s
    before = memory_bytes()
    try:
        predictor = load_predictor(
            job.bundles_root, job.digest, device=job.device, threads=job.threads
        )
        settle(predictor, _KERNEL_SECONDS)
    except BundleRefused as error:
        return Outcome("refused", error.reason)
    except MemoryError:
        limit = job.memory_bytes / 2**20
        return Outcome("refused", f"loading it took more than {limit:,.0f} MiB beyond its files")
    except (HeadraceError, OSError) as error:
        return Outcome("failed", str(error))
    return Outcome("good", size_bytes=size_bytes(predictor, before))


def _file_bytes(job: Job) -> int:
    try:
        found = storage.find_below(f"{job.bundles_root}/{job.digest}")
    except HeadraceError:
        return 0  # the child meets the same failure, and tells it
    return sum(file.bytes for file in found)


def _data_bytes() -> int:
    """What RLIMIT_DATA counts of this process already."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return pages * os.sysconf("SC_PAGE_SIZE")


def settle(predictor: Predictor, seconds: float) -> None:
    """Wait until it is clear which code computes: the forest kernel gets ready on a thread.

    Raises:
        BundleRefused: if the model turns out to be broken meanwhile.
    """
    wait: Callable[[float], object] | None = getattr(predictor.runtime, "wait_for_kernel", None)
    if wait and seconds:
        try:
            wait(seconds)
        except RuntimeFailed as error:
            raise BundleRefused(predictor.digest, str(error)) from error


def size_bytes(predictor: Predictor, before: int) -> int:
    """What a model takes: its files, which may be mapped, and what loading it took in memory.

    Args:
        predictor: the model.
        before: ``memory_bytes()`` before it was loaded.
    """
    files = sum(len(data) for data in predictor.bundle.files.values())
    return files + max(0, memory_bytes() - before)


def memory_bytes() -> int:
    """The memory that this process has to itself, files that are mapped left out."""
    told = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if told is None:
        raise OSError("/proc/self/status has no RssAnon: Headrace serves on Linux 4.5 or newer")
    return int(told[1]) * 1024


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
