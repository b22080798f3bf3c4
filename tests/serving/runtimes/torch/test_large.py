"""A large model is mapped: loading it takes no memory of its size."""

import json
import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headrace.bundle import CARD, GOLDEN, REFERENCE, arrow_bytes, model_file, write_bundle
from serving.predictor import golden_table

WIDTH = 256
_LOAD = """
import sys, threading, time
import torch
from headrace import mapped
from serving.predictor import load_predictor

root, digest, mapped.MAPPED_BYTES = sys.argv[1], sys.argv[2], int(sys.argv[3])

def anonymous():
    return int(open("/proc/self/status").read().split("RssAnon:")[1].split()[0]) * 1024

def watch():
    while not done.wait(0.002):
        seen.append(anonymous())

seen, done = [anonymous()], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
begun = time.perf_counter()
predictor = load_predictor(root, digest)
seconds = time.perf_counter() - begun
assert (predictor.predict(predictor.background) == 0).all()
done.set()
watcher.join()
print(max(seen) - seen[0], seconds)
"""


@pytest.fixture
def table_of(tmp_path, store, plan):
    """A factory of bundles of one embedding table of so many bytes, all zeros: a sparse file."""

    def write(size: int) -> str:
        rows = size // (4 * WIDTH)
        calls = [
            {"to": "codes", "operator": "aten.select.int", "arguments": [{"value": "x"}, 1, 0]},
            {
                "to": "places",
                "operator": "aten._to_copy.default",
                "arguments": [{"value": "codes"}],
                "options": {"dtype": {"constant": "I64"}},
            },
            {
                "to": "found",
                "operator": "aten.embedding.default",
                "arguments": [{"value": "table"}, {"value": "places"}],
            },
            {
                "to": "answer",
                "operator": "aten.sum.dim_IntList",
                "arguments": [{"value": "found"}, [1]],
            },
        ]
        columns = plan.columns
        program = {"columns": len(columns), "input": "x", "output": "answer", "calls": calls}
        table = {"dtype": "F32", "shape": [rows, WIDTH], "data_offsets": [0, 4 * rows * WIDTH]}
        header = json.dumps({"__metadata__": {"program": json.dumps(program)}, "table": table})
        head = header.encode() + b" " * (-len(header) % 8)
        sparse = tmp_path / "sparse"
        sparse.write_bytes(struct.pack("<Q", len(head)) + head)
        os.truncate(sparse, 8 + len(head) + 4 * rows * WIDTH)
        matrix = np.zeros((64, len(columns)), np.float32)
        matrix[:, 0] = np.linspace(0, rows - 1, 64).astype(int)  # pages all over the table
        golden = golden_table(columns, matrix, np.zeros(64))
        manifest = store.manifest.model_copy(update={"runtime": "torch"})
        with sparse.open("rb") as file:
            model = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        files = {model_file("torch"): model, GOLDEN: arrow_bytes(golden), REFERENCE: b"", CARD: b""}
        return write_bundle(f"{store.root}/bundles", manifest, files)

    return write


def anonymous_growth(store, digest: str, mapped_from: int) -> tuple[int, float]:
    told = [f"{store.root}/bundles", digest, str(mapped_from)]
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, *told],
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    growth, seconds = done.stdout.split()
    return int(growth), float(seconds)


def test_a_model_of_64_mb_loads_without_a_copy_and_reading_it_would_be_one(store, table_of):
    size = 64 * 2**20
    digest = table_of(size)
    mapped, _ = anonymous_growth(store, digest, 16 * 2**20)
    read, _ = anonymous_growth(store, digest, 2**62)
    assert mapped < size / 2
    assert read > size


@pytest.mark.soak
def test_a_model_of_a_gigabyte_loads_without_a_copy(store, table_of):
    size = 2**30
    growth, seconds = anonymous_growth(store, table_of(size), 16 * 2**20)
    print(f"1 GiB: {growth / 2**20:.0f} MiB of anonymous memory, {seconds:.1f} s")
    assert growth < size / 8
