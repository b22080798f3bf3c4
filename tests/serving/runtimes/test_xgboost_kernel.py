"""Who answers for an XGBoost model: always with the same bits, the kernel where it may and pays."""

import logging

import numpy as np
import pytest

from serving.errors import RuntimeFailed
from serving.runtimes import xgboost
from serving.runtimes.forest.forest import Forest
from serving.runtimes.forest.library import KernelMissing
from serving.runtimes.forest.model import NotCovered
from serving.runtimes.xgboost import XGBoostRuntime


def model_of(**settings):
    import xgboost as xgb

    matrix = rows(400)
    label = np.nan_to_num(matrix[:, 0]) > 0
    usual = {"objective": "binary:logistic", "max_depth": 6, "nthread": 1, "verbosity": 0}
    booster = xgb.train(usual | settings, xgb.DMatrix(matrix, label), 60)
    return bytes(booster.save_raw("ubj"))


def rows(count):
    random = np.random.default_rng(count)
    matrix = random.normal(size=(count, 5)).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.2] = np.nan
    return matrix


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.fixture
def forest_calls(monkeypatch):
    """The row counts that the kernel has answered."""
    calls = []
    answer = Forest.predict

    def counted(forest, matrix):
        calls.append(len(matrix))
        return answer(forest, matrix)

    monkeypatch.setattr(Forest, "predict", counted)
    return calls


@pytest.mark.parametrize("count", [1, 40, 20_000])
def test_the_kernel_and_xgboost_give_the_same_bits(model, count):
    fast, slow = XGBoostRuntime(model), XGBoostRuntime(model, kernel=False)
    assert fast.wait_for_kernel()
    assert not slow.wait_for_kernel()
    matrix = rows(count)
    wanted = slow.predict(matrix).tobytes()
    assert fast.predict(matrix).tobytes() == wanted
    for runtime in (fast, slow):
        assert runtime.predict_columns(list(matrix.T)).tobytes() == wanted


def test_a_large_block_waits_for_the_kernel_and_is_answered_by_it(model, forest_calls):
    XGBoostRuntime(model).predict(rows(20_000))
    assert forest_calls[-1] == 20_000


def test_few_rows_are_answered_while_the_kernel_is_not_ready(model, monkeypatch, forest_calls):
    def never():
        pytest.fail("waited for")

    runtime = XGBoostRuntime(model, kernel=False)
    runtime._settled.clear()
    monkeypatch.setattr(runtime._settled, "wait", never)
    assert len(runtime.predict(rows(16_383))) == 16_383
    assert forest_calls == []


@pytest.mark.parametrize(
    ("name", "fault", "said"),
    [
        ("load_kernel", KernelMissing("numba is not installed"), "numba is not installed"),
        ("read_model", NotCovered("its booster is new"), "its booster is new"),
        ("pays_from", NotCovered("XGBoost is faster"), "XGBoost is faster"),
    ],
)
def test_xgboost_answers_where_the_kernel_cannot_and_the_log_says_why(
    name, fault, said, model, monkeypatch, caplog
):
    def fails(*_):
        raise fault

    monkeypatch.setattr(xgboost, name, fails)
    caplog.set_level(logging.INFO)
    runtime = XGBoostRuntime(model)
    assert not runtime.wait_for_kernel()
    matrix = rows(20_000)
    wanted = XGBoostRuntime(model, kernel=False).predict(matrix)
    np.testing.assert_array_equal(runtime.predict(matrix), wanted)
    assert f"XGBoost's own predictor answers: {said}" in caplog.text


def test_a_kernel_that_gives_other_bits_never_answers(model, monkeypatch, caplog):
    answer = Forest.predict
    monkeypatch.setattr(Forest, "predict", lambda *of: np.nextafter(answer(*of), np.float32(2)))
    runtime = XGBoostRuntime(model)
    assert not runtime.wait_for_kernel()
    assert "please report this: the kernel gives" in caplog.text


def test_a_model_that_the_kernel_does_not_cover_is_answered_by_xgboost():
    runtime = XGBoostRuntime(model_of(objective="reg:quantileerror", quantile_alpha=0.5))
    assert not runtime.wait_for_kernel()
    assert len(runtime.predict(rows(10))) == 10


def test_a_runtime_that_is_closed_while_the_kernel_gets_ready_stays_closed(model):
    runtime = XGBoostRuntime(model)
    runtime.close()
    with pytest.raises(RuntimeFailed, match="closed"):
        runtime.predict(rows(20_000))
    with pytest.raises(RuntimeFailed, match="closed"):
        runtime.predict_columns(list(rows(3).T))


def test_columns_that_do_not_fit_are_refused_by_number(model):
    runtime = XGBoostRuntime(model, kernel=False)
    with pytest.raises(RuntimeFailed, match=r"4 columns of .3. rows are not 5"):
        runtime.predict_columns(list(rows(3).T[:4]))
    with pytest.raises(RuntimeFailed, match=r"5 columns of .2, 3. rows are not 5"):
        runtime.predict_columns([*rows(3).T[:4], np.zeros(2, np.float32)])
