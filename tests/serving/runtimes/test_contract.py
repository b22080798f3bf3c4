"""What holds for every runtime, whatever library it asks."""

import os
import pickle  # noqa: TID251  (to make what must never be opened)
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest

from headrace.errors import BundleRefused
from headrace.trainers import RuntimeName
from serving.errors import DeviceMissing, RuntimeFailed
from serving.predictor import load_predictor
from serving.runtimes.runtime import Runtime

KINDS = get_args(RuntimeName)  # a new runtime joins the suite by its name
pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def runtime(kind, model, opened) -> Runtime:
    return opened(kind, model(kind))


def test_a_row_gets_one_float32(runtime, matrix):
    given = runtime.predict(matrix(33))
    assert (given.dtype, given.shape, runtime.columns) == (np.float32, (33,), 5)
    assert np.isfinite(given).all()
    assert len(np.unique(given)) > 5


def test_no_rows_get_no_predictions(runtime):
    assert runtime.predict(np.empty((0, 5), np.float32)).shape == (0,)


def test_an_answer_stays_what_it_was_after_the_next_call(runtime, matrix):
    first = runtime.predict(matrix(20))
    kept = first.copy()
    runtime.predict(matrix(20, seed=1))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 31, 64, 100, 257])
def test_a_row_has_the_same_bytes_in_any_batch(runtime, matrix, rows):
    whole = matrix(600)
    wanted = runtime.predict(whole)
    parts = [runtime.predict(whole[begin : begin + rows]) for begin in range(0, 600, rows)]
    assert np.concatenate(parts).tobytes() == wanted.tobytes()
    order = np.random.default_rng(rows).permutation(600)
    assert runtime.predict(whole[order]).tobytes() == wanted[order].tobytes()


def test_the_number_of_threads_changes_no_byte(kind, model, opened, matrix):
    file, rows = model(kind), matrix(1500)
    one = opened(kind, file, threads=1).predict(rows)
    for threads in (0, 2, 3):
        assert opened(kind, file, threads=threads).predict(rows).tobytes() == one.tobytes()


def test_callers_that_share_a_runtime_get_their_own_answers(runtime, matrix):
    inputs = [matrix(rows) for rows in range(1, 9)] * 20
    wanted = [runtime.predict(rows) for rows in inputs[:8]] * 20
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(runtime.predict, inputs))
    assert all(map(np.array_equal, given, wanted))


def test_a_sliced_and_a_transposed_matrix_are_read_right(runtime, matrix):
    whole = matrix(50)
    wanted = runtime.predict(whole)
    np.testing.assert_array_equal(runtime.predict(whole[::2]), wanted[::2])
    np.testing.assert_array_equal(runtime.predict(np.asfortranarray(whole)), wanted)


@pytest.mark.parametrize("shape", [(3, 4), (3, 6), (0, 4), (5,)])
def test_another_shape_is_refused_and_named(runtime, shape):
    with pytest.raises(RuntimeFailed, match=r"is not \(rows, 5\)"):
        runtime.predict(np.zeros(shape, np.float32))


def test_a_closed_runtime_says_so_and_closes_twice(runtime, matrix):
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeFailed, match="closed"):
        runtime.predict(matrix(2))


class _Touch:
    """What a pickle would do to whoever opens it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_the_place_of_a_model_is_refused_and_not_opened(kind, opened, tmp_path):
    canary = tmp_path / "canary"
    with pytest.raises(RuntimeFailed, match="could not load the model"):
        opened(kind, pickle.dumps(_Touch(canary)))
    assert not canary.exists()


@pytest.mark.parametrize("damage", [b"", b"not a model", b"{}"])
def test_bytes_that_are_no_model_are_an_error_and_not_a_crash(kind, opened, damage):
    with pytest.raises(RuntimeFailed, match="could not load the model"):
        opened(kind, damage)


def test_a_gpu_that_is_not_there_is_refused_and_auto_takes_the_cpu(
    kind, model, opened, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert opened(kind, model(kind), device="auto").device == "cpu"
    if kind not in ("ensemble", "graph"):  # their members say where they compute
        with pytest.raises(DeviceMissing, match="no NVIDIA GPU; choose device cpu or auto"):
            opened(kind, model(kind), device="cuda")


def test_a_bundle_reproduces_its_golden_rows_and_one_wrong_bit_refuses_it(
    kind, model, opened, bundled, store, matrix
):
    file = model(kind)
    root, wanted = f"{store.root}/bundles", opened(kind, file).predict(matrix(20))
    predictor = load_predictor(root, bundled(kind, model=file, predictions=wanted))
    assert predictor.predict(matrix(20)).tobytes() == wanted.tobytes()
    wanted[3] = np.nextafter(wanted[3], np.float32(2))
    with pytest.raises(BundleRefused, match=r"golden row 3 gives .* \(1 of 20 rows differ\)"):
        load_predictor(root, bundled(kind, model=file, predictions=wanted))
