import numpy as np
import pytest

from serving.runtimes.forest.model import NotCovered
from serving.runtimes.forest.proof import ProofFailed, pays_from, proof_rows, prove


def test_the_rows_of_the_proof_meet_every_threshold(trained, forest_of):
    forest = forest_of(trained(categories=True)[0])
    rows = proof_rows(forest)
    assert rows.dtype == np.float32
    for feature in forest.conditions.features:
        begin = feature["thresholds"]
        wanted = forest.conditions.thresholds[begin : begin + feature["count"]]
        if feature["categorical"]:
            wanted = np.arange(feature["count"], dtype=np.float32)
        column = rows[:, feature["column"]]
        assert np.isin(wanted, column).all()
        assert np.isnan(column).any()
        assert np.isinf(column).any()


def test_a_forest_that_agrees_is_proven(trained, forest_of):
    booster, _ = trained()
    prove(forest_of(booster), booster.inplace_predict)


@pytest.mark.parametrize("part", ["thresholds", "starts"])
def test_one_wrong_number_in_a_forest_is_found(part, trained, forest_of):
    booster, _ = trained()
    forest = forest_of(booster)
    numbers = getattr(forest.conditions, part)
    numbers[: len(numbers) // 2] += np.asarray(1, numbers.dtype)
    with pytest.raises(ProofFailed, match=r"the kernel gives .* XGBoost"):
        prove(forest, booster.inplace_predict)


def test_one_wrong_leaf_is_found(trained, forest_of):
    booster, _ = trained()
    forest = forest_of(booster)
    forest._layout.leaf_bytes[:] ^= 1
    with pytest.raises(ProofFailed):
        prove(forest, booster.inplace_predict)


def test_a_forest_that_xgboost_answers_faster_is_not_covered(trained, forest_of):
    with pytest.raises(NotCovered, match="XGBoost is faster for 1024 rows"):
        pays_from(forest_of(trained()[0]), lambda rows: rows)
