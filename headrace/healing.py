"""Try again what may heal: a store that is busy, a connection that breaks, a reply cut short.

The one place where Headrace decides how often and how long S3 is asked again. The retries inside
botocore and s3fs are turned off for our own calls: they multiply each other, and neither sees a
body that breaks off after its headers came.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from headrace.errors import HeadraceError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long to try: whichever of the two limits comes first."""

    attempts: int = 10
    seconds: float = 60.0
    """No attempt begins later than this after the first one began."""
    first_wait_seconds: float = 0.1
    longest_wait_seconds: float = 5.0

    def wait_seconds(self, attempt: int) -> float:
        """How long to wait after the given attempt (0, 1, ...) failed.

        Random between nothing and an exponentially growing bound, so that many workers who were
        refused together do not come back together.

        Source: "full jitter", https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        bound = min(self.longest_wait_seconds, self.first_wait_seconds * 2**attempt)
        return random.uniform(0, bound)  # noqa: S311  (no secret hangs on it)


DEFAULT = Patience()


class GaveUp(HeadraceError, ConnectionError):
    """What did not heal in time; ``__cause__`` is how it failed last."""

    remedy = "Check the network and the endpoint, then run the same again: what is done is kept."

    def __init__(self, attempts: int, seconds: float, last: BaseException) -> None:
        self.attempts, self.seconds = attempts, seconds
        super().__init__(
            f"tried {attempts} times in {seconds:.1f} s, at last {type(last).__name__}: {last}"
        )


async def healed(
    action: Callable[[], Awaitable[Result]],
    heals: Callable[[BaseException], bool],
    *,
    patience: Patience | None = None,
) -> Result:
    """Await ``action()``, again and again while its failure may heal.

    Args:
        action: starts one attempt; must be safe to repeat.
        heals: True for a failure that may heal.
        patience: how long to try; None: ``DEFAULT`` as it is now.

    Raises:
        GaveUp: if it did not heal in time.
        Exception: at once, whatever ``action`` raised that does not heal.
    """
    limits = patience or DEFAULT
    begun = time.monotonic()
    for attempt in range(limits.attempts):
        try:
            return await action()
        except Exception as error:
            if not heals(error):
                raise
            waited = time.monotonic() - begun
            wait = limits.wait_seconds(attempt)
            if attempt + 1 == limits.attempts or waited + wait > limits.seconds:
                raise GaveUp(attempt + 1, waited, error) from error
            await asyncio.sleep(wait)
    raise AssertionError("a Patience has at least one attempt")
