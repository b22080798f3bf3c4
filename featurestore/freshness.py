"""When a value may be used: one rule for training, batch prediction and the online read.

A value counts at time t if it was true and written by then (``event <= t`` and ``created <= t``)
and if its age ``t - event`` is not above the TTL of its view; an age of exactly the TTL is fine.
"""

from enum import IntEnum

import numpy as np

from headrace.plan import ViewRead

ANY_AGE = np.iinfo(np.int64).max


class ReadStatus(IntEnum):
    """Why the latest value of an entity was used, or not."""

    PRESENT = 0
    """There is a value that may be used; single features of it may still be null."""
    NEVER_SEEN = 1
    """The entity has no value at all, or its key is null."""
    EXPIRED = 2
    """The latest value known at the time is older than the TTL."""
    FUTURE = 3
    """Every value of the entity became true, or known, only after the time."""
    UNAVAILABLE = 6
    """The online store could not be asked. (4 and 5 are the join's own.)"""
    LAST_KNOWN = 7
    """There is a value older than the TTL, and the plan says to use it all the same."""


STATUS_WORDS = (
    *("present", "never_seen", "expired", "future", "written_late", "null_key"),
    *("unavailable", "last_known"),
)
"""The words for what became of a view's value, at the position of the code: of ``ReadStatus``, and
of the join's ``NullReason``, which share their codes."""


def has_value(codes: np.ndarray) -> np.ndarray:
    """Whether there is a value that may be used: bool, of the shape of ``codes``."""
    return np.asarray((codes == ReadStatus.PRESENT) | (codes == ReadStatus.LAST_KNOWN))


def oldest_age(read: ViewRead) -> int:
    """The greatest age at which a value of the view may be used, in microseconds."""
    return ANY_AGE if read.ttl_seconds is None else round(read.ttl_seconds * 1_000_000)


def known_at(event: np.ndarray, created: np.ndarray) -> np.ndarray:
    """When each value could first be used, int64 microseconds: true and written by then."""
    return np.asarray(np.maximum(event, created))
