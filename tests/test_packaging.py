"""The lock, the extras and the deployments hold together."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from headrace import telemetry

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", LOCK, flags=re.MULTILINE))
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
PLAIN_COMMANDS = {"features"}  # reads and prints; there is nothing to schedule
FLOW_FILES = {
    p.stem for p in (ROOT / "flows").glob("*.py") if not p.stem.startswith("_")
} - PLAIN_COMMANDS


def requirements(extra: str) -> list[Requirement]:
    found = [Requirement(text) for text in PROJECT["optional-dependencies"][extra]]
    nested = [n for r in found if r.name == "headrace" for e in r.extras for n in requirements(e)]
    return [r for r in found if r.name != "headrace"] + nested


def test_the_lock_satisfies_every_extra_and_only_torch_stands_beside_it():
    wanted = [Requirement(text) for text in PROJECT["dependencies"]] + requirements("dev")
    missing = [
        str(r)
        for r in wanted
        if canonicalize_name(r.name) not in LOCKED
        or not r.specifier.contains(LOCKED[canonicalize_name(r.name)])
    ]
    assert missing == ["torch==2.13.0"]


def test_every_locked_package_has_a_hash():
    blocks = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)
    pinned = [block for block in blocks if "==" in block.split("\n")[0]]
    assert len(pinned) == len(LOCKED) > 200
    assert all("--hash=sha256:" in block for block in pinned)


def test_the_serving_extra_is_small():
    names = {r.name for r in requirements("serving")}
    heavy = {"prefect", "feast", "dask", "mlflow", "evidently", "pandas", "torch", "xgboost"}
    assert not names & heavy


def test_the_full_extra_has_everything_the_project_names():
    names = {r.name for r in requirements("full")} | {
        Requirement(text).name for text in PROJECT["dependencies"]
    }
    assert {
        "prefect",
        "dask",
        "pyarrow",
        "feast",
        "evidently",
        "xgboost-cpu",
        "torch",
        "s3fs",
        "pytest",
    } <= names


def test_every_flow_has_a_deployment_of_its_name():
    assert {d["name"] for d in DEPLOYMENTS} == {name.replace("_", "-") for name in FLOW_FILES}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_a_deployment_names_a_flow_that_takes_its_parameters(deployment):
    path, function = deployment["entrypoint"].split(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    flow = getattr(module, function)
    assert flow.name == deployment["name"]
    config_class = flow.fn.__annotations__["config"]
    assert config_class(**deployment["parameters"]["config"])


def test_the_deployments_name_no_folder_of_anyone():
    assert not re.search(r"/(home|root|Users|work)/", (ROOT / "prefect.yaml").read_text())


def test_telemetry_is_off_and_a_choice_of_the_person_is_kept(monkeypatch):
    for variable in telemetry.OFF:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    telemetry.turn_off()
    import os

    assert os.environ["DO_NOT_TRACK"] == "0"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE).group(1).split()
    told = re.findall(r"^([a-z-]+):.*## ", text, flags=re.MULTILINE)
    assert sorted(phony) == sorted(told)
