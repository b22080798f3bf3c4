import json
import subprocess
import sys

import pytest
from prefect import flow
from pydantic import Field

from flows import _command
from flows._command import Day, FlowConfig, FlowReport, ModelName, Month
from headrace.errors import ExitCode, UnknownName


class Config(FlowConfig):
    model: ModelName = Field(description="a model spec")
    month: Month | None = Field(None, description="a month")
    until: Day | None = Field(None, description="a day")
    rows: int = Field(3, ge=1, description="how many rows")


class Report(FlowReport):
    model: str
    rows: int

    def lines(self):
        return [("model", self.model), ("rows", str(self.rows))]

    @property
    def exit_code(self):
        return ExitCode.FINDING if self.rows > 5 else ExitCode.DONE


@flow(name="count-rows")
def count_rows(config: Config) -> Report:
    """Count rows."""
    if config.rows == 4:
        raise UnknownName("table", "flihgts", ["flights"])
    return Report(model=config.model, rows=config.rows)


def run(*argv):
    return _command.run(count_rows, Config, list(argv))


def test_the_report_is_a_table_on_stdout(prefect_api, capsys):
    assert run("--model", "flight_delay") == 0
    out = capsys.readouterr().out
    assert out == "model  flight_delay\nrows   3\n"


def test_json_is_one_object_on_stdout(prefect_api, capsys):
    assert run("--model", "flight_delay", "--rows", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"model": "flight_delay", "rows": 2}


def test_a_finding_has_its_own_exit_code(prefect_api):
    assert run("--model", "flight_delay", "--rows", "6") == 3


def test_a_known_error_is_one_sentence_without_a_traceback(prefect_api, capfd):
    assert run("--model", "flight_delay", "--rows", "4") == 2
    written = capfd.readouterr()
    assert written.out == ""
    assert "error: no table is named 'flihgts'; did you mean 'flights'?" in written.err
    assert "Traceback" not in written.err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--model", "flight_dealy"], "no model is named 'flight_dealy'; did you mean"),
        (["--model", "../etc"], "model name '../etc' is refused"),
        (["--model", "flight_delay", "--rows", "none"], "--rows: Input should be a valid integer"),
        (["--model", "flight_delay", "--rows", "0"], "greater than or equal to 1 (given: '0')"),
        (["--model", "flight_delay", "--month", "August"], "'August' is not a month; write it as"),
        (["--model", "flight_delay", "--until", "2013-02-30"], "--until: "),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(argv, sentence, capsys):
    assert run(*argv) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "named"),
    [([], "--model"), (["--model", "flight_delay", "--colour", "red"], "--colour")],
)
def test_a_missing_and_an_unknown_flag_are_named(argv, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*argv)
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err


def test_a_wrong_setting_is_told_before_anything_starts(monkeypatch, capsys):
    monkeypatch.setenv("HEADRACE_WORKERS", "many")
    assert run("--model", "flight_delay") == 2
    assert "HEADRACE_WORKERS = 'many'" in capsys.readouterr().err


FLOWS = ["materialize", "train", "deploy", "batch_predict", "check_drift", "retrain", "quickstart"]
HEAVY = {"feast", "evidently", "mlflow", "xgboost", "torch", "dask", "distributed", "sklearn"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_help_tells_every_parameter_and_imports_nothing_heavy(name):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['flows.{name}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('flows.{name}', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        f"    print('HEAVY', sorted({HEAVY!r} & set(sys.modules)), stop.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "HEAVY [] 0" in done.stdout
    assert f"usage: python -m flows.{name}" in done.stdout
    assert "exit codes: 0 done, 1 failed, 2 wrong usage, 3" in " ".join(done.stdout.split())
