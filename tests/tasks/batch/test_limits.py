"""A run that rejects more rows than it bears stops, and says why."""

import pyarrow as pa
import pytest

from tasks.batch.limits import LimitRefused, RejectedLimit, RejectedRows, TooManyRejected
from tasks.batch.output import write_shard


@pytest.mark.parametrize(
    ("limit", "rejected", "allowed"),
    [("0", 0, True), ("0", 1, False), ("1%", 10, True), ("1%", 11, False), ("100%", 1000, True)],
)
def test_a_limit_is_a_share_of_all_rows_or_a_count(limit, rejected, allowed):
    assert RejectedLimit.parse(limit).allows(rejected, 1000) is allowed


@pytest.mark.parametrize("text", ["", "many", "-1", "101%", "1 in 10", "0.5"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(LimitRefused, match=r"write a share, 1% or 0\.5%, or a count"):
        RejectedLimit.parse(text)


@pytest.fixture
def record_of(tmp_path):
    """Write a shard whose rejected rows have these reasons."""

    def write(shard, *reasons):
        rejected = pa.table({"row": list(range(len(reasons))), "reason": list(reasons)})
        predicted = pa.table({"row": [1], "prediction": [0.5]})
        return write_shard(str(tmp_path), shard, predicted=predicted, rejected=rejected)

    return write


def test_the_run_stops_at_the_shard_that_makes_it_certain(record_of, tmp_path):
    rows = RejectedRows(str(tmp_path), rows=100, limit=RejectedLimit.parse("3%"))
    rows.add(record_of("a0"))
    first = record_of("a1", "f0 is null", "f0 is null", "f1 is above 5")
    rows.add(first)
    with pytest.raises(TooManyRejected) as stopped:
        rows.add(record_of("a2", "f0 is null"))
    said = str(stopped.value)
    assert "4 of 100 rows could not be scored (4.00%), more than --max-rejected 3%" in said
    assert "3 x f0 is null, 1 x f1 is above 5" in said
    assert f"parts/{first.rejected.name}" in said


def test_without_a_limit_any_number_is_borne(record_of, tmp_path):
    RejectedRows(str(tmp_path), rows=1, limit=None).add(record_of("a1", "f0 is null"))
