"""No body, however broken, is answered by anything but a prediction or a refusal."""

import asyncio
import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import HeadraceError
from serving.dataplane import DataPlane
from serving.errors import RequestRefused, http_status
from tests.serving.v2.bodies import bodies

QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
lengths = st.one_of(st.none(), st.integers(0, 400))
with_bytes = st.builds(lambda body, tail: body + tail, bodies(), st.binary(max_size=40))


class Server:
    """Codec and data plane, as a lane puts them together."""

    def __init__(self, codec, settings, head):
        self.codec, self.head = codec, head
        self.loop = asyncio.new_event_loop()
        self.plane = DataPlane(settings)
        self.answered = self.refused = 0

    def ask(self, body, length):
        try:
            query = self.codec.decode(body, self.head(header_length=length))
        except RequestRefused as error:
            json.loads(self.codec.encode_error(error, "id"))
            self.refused += 1
            return
        self.loop.run_until_complete(self.answer(query))

    async def answer(self, query):
        try:
            lines, content = self.codec.encode(await self.plane.infer(query))
        except HeadraceError as error:
            if http_status(error) not in (422, 504):  # 504: the timeout that the body itself gave
                raise
            return
        self.answered += 1
        length = lines.decode().partition("inference-header-content-length: ")[2]
        json.loads(content[: int(length) if length else len(content)])


@pytest.fixture
def server(codec, settings, head):
    server = Server(codec, settings, head)
    yield server
    server.plane.close()
    server.loop.close()


def fuzz(server, examples):
    @settings(max_examples=examples, **QUIET)
    @given(body=st.one_of(bodies(), with_bytes, st.binary(max_size=60)), length=lengths)
    def run(body, length):
        server.ask(body, length)
        server.ask(body, None)

    run()


def test_a_broken_body_is_refused_and_never_an_error_of_the_server(server):
    fuzz(server, 150)
    assert server.answered > 20
    assert server.refused > 20


@pytest.mark.soak
def test_a_broken_body_is_refused_for_a_minute(server):
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        fuzz(server, 2_000)
    assert server.answered > 1_000
    assert server.refused > 1_000
