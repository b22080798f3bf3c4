import asyncio
import contextlib
import threading

import grpc
import numpy as np
import pytest

from serving import grpc as edge
from serving.dataplane import DataPlane
from serving.grpc.schema import SERVICE
from serving.grpc.tensors import MESSAGES
from serving.settings import ServerSettings
from tests.serving.kept import kept_repository, kept_store


class Served:
    """A gRPC server on a loop of its own, and a channel to it."""

    def __init__(self, repository, settings):
        self.repository, self.loop = repository, asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.plane = DataPlane(settings)
        self.draining = False
        self.running = edge.serving(
            self.plane, repository, settings, is_draining=lambda: self.draining
        )
        try:
            self.server = self.run(self.running.__aenter__())
        except Exception:
            self.end()
            raise
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}")

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def call(self, name, /, metadata=(), timeout=10, **fields):
        method = self.channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=MESSAGES[f"{name}Request"].SerializeToString,
            response_deserializer=MESSAGES[f"{name}Response"].FromString,
        )
        return method(MESSAGES[f"{name}Request"](**fields), timeout=timeout, metadata=metadata)

    def infer(self, model_name="flight_delay", metadata=(), timeout=10, **fields):
        return self.call("ModelInfer", metadata, timeout, model_name=model_name, **fields)

    def stream(self, requests):
        method = self.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            request_serializer=MESSAGES["ModelInferRequest"].SerializeToString,
            response_deserializer=MESSAGES["ModelStreamInferResponse"].FromString,
        )
        made = [MESSAGES["ModelInferRequest"](model_name="flight_delay", **r) for r in requests]
        return list(method(iter(made), timeout=10))

    def close(self):
        self.channel.close()
        self.run(self.running.__aexit__(None, None, None))
        self.end()

    def end(self):
        self.plane.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="session")
def store(tmp_path_factory, manifest, bundle_files):
    return kept_store(tmp_path_factory.mktemp("grpc"), manifest, bundle_files)


@pytest.fixture(scope="session")
def grpc_settings():
    return ServerSettings(max_rows=50, grpc_port=0)


@pytest.fixture(scope="session")
def served(store, grpc_settings):
    """A server that no test changes."""
    repository = kept_repository(store)
    served = Served(repository, grpc_settings)
    yield served
    served.close()
    repository.close()


@pytest.fixture
def serving(store):
    """A factory of servers to change, by settings."""
    with contextlib.ExitStack() as ending:

        def start(**settings):
            repository = kept_repository(store)
            ending.callback(repository.close)
            served = Served(repository, ServerSettings(**{"grpc_port": 0} | settings))
            ending.callback(served.close)
            return served

        yield start


@pytest.fixture
def columns(plan):
    return list(plan.columns)


@pytest.fixture
def predicted(booster):
    """What the model answers, by XGBoost itself: float32."""
    return lambda rows: booster().inplace_predict(np.array(rows, np.float32))
