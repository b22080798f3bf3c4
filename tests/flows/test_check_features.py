import json
from pathlib import Path

from headrace import storage
from monitoring.alerts import Alert


def test_what_is_found_is_reported_recorded_and_told_of(sample_home, world_of, monkeypatch):
    world = world_of(sample_home)
    monkeypatch.setenv("HEADRACE_ALERT_WEBHOOK", "http://127.0.0.1:9/nobody")
    code, report = world.report("check_features", "--at", "2013-03-01", "--past", "4")
    assert code == 3
    kinds = {(finding["kind"], finding["view"]) for finding in report["health"]["findings"]}
    assert {("not materialized", "weather"), ("not materialized", "planes")} <= kinds
    lines = storage.read_bytes(report["alerts"]["record"]).splitlines()
    assert len(lines) == len(report["health"]["findings"])
    assert Alert.model_validate_json(lines[0]).raised_by == "check-features"
    assert "cannot be reached" in report["alerts"]["webhook"]


def test_a_moment_that_is_none_is_wrong_usage(sample_home, world_of, capsys):
    assert world_of(sample_home).run("check_features", "--at", "soon") == 2
    assert "write data, now, or a day" in capsys.readouterr().err


def test_the_features_are_listed_and_an_unknown_one_is_wrong_usage(sample_home, world_of, capsys):
    world = world_of(sample_home)
    assert world.run("features", "list", "--json") == 0
    listing = json.loads(capsys.readouterr().out)
    assert {view["name"] for view in listing["views"]} >= {"weather", "planes"}
    assert world.run("features", "describe", "wether") == 2
    assert "did you mean 'weather'?" in capsys.readouterr().err
    assert world.run("features", "page") == 0
    assert Path(capsys.readouterr().out.strip()).exists()
