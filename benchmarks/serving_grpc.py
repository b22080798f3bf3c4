"""A prediction over gRPC beside an empty call of the same gRPC stack, in CPU time of the server.

The empty server takes no bytes, gives none and does nothing; ours decodes a row of 20 features,
lets 200 trees answer, and writes the response, inference log and metrics on. Both run on uvloop in
a process of their own, asked by the same client (``_grpc_load.py``): 8 connections, 8 calls under
way on each.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import uvloop

from benchmarks import _grpc_load, _wrk
from benchmarks.harness import Figures, arguments, redis_server, show

CONNECTIONS, UNDER_WAY = 8, 8
EMPTY = "/benchmark.Empty/Call"
INFER = "/inference.GRPCInferenceService/ModelInfer"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    calls = 4_000 if arguments("serving_grpc", argv).quick else 20_000
    empty, ours = cpu_us(calls=calls)
    figures: Figures = {"grpc_over_empty_unary": empty / ours}
    rows = [("an empty call", f"{empty:.1f}", "CPU-us"), ("a prediction", f"{ours:.1f}", "CPU-us")]
    show("serving_grpc", rows, figures)


def grpc_over_empty_unary(*, calls: int = 20_000) -> float:
    """Predictions over empty calls, in calls a CPU-second of the server; at best 1."""
    empty, ours = cpu_us(calls=calls)
    return empty / ours


def cpu_us(*, calls: int) -> tuple[float, float]:
    """CPU-microseconds of the server a call: an empty one, and a prediction; best of three."""
    from benchmarks._serving_world import COLUMNS, ENDPOINT, make_world
    from serving.grpc.tensors import MESSAGES

    with tempfile.TemporaryDirectory() as name, redis_server(Path(name)) as redis:
        world = make_world(Path(name), redis, entities=100)
        tensor = {"name": "features", "datatype": "FP32", "shape": [1, COLUMNS]}
        raw = [world.rows[0].astype("<f4").tobytes()]
        request = MESSAGES["ModelInferRequest"](
            model_name=ENDPOINT, inputs=[tensor], raw_input_contents=raw
        ).SerializeToString()
        answer = world.predictions[0].astype("<f4").tobytes()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
        environment |= {"HEADRACE_HOME": str(world.settings.home), "HEADRACE_ONLINE_STORE": redis}
        serving = ["-m", "serving", "--endpoint", ENDPOINT, "--port", "0", "--grpc-port"]
        with (
            running(["-m", "benchmarks.serving_grpc", "--empty"], environment) as empty,
            running(serving, environment) as ours,
        ):
            pairs = [
                (cost(empty, EMPTY, b"", b"", calls), cost(ours, INFER, request, answer, calls))
                for _ in range(4)  # the first warms both
            ]
    return min(pair[0] for pair in pairs[1:]), min(pair[1] for pair in pairs[1:])


def cost(server: tuple[int, int], method: str, request: bytes, ending: bytes, calls: int) -> float:
    """CPU-microseconds that a server (process id, port) takes for a call of ``method``.

    Every response must end with ``ending``, the bytes of the prediction.
    """
    pid, port = server
    before = _wrk.cpu_seconds(pid)
    done = uvloop.run(
        _grpc_load.call(
            port, method, request, ending,
            calls=calls, connections=CONNECTIONS, under_way=UNDER_WAY,
        )
    )  # fmt: skip
    return 1e6 * (_wrk.cpu_seconds(pid) - before) / done


@contextlib.contextmanager
def running(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Run a server until the block ends; ``arguments`` are followed by its port."""
    import subprocess

    import grpc

    port = _wrk.free_port()
    command = [sys.executable, *arguments, str(port)]
    with subprocess.Popen(command, env=dict(environment), stdout=subprocess.DEVNULL) as process:
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                grpc.channel_ready_future(channel).result(60)
            yield process.pid, port
        finally:
            process.terminate()


async def empty_server(port: int) -> None:
    """Answer ``EMPTY`` with nothing, until the process ends."""
    import grpc

    async def nothing(_: bytes, __: object) -> bytes:
        return b""

    server = grpc.aio.server()
    methods = {"Call": grpc.unary_unary_rpc_method_handler(nothing)}
    service = EMPTY.split("/")[1]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--empty"]:
        uvloop.run(empty_server(int(sys.argv[2])))
    else:
        main()
