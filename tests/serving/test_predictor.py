from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from headrace.bundle import CARD, GOLDEN, arrow_bytes, file_names, model_file
from headrace.errors import BundleRefused
from serving.predictor import golden_table, load_predictor


def load(store, digest):
    return load_predictor(f"{store.root}/bundles", digest)


def test_a_loaded_bundle_predicts_what_its_model_predicts(store, booster):
    predictor = load(store, store.bundle(seed=3))
    matrix = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    wanted = booster(3).inplace_predict(matrix)
    assert predictor.predict(matrix).tobytes() == wanted.tobytes()


def test_the_matrix_has_the_columns_of_the_plan_in_their_order(store):
    predictor = load(store, store.bundle())
    reads = {
        "weather__temperature": np.array([70.0]),
        "weather__wind_speed": np.array([np.nan]),
        "planes__seats": np.array([178.0]),
    }
    request = {
        "distance_miles": np.array([2475.0]),
        "scheduled_departure": np.array(["2013-08-01T12:00"], "datetime64[us]"),
    }
    matrix = predictor.matrix(reads, request)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, [[70, np.nan, 178, 2475, 8]])  # 8:00 in New York


@pytest.mark.parametrize("name", [*file_names("xgboost"), "bundle.json"])
def test_one_flipped_bit_in_any_file_refuses_the_bundle(store, name):
    digest = store.bundle()
    path = Path(store.root, "bundles", digest, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleRefused, match=f"{name} was changed"):
        load(store, digest)


def test_a_golden_row_that_comes_out_different_is_named(store, bundle_files):
    golden = pa.ipc.open_file(pa.BufferReader(bundle_files()[GOLDEN])).read_all()
    predictions = golden["prediction"].to_numpy().copy()
    predictions[7] = np.nextafter(predictions[7], np.float32(1))
    matrix = np.column_stack([c.to_numpy() for c in golden.columns[:-1]])
    changed = golden_table(golden.column_names[:-1], matrix, predictions)
    with pytest.raises(BundleRefused, match=r"golden row 7 gives .* \(1 of 20 rows differ\)"):
        load(store, store.bundle(**{GOLDEN: arrow_bytes(changed)}))


def test_golden_rows_of_other_columns_are_refused(store, plan):
    table = golden_table(["a", "b"], np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(BundleRefused, match="does not have the float32 columns"):
        load(store, store.bundle(**{GOLDEN: arrow_bytes(table)}))


def test_a_bundle_without_golden_rows_proves_nothing(store, plan):
    columns = len(plan.columns)
    table = golden_table(plan.columns, np.zeros((0, columns)), np.zeros(0))
    with pytest.raises(BundleRefused, match="no rows"):
        load(store, store.bundle(**{GOLDEN: arrow_bytes(table)}))


def test_golden_rows_with_nulls_are_refused(store, plan):
    table = golden_table(plan.columns, np.zeros((2, len(plan.columns))), np.zeros(2))
    gap = table.set_column(0, table.column_names[0], pa.array([None, 1.0], pa.float32()))
    with pytest.raises(BundleRefused, match="has null values; missing is NaN there"):
        load(store, store.bundle(**{GOLDEN: arrow_bytes(gap)}))


def test_a_golden_file_that_is_no_arrow_is_refused(store):
    with pytest.raises(BundleRefused, match="not an Arrow file"):
        load(store, store.bundle(**{GOLDEN: b"not arrow"}))


def test_model_bytes_that_xgboost_refuses_are_refused(store):
    with pytest.raises(BundleRefused, match="could not load the model"):
        load(store, store.bundle(**{model_file("xgboost"): b"{}"}))


def test_a_model_of_another_width_than_its_plan_is_refused(store, booster):
    wide = bytes(booster(columns=6).save_raw("ubj"))
    with pytest.raises(BundleRefused, match="its model has 6 inputs, its plan 5"):
        load(store, store.bundle(**{model_file("xgboost"): wide}))


def test_a_transform_that_changed_since_training_is_refused(store, manifest):
    old = manifest.plan.transforms[0].model_copy(update={"source_sha256": "f" * 64})
    plan = manifest.plan.model_copy(update={"transforms": (old,)})
    changed = manifest.model_copy(update={"plan": plan})
    with pytest.raises(BundleRefused, match=r"transform flights.scheduled_hour"):
        load(store, store.bundle(manifest=changed))


def test_the_card_may_hold_anything_because_only_people_read_it(store):
    assert load(store, store.bundle(**{CARD: b"\xff\x00"})).digest


def test_a_predictor_explains_trees_by_their_library_and_the_rest_by_asking(store, monkeypatch):
    predictor = load(store, store.bundle())
    rows = predictor.background[:4]
    trees = predictor.explain(rows)
    assert (trees.method, trees.scale) == ("tree_shap", "log_odds")
    np.testing.assert_array_equal(trees.predictions, predictor.predict(rows))
    monkeypatch.delattr(type(predictor.runtime), "contributions")
    asked = predictor.explain(rows)
    assert (asked.method, asked.scale) == ("kernel_shap_exact", "value")
    np.testing.assert_allclose(asked.base + asked.contributions.sum(1), asked.margin, atol=1e-6)
