"""A shard: every row that goes in comes out once, scored as the server would, or with a reason."""

import math
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tries
from hypothesis import strategies as st

from featurestore.join.training_set import feature_matrix
from serving.predictor import load_predictor
from tasks.batch import shards
from tasks.batch.inputs import InputBroken, InputChanged
from tasks.batch.parts import read_part
from tasks.batch.plan import Files, Options, make_plan
from tasks.batch.shards import score_shard
from tasks.batch.stamps import FeaturesChanged

FLOAT32 = float(np.finfo(np.float32).max)


@pytest.fixture
def planned(settings):
    """Plan to score a folder."""

    def plan(folder, digest, **options):
        return make_plan(settings, Files(uri=str(folder)), Options(**options), digest=digest)

    return plan


@pytest.fixture
def scored(settings, planned):
    """Score a folder; returns the predicted rows and the rejected ones."""

    def score(folder, digest, **options):
        plan = planned(folder, digest, **options)
        records = [score_shard(settings, plan.job, shard) for shard in plan.shards]
        assert [record.rows for record in records] == [shard.rows for shard in plan.shards]
        parts = [[r.predicted for r in records], [r.rejected for r in records if r.rejected]]
        tables = [[read_part(plan.job.output, file) for file in files] for files in parts]
        return [pa.concat_tables(some) if some else None for some in tables]

    return score


def test_rows_come_out_in_order_with_their_position_and_what_is_kept(
    scored, settings, plain, write_input, numbers
):
    table = numbers(500)
    predicted, rejected = scored(
        write_input(table, row_group_size=64), plain, rows_per_shard=100, keep=("name",)
    )
    matrix = np.column_stack([table[name].to_numpy() for name in ("f0", "f1", "f2")])
    wanted = load_predictor(settings.uri("bundles"), plain).predict(matrix)
    assert rejected is None
    assert predicted.column_names == ["row", "name", "prediction"]
    assert predicted["row"].to_pylist() == list(range(500))
    assert predicted["name"].equals(table["name"])
    assert predicted["prediction"].to_numpy().tobytes() == wanted.tobytes()


_values = st.one_of(
    st.none(),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -FLOAT32, 100.0, 100.1, -100.0, -0.0]),
    st.floats(-120, 120),
)


def reason_of(row, *, may_miss):
    """The plain oracle: why a row of three numbers between -100 and 100 is rejected, or None."""
    for name, value in row.items():
        missing = value is None or math.isnan(value)
        if missing and may_miss:
            continue
        if value is None:
            return f"{name} is null"
        if math.isnan(value):
            return f"{name} is not a number"
        if abs(value) > FLOAT32:
            return f"{name} does not fit a 32-bit float"
        if value < -100:
            return f"{name} is below -100"
        if value > 100:
            return f"{name} is above 100"
    return None


@tries(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(st.tuples(_values, _values, _values), min_size=1, max_size=40),
    features=st.sampled_from(["input", "offline"]),
)
def test_rows_in_are_rows_predicted_and_rows_rejected_for_the_reason_an_oracle_gives(
    scored, plain, write_input, rows, features
):
    rows = [dict(zip(("f0", "f1", "f2"), row, strict=True)) for row in rows]
    table = pa.Table.from_pylist(rows, pa.schema([(n, pa.float64()) for n in ("f0", "f1", "f2")]))
    folder = write_input(table, row_group_size=7)
    predicted, rejected = scored(folder, plain, rows_per_shard=10, features=features)
    reasons = [reason_of(row, may_miss=features == "input") for row in rows]
    assert predicted["row"].to_pylist() == [n for n, reason in enumerate(reasons) if not reason]
    found = rejected.to_pylist() if rejected else []
    assert [(row["row"], row["reason"]) for row in found] == [
        (n, reason) for n, reason in enumerate(reasons) if reason
    ]
    assert {row["file"] for row in found} <= {str(folder / "a.parquet")}
    assert str([{n: row[n] for n in ("f0", "f1", "f2")} for row in found]) == str(
        [row for row, reason in zip(rows, reasons, strict=True) if reason]
    )


def test_a_shard_scored_twice_is_the_same_to_the_byte(
    settings, planned, plain, write_input, numbers, tmp_path
):
    folder = write_input(numbers(200).set_column(0, "f0", pa.array([1.0, math.nan] * 100)))
    plan = planned(folder, plain, features="offline")
    other = plan.job.model_copy(update={"output": str(tmp_path / "again")})
    first, second = (score_shard(settings, job, plan.shards[0]) for job in (plan.job, other))
    assert first == second
    assert first.rejected.rows == 100


def test_the_size_of_a_batch_leaves_no_trace(
    settings, planned, joined, write_input, flights, tmp_path, monkeypatch
):
    plan = planned(write_input(flights(300)), joined)
    first = score_shard(settings, plan.job, plan.shards[0])
    monkeypatch.setattr(shards, "BATCH_ROWS", 37)
    other = plan.job.model_copy(update={"output": str(tmp_path / "again")})
    assert score_shard(settings, other, plan.shards[0]) == first


def test_a_shard_that_is_done_is_left_as_it_is(
    settings, planned, plain, write_input, numbers, monkeypatch
):
    plan = planned(write_input(numbers(10)), plain)
    first = score_shard(settings, plan.job, plan.shards[0])
    monkeypatch.setattr(shards, "score_piece", None)  # it would fail if it were asked
    assert score_shard(settings, plan.job, plan.shards[0]) == first


def test_features_are_joined_as_in_training_and_null_moments_are_rejected(
    scored, settings, joined, write_input, flights
):
    table = flights(400)
    moments = table["scheduled_departure"].to_pylist()
    moments[7] = None
    table = table.set_column(
        1, "scheduled_departure", pa.array(moments, pa.timestamp("us", tz="UTC"))
    )
    predicted, rejected = scored(write_input(table, row_group_size=100), joined)
    good = table.filter(pa.array([n != 7 for n in range(400)]))
    predictor = load_predictor(settings.uri("bundles"), joined)
    matrix = feature_matrix(good, predictor.plan, settings.uri("offline"), digest=joined)
    assert predicted["prediction"].to_numpy().tobytes() == predictor.predict(matrix).tobytes()
    assert rejected.select(["row", "reason"]).to_pylist() == [
        {"row": 7, "reason": "scheduled_departure is null"}
    ]


def test_moments_of_other_units_and_zones_are_the_same_moments(
    scored, joined, write_input, flights
):
    table = flights(50)
    first = scored(write_input(table), joined)[0]
    new_york = table["scheduled_departure"].cast(pa.timestamp("ns", tz="America/New_York"))
    again = scored(write_input(table.set_column(1, "scheduled_departure", new_york)), joined)[0]
    assert again.equals(first)


def test_one_moment_for_all_rows_is_that_of_a_column_of_it(scored, joined, write_input, flights):
    moment = datetime(2013, 1, 1, 5, tzinfo=UTC)
    table = flights(50)
    column = pa.array([moment] * 50, pa.timestamp("us", tz="UTC"))
    with_column = scored(write_input(table.set_column(1, "scheduled_departure", column)), joined)[0]
    without = table.drop_columns(["scheduled_departure"])
    given = scored(write_input(without), joined, at=moment)[0]
    assert given["prediction"].equals(with_column["prediction"])


def test_features_of_the_input_give_what_the_join_gives(
    scored, settings, joined, write_input, flights
):
    table = flights(200)
    first = scored(write_input(table), joined)[0]
    plan = load_predictor(settings.uri("bundles"), joined).plan
    matrix = feature_matrix(table, plan, settings.uri("offline"), digest=joined)
    for place, name in enumerate(("weather__temperature", "weather__wind")):
        table = table.append_column(name, pa.array(matrix[:, place]))
    again = scored(write_input(table), joined, features="input", keep=("origin",))[0]
    assert again["prediction"].equals(first["prediction"])
    hours = pa.array(matrix[:, plan.columns.index("scheduled_hour")])
    without = table.drop_columns(["scheduled_departure"]).append_column("scheduled_hour", hours)
    taken = scored(write_input(without), joined, features="input", keep=("origin",))[0]
    assert taken["prediction"].equals(first["prediction"])


def test_a_row_with_an_infinite_feature_is_rejected_alone(scored, joined, write_input, flights):
    table = flights(5).append_column("temperature", pa.array([1.0, 1e300, None, -math.inf, 2.0]))
    table = table.append_column("wind", pa.array([1.0] * 5))
    predicted, rejected = scored(write_input(table), joined, features="input")
    assert predicted["row"].to_pylist() == [0, 2, 4]
    assert set(rejected["reason"].to_pylist()) == {
        "weather__temperature is infinite as a 32-bit float"
    }


def test_values_of_a_text_file_that_do_not_fit_are_rejected_rows(scored, plain, numbers, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    lines = [f"{n}.5,{n},1.0" for n in range(30)]
    lines[11] = "1.5,many,1.0"
    (folder / "a.csv").write_text("\n".join(["f0,f1,f2", *lines]) + "\n")
    predicted, rejected = scored(folder, plain)
    assert predicted.num_rows == 29
    (row,) = rejected.to_pylist()
    assert (row["row"], "f1" in row["reason"], "many" in row["reason"]) == (11, True, True)


def test_a_file_that_changes_while_it_is_scored_is_named_and_nothing_is_recorded(
    settings, planned, plain, write_input, numbers
):
    folder = write_input(numbers(20))
    plan = planned(folder, plain)
    pq.write_table(numbers(21), folder / "a.parquet")
    with pytest.raises(InputChanged, match=r"a\.parquet changed while it was being scored"):
        score_shard(settings, plan.job, plan.shards[0])
    assert not list((settings.home / "storage").rglob("part-*"))


def test_features_that_change_while_a_shard_is_scored_are_named(
    settings, planned, joined, write_input, flights, warm_up
):
    plan = planned(write_input(flights(20)), joined)
    warm_up()
    with pytest.raises(FeaturesChanged, match=r"weather\.parquet, which features are read from"):
        score_shard(settings, plan.job, plan.shards[0])


def test_a_damaged_file_is_named_with_the_remedy(settings, planned, plain, write_input, numbers):
    folder = write_input(numbers(1000), compression="zstd", write_page_checksum=True)
    path = folder / "a.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    plan = planned(folder, plain)
    with pytest.raises(InputBroken, match=r"a\.parquet cannot be used: it is damaged"):
        score_shard(settings, plan.job, plan.shards[0])


class BusyGpu:
    """A GPU of which half is used."""

    mean_utilisation = 0.5

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize(("device", "busy"), [("cpu", None), ("auto", 0.5)])
def test_the_gpu_is_watched_where_the_job_may_use_one(
    settings, planned, plain, write_input, numbers, monkeypatch, device, busy
):
    monkeypatch.setattr(shards, "GpuUsage", BusyGpu)
    plan = planned(write_input(numbers(10)), plain, device=device)
    watched = shards.score_watched(settings, plan.job, plan.shards[0])
    assert (watched.record.rows, watched.gpu_utilisation) == (10, busy)
