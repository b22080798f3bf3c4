"""The model says what the columns of a text file must be."""

import pyarrow as pa

from tasks.batch.plan import Files, Options, make_plan
from tasks.batch.shards import score_shard


def test_an_input_of_the_model_is_a_number_whatever_the_rows_say(settings, plain, tmp_path):
    rows = ["f0,f1,f2,name", *("n/k,1,2,x" for _ in range(5)), *("1,2,3,7" for _ in range(5))]
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    plan = make_plan(
        settings, Files(uri=str(tmp_path / "rows.csv")), Options(keep=("name",)), digest=plain
    )
    (shard,) = plan.shards
    assert shard.piece.reading.columns.field("f0").type == pa.float64()
    assert shard.piece.reading.columns.field("name").type == pa.string()
    record = score_shard(settings, plan.job, shard)
    assert (record.predicted.rows, record.rejected.rows) == (5, 5)
