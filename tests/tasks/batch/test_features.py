"""Inputs of a model, made of columns in whichever way, have the same bits."""

import numpy as np
import pyarrow as pa
import pytest

from featurestore.vectors import input_matrix, request_columns
from headrace.plan import FeaturePlan
from headrace.spec import RequestField
from tasks.batch.features import float32_matrix
from tasks.batch.models import Models

COLUMNS = {
    "small": pa.array([1, None, -3], pa.int8()),
    "whole": pa.array([2**53 + 1, -(2**62) + 1, None], pa.int64()),
    "unsigned": pa.array([2**64 - 1, 0, 16_777_217], pa.uint64()),
    "word": pa.array([16_777_217, -1, 2**31 - 1], pa.int32()),
    "float": pa.array([0.1, None, float("nan")], pa.float32()),
    "double": pa.array([0.1, 1e300, -1e-300], pa.float64()),
    "half": pa.array(np.array([0.5, 1.5, 2.5], np.float16)),
}


def test_columns_copied_directly_have_the_bits_that_the_server_gives_them():
    table = pa.table(COLUMNS)
    plan = FeaturePlan(
        project="tiny",
        feature_service="none",
        definitions_sha256="",
        event_timestamp="at",
        views=(),
        request=tuple(RequestField(name=name, description="a number") for name in COLUMNS),
        inputs_from_request=tuple(COLUMNS),
        transforms=(),
    )
    wanted = input_matrix(plan, (), {}, request_columns(plan, table))
    found = float32_matrix(table.columns, table.num_rows)
    assert found.flags.c_contiguous
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("rows", [0, 1, 8_192, 20_000])
def test_columns_of_many_chunks_are_copied_in_their_order(rows):
    numbers = np.arange(rows, dtype=np.float32)
    chunks = np.array_split(numbers, 7)
    column = pa.chunked_array([pa.array(chunk) for chunk in chunks], pa.float32())
    assert np.array_equal(float32_matrix([column, column], rows), np.column_stack([numbers] * 2))


def test_a_model_is_loaded_once_and_the_least_used_one_let_go(settings, plain, bundle_of):
    from headrace.bundle import read_manifest

    root = settings.uri("bundles")
    plan = read_manifest(root, plain).plan
    models = Models(kept=2)
    first = models.get(root, plain, "cpu")
    others = [models.get(root, bundle_of(plan, seed), "cpu") for seed in (1, 2)]
    assert models.get(root, others[0].digest, "cpu") is others[0]
    assert models.get(root, plain, "cpu") is not first
    assert first.predict(np.zeros((1, 3), np.float32)).shape == (1,)  # its shard may still go on
