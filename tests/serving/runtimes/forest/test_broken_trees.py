import json
import subprocess
import sys

import numpy as np
import pytest

from serving.runtimes.forest.model import NotCovered, TreesBroken, read_model

SPOILED = {
    "a child that is not there": ("left_children", 0, 900, "a right child|a child that is not"),
    "a column that is not there": ("split_indices", 0, 77, "tree 0 looks at a column"),
    "a column below the first": ("split_indices", 0, -1, "tree 0 looks at a column"),
    "a threshold that is no number": ("split_conditions", 0, float("nan"), "compares with NaN"),
}


@pytest.fixture(scope="module")
def document():
    import xgboost as xgb

    random = np.random.default_rng(0)
    matrix = random.normal(size=(400, 4)).astype(np.float32)
    label = matrix[:, 0] + random.normal(size=400) > 0
    settings = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1}
    return json.loads(xgb.train(settings, xgb.DMatrix(matrix, label), 5).save_raw("json"))


def spoiled(document, change):
    copy = json.loads(json.dumps(document))
    change(copy["learner"], copy["learner"]["gradient_booster"]["model"])
    return json.dumps(copy).encode()


@pytest.mark.parametrize("name", SPOILED)
def test_a_number_that_leads_nowhere_is_found(document, name):
    array, place, value, said = SPOILED[name]

    def change(_, model):
        model["trees"][0][array][place] = value

    with pytest.raises(NotCovered, match=said):
        read_model(spoiled(document, change))


def test_a_walk_in_a_circle_is_found(document):
    def change(_, model):
        tree = model["trees"][0]
        inner = [node for node, left in enumerate(tree["left_children"]) if left >= 0]
        first, last = inner[0], inner[-1]
        for side in ("left_children", "right_children"):
            tree[side][last] = tree[side][first]

    with pytest.raises(TreesBroken, match="a node that two nodes lead to"):
        read_model(spoiled(document, change))


def test_an_output_that_is_not_there_is_found(document):
    def change(_, model):
        model["tree_info"][2] = 3

    with pytest.raises(TreesBroken, match="do not each add to one of 1 outputs"):
        read_model(spoiled(document, change))


def test_a_model_as_it_was_written_is_read(document):
    assert len(read_model(json.dumps(document).encode()).trees) == 5


FUZZ = """
import random, sys
import numpy as np
from serving.errors import ServingError
from serving.runtimes.forest.forest import Forest
from serving.runtimes.forest.library import KernelMissing, load_kernel
from serving.runtimes.forest.model import read_model
from serving.runtimes.forest.proof import proof_rows

model, chance, walked = bytearray(sys.stdin.buffer.read()), random.Random(int(sys.argv[1])), 0
try:
    kernel = load_kernel()
except KernelMissing as reason:
    print("missing", reason)
    raise SystemExit
for _ in range(int(sys.argv[2])):
    bad = bytearray(model)
    for _ in range(chance.choice((1, 1, 4))):
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
    try:
        with np.errstate(all="ignore"):
            forest = Forest(read_model(bytes(bad)), kernel)
            forest.predict(proof_rows(forest))
    except (ServingError, MemoryError):
        continue
    walked += 1
print("walked", walked)
"""


@pytest.mark.parametrize(
    "flips", [300, pytest.param(20_000, marks=pytest.mark.soak)], ids=["short", "long"]
)
def test_no_flipped_bit_ends_the_process(document, flips):
    import xgboost as xgb

    booster = xgb.Booster()
    booster.load_model(bytearray(json.dumps(document).encode()))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FUZZ, "7", str(flips)],
        input=bytes(booster.save_raw("ubj")),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    word, _, count = done.stdout.decode().partition(" ")
    if word == "missing":
        pytest.skip(f"the kernel cannot be had: {count}")
    assert int(count) > flips / 10
