"""Reasons of rows that the shards' own tests do not meet."""

import pyarrow as pa
import pytest

from headrace.spec import RequestField
from tasks.batch.rejected import _problems


@pytest.mark.parametrize(
    ("dtype", "known", "values"),
    [
        ("string", ("red", "blue"), ["red", "green", None, "blue"]),
        ("int64", (2, 4), [4, 3, None, 2]),
    ],
)
def test_a_value_that_is_none_of_those_listed_is_rejected_and_told_them(dtype, known, values):
    field = RequestField(name="kind", dtype=dtype, description="kind", one_of=known)
    found = list(_problems(pa.chunked_array([values]), field, may_miss=True))
    ((hit, words),) = found
    assert hit.tolist() == [False, True, False, False]
    assert words == f"is none of {known[0]!r}, {known[1]!r}"
