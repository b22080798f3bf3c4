"""The flows as their users run them, on three months of flights; and the demo, on the year."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from featurestore.join.training_set import feature_matrix
from headrace import bundle, release
from headrace.window import Window
from monitoring.profile import Profile
from registry.models import ModelRegistry
from serving.predictor import load_predictor
from tasks import sample, serving_check
from tasks.batch import commit
from tasks.scoring_table import scoring_rows

pytestmark = pytest.mark.slow

MODEL = "flight_delay"
MARCH = datetime(2013, 3, 1, tzinfo=UTC)
WEEK = Window(since=MARCH, until=datetime(2013, 3, 8, tzinfo=UTC))
WEEK_FLAGS = ("--since", "2013-03-01", "--until", "2013-03-08")


def rows_of(world, window):
    return scoring_rows(world.settings, MODEL, window)


def champion(world):
    digest = release.require_release(world.settings.storage_uri, MODEL).champion
    return load_predictor(world.settings.uri("bundles"), digest)


def predictions_of(world, rows):
    """What the champion predicts for rows that are in memory, by the join that training uses."""
    predictor = champion(world)
    offline = world.settings.uri("offline")
    return predictor.predict(feature_matrix(rows, predictor.plan, offline, digest=predictor.digest))


def test_a_week_is_scored_whole_in_order_and_as_the_bundle_predicts(world):
    code, report = world.report("batch_predict", "--model", MODEL, *WEEK_FLAGS)
    rows = rows_of(world, WEEK)
    scored = commit.read_predictions(report["output"])
    keys = ["scheduled_departure", "origin", "dest", "carrier", "tailnum"]
    assert code == 0
    assert report["rows"] == rows.num_rows == report["predicted"] + report["rejected"]
    assert scored.select(keys).equals(rows.select(keys))
    assert scored["prediction"].to_numpy().tobytes() == predictions_of(world, rows).tobytes()


def test_a_second_run_does_nothing_and_other_options_make_another_revision(world):
    first = world.report("batch_predict", "--model", MODEL, *WEEK_FLAGS)[1]
    again = world.report("batch_predict", "--model", MODEL, *WEEK_FLAGS)[1]
    more = world.report("batch_predict", "--model", MODEL, *WEEK_FLAGS, "--keep", "all")[1]
    nothing = {"was_done": True, "estimate": None, "actual": None}
    assert again == first | nothing
    assert (first["revision"], more["revision"]) == (1, 2)
    assert commit.read_predictions(first["output"], revision=1)["prediction"].equals(
        commit.read_predictions(more["output"])["prediction"]
    )


def test_the_server_answers_what_batch_predicts_for_the_same_moment(world):
    asked = [
        row | {"scheduled_departure": MARCH.isoformat()}
        for row in sample.request_rows(world.settings, MODEL, WEEK, rows=200)
    ]
    answer = serving_check.ask_once(world.settings, MODEL, asked)
    at_once = rows_of(world, WEEK).slice(0, 200)
    moment = pa.array([MARCH] * 200, pa.timestamp("us", "UTC"))
    position = at_once.column_names.index("scheduled_departure")
    at_once = at_once.set_column(position, "scheduled_departure", moment)
    assert list(answer.predictions) == predictions_of(world, at_once).tolist()


def test_what_the_server_logged_can_be_checked_for_drift(world):
    asked = sample.request_rows(world.settings, MODEL, WEEK, rows=300)
    serving_check.ask_once(world.settings, MODEL, asked)
    code, report = world.report("check_drift", "--model", MODEL, "--source", "log", "--no-report")
    assert code in (0, 3)
    assert {column["current_rows"] for column in report["drift"]["columns"]} == {300}


def test_training_twice_on_the_same_data_is_one_bundle_and_one_version(world):
    before = ModelRegistry(world.settings.registry_uri).versions(MODEL)
    code, report = world.report("train", "--model", MODEL, "--until", "2013-03-01")
    assert code == 0
    assert [version.digest for version in before] == [report["digest"]]
    assert ModelRegistry(world.settings.registry_uri).versions(MODEL) == before


def test_nothing_newer_to_learn_from_keeps_the_champion(world):
    code, report = world.report("retrain", "--model", MODEL, "--until", "2013-03-01")
    assert code == 3
    assert report["reason"] == "it is the champion: there was nothing newer"
    assert [r.revision for r in release.history(world.settings.storage_uri, MODEL)] == [1]


def test_a_challenger_on_newer_data_is_compared_and_the_reason_is_kept(world):
    code, report = world.report("retrain", "--model", MODEL, "--until", "2013-04-01")
    registry = ModelRegistry(world.settings.registry_uri)
    (decision,) = registry.decisions(MODEL)
    assert code == (0 if report["promoted"] else 3)
    assert report["comparison"]["rows"] > 20_000
    assert decision.reason == report["reason"]
    assert registry.version_by_alias(MODEL, "challenger").version == report["challenger"] == 2
    runs = release.require_release(world.settings.storage_uri, MODEL).champion
    version = registry.version_by_alias(MODEL, "champion")
    assert version.digest == runs
    assert version.version == (2 if report["promoted"] else 1)


def test_a_first_model_becomes_champion_without_an_opponent(bare_world):
    assert bare_world.run("materialize", "--until", "2013-03-01") == 0
    code, report = bare_world.report("retrain", "--model", MODEL, "--until", "2013-03-01")
    assert (code, report["promoted"], report["revision"]) == (0, True, 1)
    assert report["reason"] == "there is no champion yet"


def test_deploying_again_moves_nothing_and_an_older_version_rolls_back(world):
    assert world.report("deploy", "--model", MODEL)[1]["moved"] is False
    world.run("train", "--model", MODEL, "--until", "2013-02-20")
    newer = world.report("deploy", "--model", MODEL)[1]
    back = world.report("deploy", "--model", MODEL, "--version", "1", "--reason", "back")[1]
    assert [newer["version"], newer["revision"]] == [2, 2]
    assert [back["version"], back["revision"]] == [1, 3]
    history = release.history(world.settings.storage_uri, MODEL)
    assert history[0].champion == history[2].champion != history[1].champion
    assert history[2].reason == "back"


def test_a_bundle_tells_where_it_comes_from_and_holds_no_code(world):
    found = champion(world).bundle
    lineage = found.manifest.lineage
    assert set(found.files) == set(bundle.file_names("xgboost"))
    assert lineage.trained_until < lineage.tested_until == MARCH
    assert lineage.training_rows > 20_000
    assert found.golden.num_rows == 64
    assert "prediction" in Profile.from_bytes(found.files[bundle.REFERENCE]).columns
    assert found.files[bundle.CARD].decode().startswith("#")


def test_the_demo_makes_every_part_of_the_loop(demo_home):
    report = json.loads((demo_home / "report.json").read_text())
    trained, scored = report["trained"], report["scored"]
    assert report["rows"] > 1_000_000
    assert trained["training_set"]["train"]["until"].startswith("2013-07-01")
    assert trained["scorecard"]["metrics"]["roc_auc"] >= 0.78
    assert len(report["answer"]["predictions"]) == 3
    assert scored["predicted"] + scored["rejected"] == scored["rows"] == 29_381
    assert len(report["drift"]["drift"]["columns"]) > 30
    assert report["retrained"]["comparison"]["rows"] > 25_000
    html = (demo_home / "storage" / report["drift"]["report"].split("/storage/")[1]).read_text()
    assert "<html" in html
