"""What a server installs and starts with: small on disk, small in memory, and nothing beyond it."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from headrace.bundle import GOLDEN, arrow_bytes, model_file
from headrace.spec import RequestField
from serving.predictor import golden_table

ROOT = Path(__file__).parents[2]
ROOMS = ("headrace", "featurestore", "monitoring", "serving")
MOST_DISK_BYTES, MOST_RESIDENT_BYTES = 400e6, 150e6
LEFT_OUT = {"scipy"}
"""What a dependency asks for and no server imports: XGBoost's Python package is never loaded."""


def pins(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes of each package of a lock."""
    text = (ROOT / name).read_text()
    blocks = [b for b in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE) if "==" in b]
    found = [re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", b).groups() for b in blocks if b[0] != "#"]
    hashes = [frozenset(re.findall(r"sha256:(\w{64})", b)) for b in blocks if b[0] != "#"]
    return {canonicalize_name(n): (v, h) for (n, v), h in zip(found, hashes, strict=True)}


SERVING = pins("requirements-serving.lock")


def asked_for(requirements: list[str]) -> set[str]:
    wanted = [Requirement(text) for text in requirements]
    applies = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return {canonicalize_name(r.name) for r in applies}


def test_the_serving_lock_has_the_pins_and_hashes_of_the_whole_lock():
    whole = pins("requirements.lock")
    assert {name: whole[name] for name in SERVING} == SERVING
    assert all(hashes for _, hashes in SERVING.values())


def test_the_serving_lock_is_what_the_server_and_its_dependencies_ask_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = asked_for(project["dependencies"] + project["optional-dependencies"]["serving"])
    for name in SERVING:
        wanted |= asked_for(metadata.requires(name) or [])
    assert wanted - LEFT_OUT == set(SERVING)


def test_the_serving_install_is_small_with_all_its_compiled_python():
    listed = [Path(f.locate()) for name in SERVING for f in metadata.files(name)]
    own = [file for room in ROOMS for file in (ROOT / room).rglob("*")]
    sizes = {file: file.stat().st_size for file in (*listed, *own) if file.is_file()}
    # A wheel lists no compiled files before it is installed; count those that lie beside.
    assert any(file.suffix == ".pyc" for file in sizes)
    assert 100e6 < sum(sizes.values()) < MOST_DISK_BYTES


@pytest.fixture
def large(store, manifest) -> str:
    """The digest of a bundle of 200 trees of depth 6 over 20 columns."""
    import xgboost

    names = tuple(f"f{number}" for number in range(20))
    matrix = np.random.default_rng(0).normal(size=(3000, 20)).astype(np.float32)
    told = {"objective": "binary:logistic", "max_depth": 6, "nthread": 1, "min_child_weight": 0}
    trees = xgboost.train(told, xgboost.DMatrix(matrix, matrix.sum(axis=1) > 0), 200)
    plan = manifest.plan.model_copy(
        update={
            "views": (),
            "request": tuple(RequestField(name=n, description="a number") for n in names),
            "inputs_from_request": names,
            "transforms": (),
        }
    )
    golden = golden_table(names, matrix[:20], trees.inplace_predict(matrix[:20]))
    files = {model_file("xgboost"): bytes(trees.save_raw("ubj")), GOLDEN: arrow_bytes(golden)}
    return store.bundle(manifest=manifest.model_copy(update={"plan": plan}), **files)


_SERVER = """
import importlib.abc, json, sys

class OnlyWhatIsLocked(importlib.abc.MetaPathFinder):
    missing = set(json.loads(sys.argv[1]))

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlyWhatIsLocked())
import serving.__main__, serving.app
from serving.predictor import load_predictor
predictor = load_predictor(sys.argv[2], sys.argv[3])
predictor.runtime.wait_for_kernel()
predictor.predict(predictor.background)
predictor.explain(predictor.background)
print(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
"""


def test_a_server_needs_nothing_beyond_its_lock_and_stays_small(store, large, tmp_path):
    locked = {*SERVING, "headrace"}
    owners = metadata.packages_distributions()
    missing = [n for n, by in owners.items() if not locked & {canonicalize_name(d) for d in by}]
    assert {"scipy", "pandas", "prefect", "numba"} <= set(missing)
    done = subprocess.run(
        [sys.executable, "-c", _SERVER, json.dumps(missing), f"{store.root}/bundles", large],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HEADRACE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 20e6 < int(done.stdout) * 1024 < MOST_RESIDENT_BYTES
