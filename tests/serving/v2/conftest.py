import asyncio
import json

import numpy as np
import pytest

from serving.dataplane import DataPlane
from serving.http.codec import Head
from serving.v2.codec import V2Codec
from tests.serving.kept import kept_repository, kept_store

ROW = [71.5, 12.0, 178.0, 2475.0, 8.0]
KEYS = {
    "origin": ("BYTES", "JFK"),
    "tailnum": ("BYTES", "N123AA"),
    "scheduled_departure": ("BYTES", "2013-08-01T12:00:00Z"),
    "distance_miles": ("FP64", 2475.0),
}


@pytest.fixture(scope="session")
def store(tmp_path_factory, manifest, bundle_files):
    return kept_store(tmp_path_factory.mktemp("v2"), manifest, bundle_files)


@pytest.fixture(scope="session")
def repository(store):
    repository = kept_repository(store)
    yield repository
    repository.close()


@pytest.fixture
def head():
    """A factory of heads of requests to the model."""
    return lambda **said: Head("/v2/models/flight_delay/infer", name="flight_delay", **said)


@pytest.fixture
def codec(repository, settings):
    return V2Codec(repository, settings)


@pytest.fixture
def ask(codec, settings, head):
    """Send a body through codec and data plane, as a lane does: header lines and bytes back."""

    def send(body, **said):
        body = json.dumps(body).encode() if isinstance(body, dict) else body

        async def run():
            plane = DataPlane(settings)
            try:
                return codec.encode(await plane.infer(codec.decode(body, head(**said))))
            finally:
                plane.close()

        return asyncio.run(run())

    return send


@pytest.fixture
def ask_json(ask):
    """The same, for a response that is JSON."""

    def send(body, **said):
        lines, content = ask(body, **said)
        assert lines == b"content-type: application/json\r\n"
        return json.loads(content)

    return send


@pytest.fixture
def columns(plan):
    return list(plan.columns)


@pytest.fixture
def tensors(columns):
    """A factory of one tensor for each column; a change of one is by its name."""

    def build(rows=1, shape=None, **changes):
        made = {
            name: {
                "name": name,
                "shape": shape or [rows],
                "datatype": "FP32",
                "data": [value] * rows,
            }
            for name, value in zip(columns, ROW, strict=True)
        }
        for name, change in changes.items():
            made[name] = made[name] | change
        return {"inputs": list(made.values())}

    return build


@pytest.fixture
def keyed():
    """A factory of requests of entity keys."""

    def build(rows=1, **more):
        inputs = [
            {"name": name, "shape": [rows], "datatype": datatype, "data": [value] * rows}
            for name, (datatype, value) in KEYS.items()
        ]
        return {"inputs": inputs, **more}

    return build


@pytest.fixture
def features():
    """A factory of requests of one tensor of all features."""

    def build(data=None, shape=(1, 5), datatype="FP32", **more):
        tensor = {
            "name": "features",
            "shape": list(shape),
            "datatype": datatype,
            "data": ROW if data is None else data,
        }
        return {"inputs": [tensor], **more}

    return build


@pytest.fixture
def predicted(booster):
    """What the model answers, by XGBoost itself: float32, for rows of ``ROW`` or others."""
    return lambda rows: booster().inplace_predict(np.array(rows, np.float32))
