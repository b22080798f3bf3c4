"""Clients that nobody here wrote against one real server, each in a process of its own.

Triton's and KServe's gRPC clients register the same messages, so one process holds one of them.
"""

import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

from headrace.settings import Settings
from serving.predictor import load_predictor
from tests.faults.serving_home import COLUMNS, ENDPOINT, write_home
from tests.serving.clients.world import World, to_argument

ROWS = [[0.25, 12.5, 730.0], [-1.5, 0.5, 3.0]]
WHOLE = [[1, 0, 3], [0, 1, 0]]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A server over HTTP and gRPC, and what it must answer."""
    home = tmp_path_factory.mktemp("clients")
    digest = write_home(home)
    predictor = load_predictor(f"{Settings(home=home).storage_uri}/bundles", digest)
    grpc_port = free_port()
    command = [sys.executable, "-m", "serving", "--port", "0", "--grpc-port", str(grpc_port)]
    process = subprocess.Popen(
        [*command, "--endpoint", ENDPOINT],
        env=os.environ | {"HEADRACE_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )

    def answers(rows):
        return predictor.predict(np.array(rows, np.float32)).tolist()

    try:
        address = re.search(r"http://([\d.:]+)", process.stdout.readline())[1]
        yield World(
            http=address,
            grpc=f"127.0.0.1:{grpc_port}",
            name=ENDPOINT,
            version=digest[:12],
            columns=list(COLUMNS),
            rows=ROWS,
            answers=answers(ROWS),
            whole_rows=WHOLE,
            whole_answers=answers(WHOLE),
            bool_answers=answers(np.array(WHOLE, bool)),
        )
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "script", ["triton_http", "triton_http_aio", "triton_grpc", "kserve_clients"]
)
def test_a_client_of_others_is_answered_as_it_expects(world, script):
    done = subprocess.run(
        [sys.executable, "-m", f"tests.serving.clients.{script}", to_argument(world)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")
