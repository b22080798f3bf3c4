"""Imports go down only, and each big dependency keeps to its room (see docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "headrace": set(),
    "models": {"headrace"},
    "featurestore": {"headrace"},
    "monitoring": {"headrace"},
    "registry": {"headrace"},
    "serving": {
        "headrace",
        "featurestore.errors.OnlineStoreFailed",
        "featurestore.errors",  # a failing store costs a batch, a damaged value its row alone
        "featurestore.freshness",
        "featurestore.missing",  # one rule for what a row must have, in a batch and online
        "featurestore.online.reader",
        "featurestore.stores.resp",  # the one connection to Redis, for jobs and kept results too
        "featurestore.vectors",
        "monitoring.inference_log",
        "monitoring.profile",
    },
    "tasks": {"headrace", "featurestore", "monitoring", "registry", "serving"},
    "flows": {"headrace", "tasks", "featurestore", "monitoring", "registry"},
}
"""Rooms, and the modules of ours that each may import. Flows import only the types of results from
below tasks/; see `test_flows_take_only_result_types_from_below_the_tasks`."""

DOORS = {
    "prefect": {"flows", "tasks"},
    "dask": {"tasks"},
    "distributed": {"tasks"},
    "feast": {"featurestore"},
    "evidently": {"monitoring"},
    "mlflow": {"registry"},
    "starlette": {"serving"},
    "uvicorn": {"serving"},
    "grpc": {"serving"},
    "pickle": set(),
    "cloudpickle": set(),
    "dill": set(),
    "joblib": set(),
}


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_under(name: str, allowed: set[str]) -> bool:
    return any(name == root or name.startswith(root + ".") for root in allowed)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room):
    allowed = MAY_IMPORT[room] | {room}
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files(room)
        for name in imports(path)
        if name.split(".")[0] in MAY_IMPORT and not is_under(name, allowed)
    }
    assert not wrong


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_big_dependency_stays_behind_its_door(room):
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files(room)
        for name in imports(path)
        if room not in DOORS.get(name.split(".")[0], {room})
    }
    assert not wrong


def test_feast_is_imported_by_its_plugins_and_the_definitions_alone():
    importing = {
        path.relative_to(ROOT / "featurestore").parts[0]
        for path in files("featurestore")
        for name in imports(path)
        if name.split(".")[0] == "feast"
    }
    assert importing == {"definitions", "feast_plugins"}


def test_flows_take_only_result_types_from_below_the_tasks():
    below = {"featurestore", "monitoring", "registry"}
    taken = {
        name.rsplit(".", 1)[-1]
        for path in files("flows")
        for name in imports(path)
        if name.split(".")[0] in below
    }
    assert all(name[0].isupper() for name in taken), taken


def test_every_room_is_packaged():
    text = (ROOT / "pyproject.toml").read_text()
    assert all(f'"{room}*"' in text for room in MAY_IMPORT)
