from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.runtimes.forest.model import NotCovered

from .conftest import grown, rows_around

ODD_THRESHOLDS = np.float32([0.0, -0.0, 1e-45, -1e-45, 1e38, -1e38, 1.0])


def some_thresholds(random):
    count = int(random.choice([1, 2, 3, 17, 255, 256, 1000]))
    return {
        "categories": None,
        "odd": ODD_THRESHOLDS,
        "wide": np.float32(random.lognormal(0, 4, count)),
        "whole": np.float32(random.integers(-5, 5, count)),
        "far": np.float32([*random.normal(size=count), 3e38, -3e38]),
        "tiny": np.float32(random.normal(size=count) * 1e-39),
        "usual": np.float32(random.normal(size=count)),
    }[str(random.choice(["categories", "odd", "wide", "whole", "far", "tiny", "usual"]))]


@pytest.mark.parametrize("depth", range(13))
@pytest.mark.parametrize("classes", [1, 3])
def test_a_grown_forest_gives_xgboosts_bits(
    depth, classes, booster_of, forest_of, assert_same_bits
):
    random = np.random.default_rng([depth, classes])
    thresholds = [some_thresholds(random) for _ in range(random.integers(1, 9))]
    fullness = float(random.choice([0.6, 0.9, 1.0] if depth < 10 else [0.6, 0.8]))
    base = str(np.float32(random.random()))
    document = grown(
        random, depth=depth, thresholds=thresholds, fullness=fullness, classes=classes, base=base
    )
    booster = booster_of(document)
    forest = forest_of(booster)
    for rows in (1, 2, 31, 32, 33, 255, 256, 257, 700):
        matrix = rows_around(random, thresholds, rows)
        assert_same_bits(forest.predict(matrix), booster.inplace_predict(matrix))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000))
def test_every_forest_gives_xgboosts_bits(seed, booster_of, forest_of, assert_same_bits):
    random = np.random.default_rng(seed)
    depth = int(random.integers(13))
    test_a_grown_forest_gives_xgboosts_bits(
        depth, int(random.choice([1, 3])), booster_of, forest_of, assert_same_bits
    )


TRAINED = {
    "binary": {"objective": "binary:logistic"},
    "regression with a base score": {"objective": "reg:squarederror", "base_score": -3.25},
    "base score of a chance": {"objective": "binary:logistic", "base_score": 0.3},
    "raw": {"objective": "binary:logitraw"},
    "hinge": {"objective": "binary:hinge"},
    "counts": {"objective": "count:poisson"},
    "gamma": {"objective": "reg:gamma", "base_score": 2.0},
    "tweedie": {"objective": "reg:tweedie"},
    "dropout": {"objective": "reg:squarederror", "booster": "dart", "rate_drop": 0.4},
    "dropout of chances": {"booster": "dart", "rate_drop": 0.4, "objective": "binary:logistic"},
    "dropout of classes": {"booster": "dart", "rate_drop": 0.4, "objective": "multi:softprob"},
    "classes": {"objective": "multi:softprob"},
    "the best class": {"objective": "multi:softmax"},
    "random forest": {"num_parallel_tree": 5, "subsample": 0.5, "objective": "binary:logistic"},
    "exact": {"tree_method": "exact", "max_depth": 9, "objective": "binary:logistic"},
    "leaf by leaf": {"grow_policy": "lossguide", "max_leaves": 60, "max_depth": 0},
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_forest_gives_xgboosts_bits(name, trained, forest_of, assert_same_bits):
    booster, matrix = trained(**TRAINED[name])
    forest = forest_of(booster)
    assert_same_bits(forest.predict(matrix), booster.inplace_predict(matrix))
    assert_same_bits(forest.predict(matrix[:1]), booster.inplace_predict(matrix[:1]))


@pytest.mark.parametrize("one_hot", [1, 100])
def test_splits_by_category_give_xgboosts_bits(one_hot, trained, forest_of, assert_same_bits):
    booster, matrix = trained(
        categories=True, max_cat_to_onehot=one_hot, objective="binary:logistic"
    )
    assert_same_bits(forest_of(booster).predict(matrix), booster.inplace_predict(matrix))


def test_all_trees_answer_where_a_best_iteration_is_noted(trained, forest_of, assert_same_bits):
    booster, matrix = trained(objective="binary:logistic")
    booster.set_attr(best_iteration="2", best_score="0.5")
    assert_same_bits(forest_of(booster).predict(matrix), booster.inplace_predict(matrix))


def test_the_order_of_the_input_in_memory_makes_no_difference(trained, forest_of):
    booster, matrix = trained(objective="binary:logistic")
    forest, wanted = forest_of(booster), booster.inplace_predict(matrix)
    wide = np.zeros((2 * len(matrix), 2 * matrix.shape[1]), np.float32)
    wide[::2, ::2] = matrix
    given = {
        "Fortran order": forest.predict(np.asfortranarray(matrix)),
        "a slice": forest.predict(wide[::2, ::2]),
        "from the end": forest.predict(matrix[::-1])[::-1],
        "columns": forest.predict_columns(list(matrix.T.copy())),
        "columns of a matrix": forest.predict_columns(list(matrix.T)),
        "doubles": forest.predict(matrix.astype(np.float64)),
    }
    for order, predictions in given.items():
        np.testing.assert_array_equal(predictions, wanted, err_msg=order)


def test_no_rows_give_no_predictions(trained, forest_of):
    booster, matrix = trained(objective="multi:softprob")
    assert forest_of(booster).predict(matrix[:0]).shape == (0, 3)


def test_threads_cut_the_rows_and_share_the_forest(trained, forest_of, assert_same_bits):
    booster, matrix = trained(objective="binary:logistic")
    many = np.resize(matrix, (20_000, matrix.shape[1]))
    forest, wanted = forest_of(booster, threads=3), booster.inplace_predict(many)
    assert_same_bits(forest.predict(many), wanted)
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda i: forest.predict(many[i : i + 500]), range(0, 8000, 100)))
    for i, predictions in enumerate(given):
        assert_same_bits(predictions, wanted[100 * i : 100 * i + 500])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"booster": "gblinear", "objective": "reg:squarederror"}, "booster is gblinear"),
        ({"objective": "survival:aft"}, "objective is survival:aft"),
        ({"multi_strategy": "multi_output_tree", "objective": "multi:softprob"}, "several values"),
    ],
)
def test_what_the_kernel_has_no_form_of_is_not_covered(settings, reason, trained, forest_of):
    booster, _ = trained(**settings)
    with pytest.raises(NotCovered, match=reason):
        forest_of(booster)
