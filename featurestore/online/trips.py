"""Reading as steps: what has to be asked of a store, whoever makes the trip and however.

A read is a generator that yields each ``Trip`` it needs and is sent the replies. ``make_trips``
makes them on this thread, ``make_trips_soon`` on the running event loop, so both ways of reading
are one implementation. What needs no trip, such as a read of a file, yields none.
"""

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol, TypeVar

from featurestore.errors import OnlineStoreFailed

Result = TypeVar("Result")


class Trip(NamedTuple):
    """One round trip to a store: what is sent, and how many replies come."""

    commands: bytes
    replies: int


class Trips(Protocol):
    """Makes trips to one store; safe to use from several threads and event loops."""

    connections: int
    """How many connections were made so far. Behind a new one may be a server started anew."""

    def make(self, trip: Trip, /) -> list[Any]:
        """The replies of a trip, made on this thread.

        Raises:
            OnlineStoreFailed: if the store does not answer in time, or answers with an error.
        """

    async def make_soon(self, trip: Trip, /) -> list[Any]:
        """As ``make``, on the running event loop, which goes on meanwhile."""

    def close(self) -> None:
        """Let go of all connections."""


Steps = Generator[Trip, list[Any], Result]
"""A read that yields its trips, takes their replies and returns a result."""


def at_once(result: Result) -> Steps[Result]:
    """The steps of what is known without a trip."""
    yield from ()
    return result


def make_trips(steps: Steps[Result], trips: Trips | None) -> Result:
    """Take all steps on this thread; a failed trip is told to the steps, which may go on."""
    try:
        trip = next(steps)
        while True:
            assert trips is not None
            try:
                replies = trips.make(trip)
            except OnlineStoreFailed as error:
                trip = steps.throw(error)
            else:
                trip = steps.send(replies)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def make_trips_soon(steps: Steps[Result], trips: Trips | None) -> Result:
    """Take all steps on the running event loop; does not give it up where no trip is needed."""
    try:
        trip = next(steps)
        while True:
            assert trips is not None
            try:
                replies = await trips.make_soon(trip)
            except OnlineStoreFailed as error:
                trip = steps.throw(error)
            else:
                trip = steps.send(replies)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()
