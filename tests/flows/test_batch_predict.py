"""``python -m flows.batch_predict`` and ``flows.backfill`` as their users run them."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from headrace.window import Window
from tasks import sample, serving_check
from tasks.batch import commit
from tasks.batch.output import recorded_shards
from tasks.scoring_table import scoring_rows

pytestmark = pytest.mark.slow

MODEL = ("--model", "flight_delay")
DAY = Window(since=datetime(2013, 3, 4, tzinfo=UTC), until=datetime(2013, 3, 5, tzinfo=UTC))


@pytest.fixture
def folder(world, tmp_path):
    """A day of flights as a dataset of three files, of a few row groups each."""
    folder = tmp_path / "input"
    folder.mkdir()
    rows = scoring_rows(world.settings, "flight_delay", DAY)
    for number in range(3):
        part = rows.slice(number * 300, 300)
        pq.write_table(part, folder / f"part-{number}.parquet", row_group_size=100)
    return folder


@pytest.fixture
def predict(world, folder, tmp_path):
    """Score the dataset with flags; returns the exit code and the report."""

    def run(*flags, output="out", path=None):
        return world.report(
            "batch_predict",
            *(*MODEL, "--input", str(path or folder), "--output", str(tmp_path / output)),
            *("--rows-per-shard", "100", *flags),
        )

    return run


def test_a_dataset_is_scored_as_the_same_rows_of_the_table_are(world, predict, folder):
    code, report = predict()
    table = world.report("batch_predict", *MODEL, "--since", "2013-03-04", "--until", "2013-03-05")[
        1
    ]
    of_files = commit.read_predictions(report["output"])
    of_table = commit.read_predictions(table["output"]).slice(0, of_files.num_rows)
    assert (code, report["rows"], report["shards"]) == (0, 900, 9)
    manifest = commit.read_manifest(report["output"])
    inputs = [manifest.facts["inputs"][shard.shard] for shard in manifest.shards]
    assert inputs[4] == {"file": str(folder / "part-1.parquet"), "first_row": 100}
    assert of_files["prediction"].equals(of_table["prediction"])
    assert of_files.column_names == [
        *("row", "scheduled_departure", "origin", "dest", "carrier", "tailnum", "prediction")
    ]


def test_after_a_file_has_changed_only_its_shards_are_scored(predict, folder):
    first = predict()[1]
    path = folder / "part-1.parquet"
    pq.write_table(pq.read_table(path).slice(0, 150), path, row_group_size=100)
    second = predict()[1]
    assert (second["revision"], second["rows"]) == (2, 750)
    assert (second["actual"]["kept_rows"], second["actual"]["scored_rows"]) == (600, 150)
    assert commit.read_predictions(first["output"], revision=1).num_rows == 900


def test_a_damaged_file_stops_the_run_or_is_left_out_by_name(predict, folder, capfd):
    path = folder / "part-2.parquet"
    path.write_bytes(path.read_bytes()[:-900])
    code, _ = predict()
    said = capfd.readouterr().err
    assert code == 1
    assert f"{path} cannot be used" in said
    assert "--bad-files skip" in said
    code, report = predict("--bad-files", "skip")
    assert (code, report["rows"], list(report["quarantined"])) == (0, 600, [str(path)])
    assert str(path) in commit.read_manifest(report["output"]).quarantined


def test_too_many_rejected_rows_commit_nothing_and_leave_what_was_committed(predict, folder, capfd):
    before = commit.read_manifest(predict()[1]["output"])
    path = folder / "part-0.parquet"
    rows = pq.read_table(path)
    far = pc.if_else(pc.equal(rows["carrier"], "UA"), 99_999.0, rows["distance_miles"])
    place = rows.schema.get_field_index("distance_miles")
    pq.write_table(rows.set_column(place, "distance_miles", far), path, row_group_size=100)
    capfd.readouterr()
    assert predict("--max-rejected", "1%")[0] == 1
    said = capfd.readouterr().err
    assert "more than --max-rejected 1%" in said
    assert "x distance_miles is above 6000" in said
    output = str(folder.parent / "out")
    assert commit.read_manifest(output) == before
    code, report = predict("--max-rejected", "500")
    rejected = commit.read_predictions(output, rejected=True)
    assert (code, report["predicted"] + report["rejected"]) == (0, 900)
    assert report["rejected"] == rejected.num_rows > 0
    assert set(rejected["file"].to_pylist()) == {str(path)}


def test_a_dry_run_and_a_small_budget_start_nothing(world, predict, tmp_path, monkeypatch, capfd):
    code, report = predict("--dry-run")
    assert (code, report["predicted"], report["estimate"]["rows"]) == (0, None, 900)
    here = tmp_path / "cwd"
    (here / "settings").mkdir(parents=True)
    (here / "settings" / "prices.toml").write_text("[worker_hour]\nlocal = 3600.0\n")
    monkeypatch.chdir(here)
    assert predict("--compute", "cluster", "--budget", "0.01")[0] == 2
    assert "the budget is 0.01 USD" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_shard_that_fails_is_told_and_the_next_run_does_only_what_is_left(
    predict, folder, tmp_path, monkeypatch, capfd
):
    from tasks.batch import steps

    score, seen = steps.score_watched, []

    def third_fails(settings, job, shard):
        seen.append(shard.id)
        if len(seen) == 3:
            raise ValueError("a worker without luck")
        return score(settings, job, shard)

    monkeypatch.setattr(steps, "score_watched", third_fails)
    with pytest.raises(ValueError, match="without luck"):
        predict("--compute", "here")
    output = str(tmp_path / "out")
    assert len(recorded_shards(output)) == 2
    assert commit.read_manifest(output) is None
    monkeypatch.setattr(steps, "score_watched", score)
    code, report = predict("--compute", "here")
    assert (code, report["actual"]["kept_rows"], report["rows"]) == (0, 200, 900)


def test_the_same_rows_have_the_same_bytes_online_and_in_batch(world, tmp_path):
    moment = datetime(2013, 3, 1, tzinfo=UTC)
    week = Window(since=moment, until=DAY.until)
    asked = sample.request_rows(world.settings, "flight_delay", week, rows=200)
    asked = [row | {"scheduled_departure": moment.isoformat()} for row in asked]
    answer = serving_check.ask_once(world.settings, "flight_delay", asked)
    columns = {name: [row[name] for row in asked] for name in asked[0]}
    columns["scheduled_departure"] = pa.array([moment] * 200, pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table(columns), tmp_path / "asked.parquet")
    code, report = world.report(
        "batch_predict",
        *(*MODEL, "--input", str(tmp_path / "asked.parquet"), "--features", "online"),
    )
    scored = commit.read_predictions(report["output"])
    assert code == 0
    assert scored["prediction"].to_pylist() == list(answer.predictions)


def test_rows_of_the_table_without_a_moment_are_told_of(world):
    path = world.settings.uri("offline", "flight_schedule.parquet")
    table = pq.read_table(path)
    some = pa.array([n % 10_000 == 0 for n in range(table.num_rows)])
    moment = pa.scalar(None, pa.timestamp("us", tz="UTC"))
    place = table.schema.get_field_index("scheduled_departure")
    moments = pc.if_else(some, moment, table["scheduled_departure"])
    pq.write_table(table.set_column(place, "scheduled_departure", moments), path)
    code, report = world.report("batch_predict", *MODEL, "--month", "2013-03", "--dry-run")
    assert (code, report["unplaced"]) == (0, pc.sum(some).as_py())


def test_days_are_filled_in_oldest_first_and_missed_ones_are_caught_up(world):
    days = ("--since", "2013-03-26", "--until", "2013-03-28")
    code, report = world.report("backfill", *MODEL, *days)
    assert code == 0
    assert list(report["windows"]) == ["2013-03-26..2013-03-27", "2013-03-27..2013-03-28"]
    assert all(told.startswith("scored") for told in report["windows"].values())
    again = world.report("backfill", *MODEL, *days)[1]
    assert set(again["windows"].values()) == {"committed before"}
    missed = world.report("backfill", *MODEL, "--missed", "--dry-run")[1]
    assert list(missed["windows"]) == [
        f"2013-03-{day}..2013-03-{day + 1}" for day in (28, 29, 30)
    ] + ["2013-03-31..2013-04-01"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "no rows are named"),
        (("--input", "x.parquet"), "no model is named"),
        ((*MODEL, "--input", "x.parquet", "--month", "2013-03"), "exclude each other"),
        ((*MODEL, "--bundle", "0" * 64, "--endpoint", "e"), "--bundle and --endpoint exclude"),
        ((*MODEL, "--input", "{}/*.parquet"), "there is no input at"),
        ((*MODEL, "--max-rejected", "some"), "write a share, 1% or 0.5%, or a count"),
        ((*MODEL, "--to", "mysql://host/table"), "mysql is not known"),
        ((*MODEL, "--keep", "colour"), "column 'colour' cannot be kept (--keep)"),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(world, tmp_path, capfd, flags, says):
    flags = [flag.format(tmp_path) for flag in flags]
    assert world.run("batch_predict", *flags) == 2
    assert says in capfd.readouterr().err
