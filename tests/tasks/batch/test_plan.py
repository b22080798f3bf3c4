"""What a run will do is decided before it starts, and named by everything its output depends on."""

import os

import pyarrow as pa
import pytest

from headrace.bundle import read_manifest
from headrace.errors import BundleRefused, SchemaMismatch
from tasks.batch.columns import KeepRefused
from tasks.batch.inputs import InputEmpty
from tasks.batch.plan import Files, Options, make_plan


@pytest.fixture
def planned(settings):
    """Plan to score a folder."""

    def plan(folder, digest, **options):
        return make_plan(settings, Files(uri=str(folder)), Options(**options), digest=digest)

    return plan


def ids(plan):
    return [shard.id for shard in plan.shards]


def test_the_same_input_bundle_and_options_make_the_same_plan(planned, plain, write_input, numbers):
    folder = write_input(numbers(100), row_group_size=10)
    plan = planned(folder, plain, rows_per_shard=30)
    assert plan == planned(folder, plain, rows_per_shard=30)
    assert [shard.rows for shard in plan.shards] == [30, 30, 30, 10]
    assert len(set(ids(plan))) == 4
    assert plan.rows == 100


@pytest.mark.parametrize(
    "options", [{"keep": ("name",)}, {"device": "cpu"}, {"features": "offline"}]
)
def test_every_option_that_changes_the_output_changes_the_names(
    planned, plain, write_input, numbers, options
):
    folder = write_input(numbers(10))
    assert not set(ids(planned(folder, plain))) & set(ids(planned(folder, plain, **options)))
    assert planned(folder, plain).run != planned(folder, plain, **options).run


def test_another_bundle_changes_the_names(
    planned, plain, bundle_of, settings, write_input, numbers
):
    folder = write_input(numbers(10))
    other = bundle_of(read_manifest(settings.uri("bundles"), plain).plan, seed=1)
    assert not set(ids(planned(folder, plain))) & set(ids(planned(folder, other)))


def test_a_changed_file_changes_only_the_names_of_its_shards(planned, plain, write_input, numbers):
    for name, seed in (("a.parquet", 0), ("b.parquet", 1), ("c.parquet", 2)):
        folder = write_input(numbers(20, seed), name)
    before = ids(planned(folder, plain))
    write_input(numbers(25, 3), "b.parquet")
    after = ids(planned(folder, plain))
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


def test_changed_features_change_the_names(planned, joined, write_input, flights, warm_up):
    folder = write_input(flights(10))
    before = planned(folder, joined)
    warm_up()
    after = planned(folder, joined)
    assert before.job.stamps.keys() == {"weather.parquet"}
    assert ids(before) != ids(after)


def test_where_the_output_goes_changes_no_name(settings, plain, write_input, numbers, tmp_path):
    source = Files(uri=str(write_input(numbers(10))))
    plans = [
        make_plan(settings, source, Options(), digest=plain, output=output)
        for output in (None, str(tmp_path / "elsewhere"))
    ]
    assert ids(plans[0]) == ids(plans[1])
    assert plans[0].job.output.startswith(settings.uri("predictions", "tiny", "input-"))


def test_a_bundle_without_views_needs_no_column_of_moments(planned, plain, write_input, numbers):
    job = planned(write_input(numbers(10)), plain).job
    assert job.columns.read == ("f0", "f1", "f2")
    assert (job.features, job.columns.keep) == ("input", ())


def test_keys_and_moments_are_kept_unless_other_columns_are_asked_for(
    planned, joined, write_input, flights
):
    folder = write_input(flights(10))
    assert planned(folder, joined).job.columns.keep == ("origin", "scheduled_departure")
    assert planned(folder, joined, keep=("all",)).job.columns.keep == (
        *("origin", "scheduled_departure", "miles"),
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns(["f1"]), "column f1 (float64) is missing"),
        (
            lambda t: t.rename_columns(["f0", "f11", "f2", "name"]),
            "column f1 (float64) is missing (is it f11?)",
        ),
        (
            lambda t: t.set_column(1, "f1", t["f1"].cast(pa.string())),
            "f1 is string, but must be float64",
        ),
    ],
)
def test_a_column_missing_renamed_or_retyped_is_named(
    planned, plain, write_input, numbers, change, says
):
    folder = write_input(change(numbers(10)))
    with pytest.raises(SchemaMismatch) as refused:
        planned(folder, plain)
    assert says in str(refused.value)
    assert str(folder) in str(refused.value)


def test_moments_without_a_zone_are_refused(planned, joined, write_input, flights):
    table = flights(5)
    naive = table["scheduled_departure"].cast(pa.timestamp("us"))
    with pytest.raises(SchemaMismatch, match=r"timestamp\[us\], but must be timestamp\[us, tz=UTC"):
        planned(write_input(table.set_column(1, "scheduled_departure", naive)), joined)


def test_an_input_without_moments_is_told_of_at(planned, joined, write_input, flights):
    folder = write_input(flights(5).drop_columns(["scheduled_departure"]))
    with pytest.raises(SchemaMismatch, match="or give --at for all rows"):
        planned(folder, joined)
    moment = "2013-01-01T03:00:00Z"
    assert planned(folder, joined, at=moment).job.columns.read == ("origin", "miles")


def test_a_join_key_of_another_type_is_refused(planned, joined, write_input, flights):
    table = flights(3).set_column(0, "origin", pa.array([1, 2, 3]))
    with pytest.raises(SchemaMismatch, match="join key origin is int64, but must be string"):
        planned(write_input(table), joined)


@pytest.mark.parametrize(
    ("keep", "says"),
    [("nmae", "did you mean 'name'"), ("row", "the output has a column of that name")],
)
def test_a_column_that_cannot_be_kept_is_named(planned, plain, write_input, numbers, keep, says):
    table = numbers(3).append_column("row", pa.array([1, 2, 3]))
    with pytest.raises(KeepRefused, match=says):
        planned(write_input(table), plain, keep=(keep,))


def test_features_of_the_input_are_found_by_either_name(planned, joined, write_input, flights):
    table = flights(3)
    table = table.append_column("weather__temperature", pa.array([1.0, 2.0, 3.0]))
    table = table.append_column("wind", pa.array([1.0, 2.0, 3.0]))
    columns = planned(write_input(table), joined, features="input").job.columns
    assert columns.features == {
        "weather__temperature": "weather__temperature",
        "weather__wind": "wind",
    }
    with pytest.raises(SchemaMismatch, match="feature weather__wind is missing, and so is wind"):
        planned(write_input(table.drop_columns(["wind"])), joined, features="input")


def test_an_input_without_rows_is_an_error_unless_it_may_be_empty(
    settings, plain, write_input, numbers
):
    uri = str(write_input(numbers(0)))
    with pytest.raises(InputEmpty, match="--allow-empty"):
        make_plan(settings, Files(uri=uri), Options(), digest=plain)
    plan = make_plan(settings, Files(uri=uri, allow_empty=True), Options(), digest=plain)
    assert (plan.rows, plan.shards) == (0, ())


def test_a_bundle_that_is_not_there_is_refused(planned, write_input, numbers):
    with pytest.raises(BundleRefused, match=r"bundle\.json is missing"):
        planned(write_input(numbers(3)), "0" * 64)


def test_a_plan_does_not_read_the_rows(planned, plain, write_input, numbers):
    folder = write_input(numbers(1000), row_group_size=100)
    path = folder / "a.parquet"
    whole = path.read_bytes()
    with path.open("r+b") as file:  # data pages overwritten; the footer is as it was
        file.seek(4)
        file.write(os.urandom(len(whole) // 4))
    assert planned(folder, plain).rows == 1000
