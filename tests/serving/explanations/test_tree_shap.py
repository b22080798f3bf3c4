import numpy as np
import pytest
import xgboost  # noqa: TID253  (its own predictor is what ours is compared with)

from serving.errors import RuntimeFailed
from serving.explanations.tree_shap import Trees, tree_shap
from serving.runtimes.xgboost import XGBoostRuntime

ROWS = np.random.default_rng(7).normal(size=(300, 6)).astype(np.float32)
ROWS[np.random.default_rng(8).random(ROWS.shape) < 0.1] = np.nan
LABELS = np.nan_to_num(ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 2]) > 0


def trained(objective="binary:logistic"):
    told = {"objective": objective, "max_depth": 4, "nthread": 1}
    return xgboost.train(told, xgboost.DMatrix(ROWS, LABELS.astype(np.float32)), 20)


def opened(booster):
    return XGBoostRuntime(bytes(booster.save_raw("ubj")), kernel=False)


def test_contributions_are_xgboosts_own_and_add_up_to_its_margin():
    booster = trained()
    found = tree_shap(opened(booster), ROWS)
    wanted = booster.predict(xgboost.DMatrix(ROWS), pred_contribs=True)
    np.testing.assert_array_equal(found.contributions, wanted[:, :-1])
    np.testing.assert_array_equal(found.base, wanted[:, -1])
    margin = booster.predict(xgboost.DMatrix(ROWS), output_margin=True)
    np.testing.assert_allclose(found.margin, margin, atol=1e-5)
    assert (found.scale, found.method, found.error) == ("log_odds", "tree_shap", None)


def test_the_margin_gives_the_prediction():
    booster = trained()
    found = tree_shap(opened(booster), ROWS)
    np.testing.assert_allclose(1 / (1 + np.exp(-found.margin)), found.predictions, atol=1e-6)
    np.testing.assert_array_equal(found.predictions, booster.inplace_predict(ROWS))


@pytest.mark.parametrize(
    ("objective", "scale", "link"),
    [("reg:squarederror", "value", lambda m: m), ("count:poisson", "log", np.exp)],
)
def test_the_scale_is_that_of_the_objective(objective, scale, link):
    found = tree_shap(opened(trained(objective)), ROWS)
    assert found.scale == scale
    np.testing.assert_allclose(link(found.margin), found.predictions, rtol=1e-5, atol=1e-6)


def test_another_shape_a_closed_model_and_no_rows():
    runtime = opened(trained())
    assert isinstance(runtime, Trees)
    assert tree_shap(runtime, ROWS[:0]).contributions.shape == (0, 6)
    with pytest.raises(RuntimeFailed, match=r"is not \(rows, 6\)"):
        tree_shap(runtime, ROWS[:, :5])
    runtime.close()
    with pytest.raises(RuntimeFailed, match="closed"):
        tree_shap(runtime, ROWS[:2])
