"""What the tests of clusters let workers do. Workers import this module by its name."""

import os
import signal
import time
from pathlib import Path


def double(number):
    return 2 * number


def note(folder, name):
    """Leave a trace of having run: one file for each time, with the process that did."""
    path = Path(folder, f"{name}.{os.getpid()}.{time.monotonic_ns()}")
    path.write_text(str(os.getpid()))


def traces(folder, name):
    """How many times the call of that name has left its trace."""
    return len(list(Path(folder).glob(f"{name}.*")))


def noted(folder, name, seconds=0.0):
    """Say that it has begun, work for some time, and leave a trace at the end."""
    note(folder, f"began-{name}")
    time.sleep(seconds)
    note(folder, f"ended-{name}")
    return os.getpid()


def fail_times(folder, times):
    """A connection that is refused ``times`` times and then works."""
    note(folder, "try")
    if traces(folder, "try") <= times:
        raise ConnectionResetError("connection reset by peer")
    return "healed"


def refuse(folder, number):
    note(folder, f"refused-{number}")
    raise ValueError(f"{number} cannot be")


def die(folder, name="death"):
    """End the worker as a segmentation fault does."""
    note(folder, name)
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(folder, name):
    if not traces(folder, name):
        die(folder, name)
    return "alive"
