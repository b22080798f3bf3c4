from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.errors import RuntimeFailed
from serving.runtimes.xgboost import XGBoostRuntime


@pytest.fixture(scope="module", params=["binary:logistic", "reg:squarederror"])
def booster(request):
    import xgboost as xgb

    random = np.random.default_rng(7)
    matrix = random.normal(size=(400, 5)).astype(np.float32)
    label = (matrix[:, 0] + random.normal(size=400) > 0).astype(np.float32)
    settings = {"objective": request.param, "max_depth": 4, "nthread": 1}
    return xgb.train(settings, xgb.DMatrix(matrix, label), 12)


def rows_with_gaps(rows):
    random = np.random.default_rng(rows)
    matrix = random.normal(size=(rows, 5)).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.3] = np.nan
    return matrix


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 1000])
@pytest.mark.parametrize("threads", [1, 2])
def test_predictions_are_bit_equal_to_those_of_the_python_package(booster, rows, threads):
    import xgboost as xgb

    runtime = XGBoostRuntime(bytes(booster.save_raw("ubj")), threads=threads)
    matrix = rows_with_gaps(rows)
    given = runtime.predict(matrix).tobytes()
    assert given == booster.inplace_predict(matrix).tobytes()
    assert given == booster.predict(xgb.DMatrix(matrix)).tobytes()


def test_a_sliced_and_a_transposed_matrix_are_read_right(booster):
    runtime = XGBoostRuntime(bytes(booster.save_raw("ubj")))
    wide = rows_with_gaps(50)
    np.testing.assert_array_equal(runtime.predict(wide[::2]), runtime.predict(wide)[::2])
    fortran = np.asfortranarray(wide)
    np.testing.assert_array_equal(runtime.predict(fortran), runtime.predict(wide))


def test_an_answer_stays_what_it_was_after_the_next_call(booster):
    runtime = XGBoostRuntime(bytes(booster.save_raw("ubj")))
    first = runtime.predict(rows_with_gaps(20))
    kept = first.copy()
    runtime.predict(rows_with_gaps(21))
    np.testing.assert_array_equal(first, kept)


def test_threads_that_share_a_runtime_get_their_own_answers(booster):
    runtime = XGBoostRuntime(bytes(booster.save_raw("ubj")))
    inputs = [rows_with_gaps(rows) for rows in range(1, 9)] * 100
    wanted = [runtime.predict(matrix) for matrix in inputs[:8]] * 100
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(runtime.predict, inputs))
    assert all(map(np.array_equal, given, wanted))


def test_no_rows_give_no_predictions(booster):
    runtime = XGBoostRuntime(bytes(booster.save_raw("ubj")))
    assert runtime.predict(np.empty((0, 5), np.float32)).shape == (0,)


def test_another_number_of_columns_is_refused_by_name(booster):
    runtime = XGBoostRuntime(bytes(booster.save_raw("ubj")))
    with pytest.raises(RuntimeFailed, match=r"\(3, 4\) is not \(rows, 5\)"):
        runtime.predict(np.zeros((3, 4), np.float32))


def test_a_model_with_several_outputs_is_refused():
    import xgboost as xgb

    matrix = rows_with_gaps(60)
    settings = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    booster = xgb.train(settings, xgb.DMatrix(matrix, np.arange(60) % 3), 2)
    with pytest.raises(RuntimeFailed, match="9 values for 3 rows"):
        XGBoostRuntime(bytes(booster.save_raw("ubj"))).predict(matrix[:3])


@pytest.mark.parametrize("model", [b"", b"not a model", b"{}"])
def test_bytes_that_are_no_model_are_an_error_and_not_a_crash(model):
    with pytest.raises(RuntimeFailed, match="could not load the model"):
        XGBoostRuntime(model)


def test_a_closed_runtime_says_so_and_closes_twice(booster):
    runtime = XGBoostRuntime(bytes(booster.save_raw("ubj")))
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeFailed, match="closed"):
        runtime.predict(rows_with_gaps(1))
