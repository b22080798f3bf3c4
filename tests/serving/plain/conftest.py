import json

import pytest

from serving.dataplane import DataPlane
from serving.http.codec import Head
from serving.plain import PlainCodec
from tests.serving.plane_models import ask

HEAD = Head("/api/v1/infer", request_id="r1")


@pytest.fixture
def codec(repository, settings):
    return PlainCodec(repository, settings)


@pytest.fixture
def infer(codec, settings):
    """Ask the data plane as a lane does: from a body, or what is to become one, to the answer."""

    def send(asked):
        body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        plane = DataPlane(settings)
        try:
            (answer,) = ask(plane, codec.decode(body, HEAD))
        finally:
            plane.close()
        if isinstance(answer, Exception):
            raise answer
        lines, content = codec.encode(answer)
        assert lines == b"content-type: application/json\r\n"
        return json.loads(content)

    return send
