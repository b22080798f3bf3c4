"""How each peer of ``benchmarks.serving`` is started, and what it is asked."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _wrk
from benchmarks._serving_world import ENDPOINT, World, raw_questions
from benchmarks._wrk import Questions

PROGRAMS = Path(__file__).with_name("serving_peers")


@dataclass(frozen=True)
class Peer:
    """A server that is not ours."""

    name: str
    environment: str
    command: Callable[[World, str, int], list[object]]
    """Given the world, the interpreter and the port."""
    questions: Callable[[World], Questions]


def peers(entities: int) -> list[Peer]:
    """All of them; keys are drawn from so many ``entities``."""

    def script(name: str, *more: Callable[[World], object]) -> Any:
        return lambda world, python, port: [
            python, PROGRAMS / f"{name}.py", world.model, port, *(give(world) for give in more)
        ]  # fmt: skip

    def plain(world: World) -> Questions:
        return world.raw("peers", "/predict", _peer_body)

    def keyed(world: World) -> Questions:
        return world.keyed("feast", "/predict", entities, lambda entity: {"entity": entity})

    return [
        Peer(
            "constant_uvicorn", "ours",
            lambda _, python, port: [python, PROGRAMS / "constant_uvicorn.py", port], _constant,
        ),
        Peer(
            "constant_limit", "ours",
            lambda _, python, port: [python, PROGRAMS / "constant_lane.py", port], _constant,
        ),
        Peer("fastapi", "fastapi", script("fastapi_xgboost"), plain),
        Peer("litserve", "litserve", script("litserve_app"), plain),
        Peer("ray", "ray", script("ray_serve_app"), plain),
        Peer("bentoml", "bentoml", _bentoml, plain),
        Peer("mlserver", "mlserver", _mlserver, raw_questions),
        Peer("fastapi_feast", "fastapi", script("fastapi_feast", lambda w: w.feast), keyed),
    ]  # fmt: skip


def _bentoml(_: World, python: str, port: int) -> list[object]:
    program = Path(python).with_name("bentoml")
    return [program, "serve", "bentoml_service:Model", "--working-dir", PROGRAMS, "--host",
            "127.0.0.1", "--port", port]  # fmt: skip


def _mlserver(world: World, python: str, port: int) -> list[object]:
    folder = world.folder / "mlserver"
    folder.mkdir(exist_ok=True)
    shutil.copy(world.model, folder / "model.ubj")
    server = {"host": "127.0.0.1", "http_port": port, "grpc_port": _wrk.free_port(),
              "metrics_port": _wrk.free_port(), "parallel_workers": 0, "debug": False}  # fmt: skip
    model = {"name": ENDPOINT, "implementation": "mlserver_xgboost.XGBoostModel",
             "parameters": {"uri": "./model.ubj", "version": "v1"}}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return [Path(python).with_name("mlserver"), "start", folder]


def _constant(world: World) -> Questions:
    questions = world.raw("constant", "/", _peer_body, name="-")
    questions.expected.write_text("0.5\n")
    return questions


def _peer_body(number: int, row: list[float]) -> dict[str, Any]:
    return {"id": str(number), "features": row}
