"""A process that is told to end takes its cluster down with it."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def sigterm_ends_the_block() -> Iterator[None]:
    """Let SIGTERM leave the block as an exit does, so that what it opened is closed.

    Python ends at once at a SIGTERM: pods and processes would be left. Where somebody else handles
    the signal already (Prefect's engine does, inside a flow run), it is theirs.
    """
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not ours:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
