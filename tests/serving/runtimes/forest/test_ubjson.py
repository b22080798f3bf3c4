import json

import numpy as np
import pytest

from serving.runtimes.forest.model import NotCovered, read_model
from serving.runtimes.forest.ubjson import NotUbjson, read_ubjson

from .conftest import grown


def plain(value):
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_a_model_reads_the_same_as_its_json(trained):
    booster, _ = trained(categories=True)
    document = plain(read_ubjson(bytes(booster.save_raw("ubj"))))
    wanted = json.loads(booster.save_raw("json"))
    trees = [
        model["learner"]["gradient_booster"]["model"].pop("trees") for model in (document, wanted)
    ]
    assert document == wanted
    for ours, theirs in zip(*trees, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            if isinstance(ours[name], list):  # JSON has the shortest digits of a float32
                np.testing.assert_array_equal(np.float32(ours[name]), np.float32(theirs[name]))
            else:
                assert ours[name] == theirs[name]


def test_json_and_ubjson_make_the_same_forest(trained):
    booster, _ = trained()
    ours, theirs = (read_model(bytes(booster.save_raw(form))) for form in ("ubj", "json"))
    assert (ours.base, ours.transform, ours.columns) == (theirs.base, theirs.transform, 6)
    for one, other in zip(ours.trees, theirs.trees, strict=True):
        np.testing.assert_array_equal(one.threshold, other.threshold)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "1 bytes were expected, 0 are left"),
        (b"{L\0\0", "8 bytes were expected, 2 are left"),
        (b"{U\x01ax}", "b'x' is no marker"),
        (b"[$x#U\x01", "b'x' is no type of a typed array"),
        (b"[$d#d\0\0\0\0", "b'd' is no type of a length"),
        (b"[$d#i\xff", "a length of -1"),
        (b"[$d U\x01", "b'#'|was expected"),
        (b"[" * 5000, "recursion"),
        (b"SU\x01\xff", "utf-8"),
    ],
)
def test_broken_bytes_are_an_error_that_names_the_place(data, why):
    with pytest.raises(NotUbjson, match=why):
        read_ubjson(data)


def test_a_model_of_another_version_is_not_covered():
    with pytest.raises(NotCovered, match=r"not written as XGBoost 3 writes: KeyError.'learner'"):
        read_model(b'{"version": [0, 90, 0]}')


def test_a_tree_whose_right_child_lies_elsewhere_is_not_covered():
    document = grown(np.random.default_rng(0), depth=1, thresholds=[np.float32([1])])
    document = document.replace(b'"right_children": [2, -1', b'"right_children": [1, -1')
    with pytest.raises(NotCovered, match="right child"):
        read_model(document)
