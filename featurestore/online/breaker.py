"""A breaker: while a store fails, all but one request in a while are told so at once.

Without it every request would wait for its deadline, one after the other.
"""

import threading
import time

from featurestore.errors import OnlineStoreFailed


class Breaker:
    """Remembers that a store failed; safe to use from several threads."""

    def __init__(self, retry_seconds: float) -> None:
        """Start closed: requests go through.

        Args:
            retry_seconds: how long requests are refused after a failure, before one tries again.
        """
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._failure: OnlineStoreFailed | None = None
        self._retry_at = 0.0

    @property
    def failure(self) -> OnlineStoreFailed | None:
        """Why the store failed when it was last asked; None where it answered."""
        return self._failure

    def check(self) -> None:
        """Let the request through, or raise the last failure.

        Of the requests after the wait only the first goes through, to try.
        """
        if self._failure is None:
            return
        with self._lock:
            if (failure := self._failure) is None:
                return
            if (now := time.monotonic()) < self._retry_at:
                raise OnlineStoreFailed(failure.action, failure.path, failure.reason)
            self._retry_at = now + self._retry_seconds

    def failed(self, failure: OnlineStoreFailed) -> None:
        """The store has failed."""
        with self._lock:
            self._failure, self._retry_at = failure, time.monotonic() + self._retry_seconds

    def answered(self) -> None:
        """The store has answered."""
        if self._failure is not None:
            with self._lock:
                self._failure = None
