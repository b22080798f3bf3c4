"""Reading on an event loop: whose replies they are, what is late, and what the loop never feels."""

import asyncio
import contextlib
import socket
import threading
import time

import hiredis
import pytest
import uvloop

from featurestore.errors import OnlineStoreFailed
from featurestore.online.redis_trips import RedisTrips
from featurestore.online.trips import Trip
from featurestore.stores.resp import command

DEADLINE = 0.2


class Echo:
    """A server that answers ``ECHO text`` with the text, in its own time."""

    def __init__(self):
        self.seconds, self.pieces, self.accepted = 0.0, 1, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        reader = hiredis.Reader()
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                reader.feed(data)
                while (asked := reader.gets()) is not False:
                    time.sleep(self.seconds)
                    text = asked[1]
                    reply = (
                        b"-ERR no\r\n" if text == b"no" else b"$%d\r\n%b\r\n" % (len(text), text)
                    )
                    size = -(-len(reply) // self.pieces)
                    for start in range(0, len(reply), size):
                        connection.sendall(reply[start : start + size])

    def drop(self):
        while self.accepted:
            with contextlib.suppress(OSError):
                self.accepted[-1].shutdown(socket.SHUT_RDWR)
            self.accepted.pop().close()

    def close(self):
        with contextlib.suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()


@pytest.fixture
def server():
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def trips(server):
    made = RedisTrips(server.url, deadline_seconds=5)
    yield made
    made.close()


@pytest.fixture
def hurried(trips):
    """Trips that are late after ``DEADLINE``; the connection is there."""
    trips._deadline = DEADLINE
    return trips


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request, trips):
    """Run a coroutine on each kind of loop, and close connections before the loop."""

    def run(work):
        async def whole():
            try:
                return await work
            finally:
                trips.close()
                await asyncio.sleep(0)

        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(whole())

    return run


def echo(*texts):
    return Trip(b"".join(command(b"ECHO", str(text).encode()) for text in texts), len(texts))


def said(*texts):
    return [str(text).encode() for text in texts]


def test_many_trips_at_once_each_get_their_own_replies_on_one_connection(trips, server, run):
    async def work():
        wanted = [range(n, n + 1 + n % 7) for n in range(200)]
        found = await asyncio.gather(*(trips.make_soon(echo(*some)) for some in wanted))
        assert found == [said(*some) for some in wanted]
        assert len(server.accepted) == 1

    run(work())


def test_replies_that_come_in_pieces_are_put_together(trips, server, run):
    server.pieces = 5

    async def work():
        texts = ["x" * 50_000, "y", "z" * 10_000]
        assert await trips.make_soon(echo(*texts)) == said(*texts)

    run(work())


def test_a_trip_larger_than_the_sockets_buffers_is_written_as_they_empty(trips, run):
    async def work():
        texts = ["v" * 1_000_000] * 8
        assert await trips.make_soon(echo(*texts)) == said(*texts)

    run(work())


def test_an_error_is_that_of_its_own_trip(trips, run):
    async def work():
        one, two, three = await asyncio.gather(
            trips.make_soon(echo(1)),
            trips.make_soon(echo("no", 2)),
            trips.make_soon(echo(3)),
            return_exceptions=True,
        )
        assert (one, three) == (said(1), said(3))
        assert isinstance(two, OnlineStoreFailed)
        assert "ERR no" in str(two)

    run(work())


def test_a_cancelled_trip_leaves_its_replies_to_nobody(trips, server, run):
    server.seconds = 0.005

    async def work():
        tasks = [asyncio.ensure_future(trips.make_soon(echo(n, -n))) for n in range(10)]
        await asyncio.sleep(0.03)
        for gone in tasks[::2]:
            gone.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for n, answer in enumerate(found):
            if n % 2:
                assert answer == said(n, -n)
            else:
                assert isinstance(answer, asyncio.CancelledError) or answer == said(n, -n)

    run(work())


def test_a_late_trip_fails_in_time_and_the_next_one_gets_its_own_answer(hurried, server, run):
    async def work():
        await hurried.make_soon(echo("first"))
        server.seconds = 0.5
        begun = time.monotonic()
        with pytest.raises(OnlineStoreFailed, match="timed out"):
            await hurried.make_soon(echo("late"))
        assert time.monotonic() - begun < DEADLINE + 0.15
        server.seconds = 0.0
        assert await hurried.make_soon(echo("next")) == said("next")

    run(work())


def test_the_loop_goes_on_while_the_server_hangs(hurried, server, run):
    async def work():
        await hurried.make_soon(echo("first"))
        server.seconds = 1.0
        asked = asyncio.ensure_future(hurried.make_soon(echo("hangs")))
        longest, last = 0.0, time.monotonic()
        while not asked.done():
            await asyncio.sleep(0.001)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        assert isinstance(asked.exception(), OnlineStoreFailed)
        assert longest < 0.1  # the deadline is 0.2 s

    run(work())


def test_an_answer_that_came_while_the_loop_was_busy_is_not_late(hurried, run):
    async def work():
        await hurried.make_soon(echo("first"))
        texts = ["w" * 200] * 100
        asked = [asyncio.ensure_future(hurried.make_soon(echo(n, *texts))) for n in range(3)]
        await asyncio.sleep(0)
        time.sleep(2 * DEADLINE)  # a model that takes long
        for n, answer in enumerate(asked):
            assert await answer == said(n, *texts)

    run(work())


def test_a_connection_that_the_server_has_closed_is_made_anew(trips, server, run):
    async def work():
        for n in range(4):
            assert await trips.make_soon(echo(n)) == said(n)
            server.drop()
            if n % 2:
                await asyncio.sleep(0.02)  # noticed before the next trip, or by it

    run(work())


def test_a_server_that_is_away_is_named_and_found_again(run, trips, server):
    async def work():
        server.close()
        with pytest.raises(OnlineStoreFailed, match="cannot reach the online store redis://"):
            await trips.make_soon(echo(1))

    run(work())


def test_a_long_trip_has_nobody_wait_behind_it(trips, server, run):
    server.seconds = 0.0005

    async def work():
        await trips.make_soon(echo("first"))
        begun = time.monotonic()
        long = asyncio.ensure_future(trips.make_soon(echo(*range(1100))))
        await asyncio.sleep(0.01)
        assert await trips.make_soon(echo("short")) == said("short")
        assert time.monotonic() - begun < 0.2
        long.cancel()

    run(work())


def test_one_reader_serves_loops_one_after_the_other_and_threads_beside_them(trips, server):
    for n in range(3):
        assert asyncio.run(trips.make_soon(echo(n))) == said(n)
        assert trips.make(echo("thread")) == said("thread")
    assert len(server.accepted) == 4


def test_after_closing_nothing_is_asked_any_more(trips, server, run):
    async def work():
        assert await trips.make_soon(echo(1)) == said(1)
        server.seconds = 0.1
        hanging = asyncio.ensure_future(trips.make_soon(echo(2)))
        await asyncio.sleep(0)
        trips.close()
        with pytest.raises(OnlineStoreFailed, match="the reader was closed"):
            await hanging
        with pytest.raises(OnlineStoreFailed, match="the reader was closed"):
            await trips.make_soon(echo(3))

    run(work())
