"""What is tried again, and when: only what may heal by itself, and not for long."""

import random
import time

from headrace.errors import HeadraceError

HEALS = (ConnectionError, TimeoutError, InterruptedError)
"""What may heal by itself: the network, a server that restarts, an interrupted call."""

ATTEMPTS = 4
_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 20.0


def may_heal(error: BaseException) -> bool:
    """True if the same call may work a little later.

    An error of ours is what caused it: a storage that could not be reached heals, a file that is
    not there does not. On its way from a worker an error loses its cause; one of ours keeps the
    facts that it was given, and ``reason`` is the cause for those that have one.
    """
    if isinstance(error, HEALS):
        return True
    if isinstance(error, HeadraceError):
        causes = (error.__cause__, getattr(error, "reason", None))
        return any(isinstance(cause, BaseException) and may_heal(cause) for cause in causes)
    return False


def backoff_seconds(attempt: int) -> float:
    """How long to wait after the ``attempt``-th failure, 1 for the first: 1, 2, 4 ... and a bit.

    The bit is random (up to a quarter), so that many callers do not come back at once.
    """
    bit = random.uniform(1, 1.25)  # noqa: S311  (nothing is kept secret by it)
    return bit * min(_FIRST_SECONDS * 2.0 ** (attempt - 1), _LONGEST_SECONDS)


def wait_to_try_again(error: BaseException, attempt: int) -> bool:
    """Sleep as long as it takes, for a caller with nothing else to do; False if it is hopeless."""
    if attempt >= ATTEMPTS or not may_heal(error):
        return False
    time.sleep(backoff_seconds(attempt))
    return True
