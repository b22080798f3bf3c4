"""Whatever a command is given: one clear error, the right exit code, nothing half-written."""

import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from headrace import bundle, release

MODEL = ("--model", "flight_delay")
OTHER = ("--model", "other")


def listing(world):
    """Every file of the storage folder with its size and the moment it was last changed.

    Without the notes of who runs and who writes: no reader looks at them.
    """
    storage = world.home / "storage"
    files = [path for path in storage.rglob("*") if path.is_file()]
    notes = {"running", "leases"}
    kept = [path for path in files if not notes & set(path.relative_to(storage).parts)]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in kept}


@dataclass
class Refusal:
    """A command that is refused as it must be."""

    world: object
    read: Callable[[], object]

    def __call__(self, code, says, flow, *arguments):
        before = listing(self.world)
        self.read()
        assert self.world.run(flow, *arguments) == code
        written = self.read()
        assert written.out == ""
        errors = [line for line in written.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, written.err
        for fragment in (says,) if isinstance(says, str) else says:
            assert fragment in errors[0]
        assert "Traceback" not in written.err
        assert listing(self.world) == before


@pytest.fixture
def refused(world, capfd):
    """Run a flow that must fail, and hold its exit code, its error and the storage folder."""
    return Refusal(world, capfd.readouterr)


@pytest.fixture
def write_model(tmp_path, monkeypatch):
    """Write ``models/other.py``: the flight model with some fields changed."""
    import models

    folder = tmp_path / "more_models"
    folder.mkdir()
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(folder)])

    def write(changes):
        (folder / "other.py").write_text(
            textwrap.dedent(
                f"""
                from headrace.spec import *
                from models.flight_delay import spec as flights

                spec = ModelSpec(**dict(flights) | dict(name="other", {changes}))
                """
            )
        )

    yield write
    sys.modules.pop("models.other", None)


@pytest.fixture
def edit_table(world):
    """Write a table of the offline store again, changed by a function."""

    def edit(name, change):
        path = Path(world.settings.uri("offline", f"{name}.parquet"))
        pq.write_table(change(pq.read_table(path)), path)

    return edit


def replace(table, column, values):
    return table.set_column(table.column_names.index(column), column, values)


# --- names ---------------------------------------------------------------------------------------

FLOWS_OF_A_MODEL = ["train", "deploy", "batch_predict", "check_drift", "retrain"]


@pytest.mark.parametrize("flow", FLOWS_OF_A_MODEL)
def test_an_unknown_model_is_named_with_the_nearest_one(refused, flow):
    says = "no model is named 'flight_dealy'; did you mean 'flight_delay'?"
    refused(2, says, flow, "--model", "flight_dealy")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            "feature_service='flight_delay_v9'",
            "no feature service is named 'flight_delay_v9'; did you mean 'flight_delay_v1'?",
        ),
        (
            "transforms=('flights.scheduled_hoor',)",
            "no transform in flights is named 'scheduled_hoor'; did you mean 'scheduled_hour'?",
        ),
        (
            "transforms=('fligths.scheduled_hour',)",
            "no transform module is named 'fligths'; did you mean 'flights'?",
        ),
        (
            "label=flights.label.model_copy(update={'table': 'flight_label'})",
            "no table is named 'flight_label'; did you mean 'flight_labels'?",
        ),
        (
            "label=flights.label.model_copy(update={'column': 'arrives_lat'})",
            ("flight_labels", "columns ['arrives_lat'] are missing; it has", "arrives_late"),
        ),
    ],
)
def test_a_name_in_a_spec_that_is_not_there_is_told_as_the_spec_writes_it(
    refused, write_model, changes, says
):
    write_model(changes)
    code = 1 if isinstance(says, tuple) else 2  # a table that does not fit is the data's fault
    refused(code, says, "train", *OTHER)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ("gates=()", ("model spec 'other' is refused", "gates")),
        ("inputs_from_request=('miles',)", "inputs_from_request names 'miles'"),
        ("task='multiclass'", ("model spec 'other' is refused", "'binary' or 'regression'")),
    ],
)
def test_a_spec_that_cannot_be_is_refused_before_anything_starts(
    refused, write_model, changes, says
):
    write_model(changes)
    refused(2, says, "train", *OTHER)


def test_a_model_file_that_is_no_python_is_named(refused, write_model):
    write_model("gates=(]")
    refused(2, ("models/other.py cannot be imported", "line 5"), "train", *OTHER)


def test_a_spec_without_its_feature_keys_is_refused(refused, write_model):
    write_model("label=flights.label.model_copy(update={'entity_keys': ('origin',)})")
    refused(2, ("model spec 'other' is refused", "label.entity_keys"), "train", *OTHER)


@pytest.mark.parametrize("flow", ["batch_predict", "check_drift"])
def test_an_endpoint_that_was_never_released_is_named(refused, flow):
    says = "no released endpoint is named 'flight_dealy'; did you mean 'flight_delay'?"
    refused(2, says, flow, *MODEL, "--endpoint", "flight_dealy")


def test_a_version_that_is_not_registered_is_named(refused):
    refused(2, "no version of flight_delay is named '7'. Known: 1.", "deploy", *MODEL,
            "--version", "7")  # fmt: skip


def test_a_model_that_was_never_registered_is_named(refused, write_model):
    write_model("")
    says = "no registered model is named 'other'. Known: flight_delay."
    refused(2, says, "deploy", *OTHER)


def test_a_release_that_somebody_else_has_moved_is_left_where_it_is(refused, world):
    found = release.require_release(world.settings.storage_uri, "flight_delay")
    move = {"by": "somebody", "reason": "first", "champion": "0" * 64}
    release.move_release(
        world.settings.storage_uri, "flight_delay", expected=found.revision, **move
    )
    says = "release of 'flight_delay' is no longer at revision 1"
    refused(1, says, "deploy", *MODEL, "--expected-revision", "1")


# --- tables --------------------------------------------------------------------------------------


def _only_on_time(table):
    return replace(table, "arrives_late", pa.array([False] * table.num_rows))


def _once_unknown(table):
    label = table["arrives_late"]
    first = pa.array(np.arange(table.num_rows) == 0)
    return replace(table, "arrives_late", pc.if_else(first, pa.scalar(None, label.type), label))


def _naive(column):
    return lambda table: replace(table, column, table[column].cast(pa.timestamp("us")))


def _text(column):
    return lambda table: replace(table, column, table[column].cast(pa.string()))


def _without(column):
    return lambda table: table.drop_columns([column])


def _no_rows(table):
    return table.slice(0, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without("arrives_late"), "columns ['arrives_late'] are missing; it has"),
        (_without("tailnum"), "columns ['tailnum'] are missing; it has"),
        (_text("arrives_late"), "label 'arrives_late' is string, not a number"),
        (_text("distance_miles"), "distance_miles is string, but must be float64"),
        (
            _naive("scheduled_departure"),
            "scheduled_departure is timestamp[us], but must be timestamp[us, tz=UTC]",
        ),
        (
            _naive("created_timestamp"),
            "created_timestamp is timestamp[us], but must be timestamp[us, tz=UTC]",
        ),
        (_no_rows, "it has no rows"),
        (_only_on_time, ("label 'arrives_late' is 0 in every row", "widen the window")),
        (_once_unknown, "label 'arrives_late' is null in 1 rows; drop them"),
    ],
)
def test_a_label_table_that_does_not_fit_is_told_by_its_column(refused, edit_table, change, says):
    edit_table("flight_labels", change)
    fragments = says if isinstance(says, tuple) else (says,)
    refused(1, ("flight_labels", *fragments), "train", *MODEL)


@pytest.mark.parametrize(
    ("flow", "change", "says"),
    [
        ("batch_predict", _without("carrier"), "join key carrier is missing; it has"),
        ("batch_predict", _text("distance_miles"), "distance_miles is string, but must be float64"),
        ("batch_predict", _naive("scheduled_departure"), "but must be timestamp[us, tz=UTC]"),
        ("batch_predict", _no_rows, "it has no rows"),
        ("check_drift", _text("distance_miles"), "distance_miles is string, but must be float64"),
    ],
)
def test_a_scoring_table_that_does_not_fit_is_told_by_its_column(
    refused, edit_table, flow, change, says
):
    edit_table("flight_schedule", change)
    refused(1, ("flight_schedule", says), flow, *MODEL)


def test_a_feature_table_that_does_not_fit_is_told_by_its_column(refused, edit_table):
    edit_table("weather", lambda table: _text(table.column_names[-1])(table))
    refused(1, ("weather", "is string, but must be"), "train", *MODEL)


@pytest.mark.parametrize(
    ("flow", "table"),
    [
        ("train", "flight_labels"),
        ("train", "weather"),
        ("batch_predict", "flight_schedule"),
        ("check_drift", "flight_schedule"),
        ("materialize", "weather"),
    ],
)
def test_a_parquet_file_cut_in_half_is_named(refused, world, flow, table):
    path = Path(world.settings.uri("offline", f"{table}.parquet"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(1, ("cannot read", f"{table}.parquet"), flow, *(MODEL * (flow != "materialize")))


@pytest.mark.parametrize(
    ("flow", "table"), [("train", "flight_labels"), ("batch_predict", "flight_schedule")]
)
def test_a_table_that_is_not_there_is_named(refused, world, flow, table):
    Path(world.settings.uri("offline", f"{table}.parquet")).unlink()
    refused(2, (f"no table is named {table!r}", "Tables lie in", "HEADRACE_STORAGE"), flow, *MODEL)


# --- dates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "arguments"),
    [
        ("train", ("--until", "2012-06-01")),
        ("train", ("--since", "2014-06-01")),
        ("retrain", ("--until", "2014-06-01")),
        ("batch_predict", ("--month", "2012-08")),
        ("batch_predict", ("--since", "2014-01-01", "--until", "2014-02-01")),
        ("check_drift", ("--month", "2014-08")),
    ],
)
def test_dates_outside_the_data_are_told_with_the_dates_there_are(refused, flow, arguments):
    says = ("has no rows from", "it reaches from 2013-01-01", "to 2013-03-31", "choose dates")
    refused(2, says, flow, *MODEL, *arguments)


@pytest.mark.parametrize(
    ("flow", "arguments"),
    [
        (
            "batch_predict",
            ("--month", "2013-03", "--since", "2013-03-01", "--until", "2013-03-05"),
        ),
        ("check_drift", ("--month", "2013-03", "--until", "2013-03-05")),
        ("batch_predict", ("--since", "2013-03-01")),
    ],
)
def test_half_a_window_or_two_at_once_is_refused(refused, flow, arguments):
    says = ("--month", "--since", "--until", "give a month, or both")
    refused(2, says, flow, *MODEL, *arguments)


@pytest.mark.parametrize("flow", ["train", "batch_predict"])
def test_a_window_that_ends_before_it_begins_is_refused(refused, flow):
    arguments = ("--since", "2013-03-05", "--until", "2013-02-01")
    refused(2, "until 2013-02-01 00:00 UTC is empty", flow, *MODEL, *arguments)


@pytest.mark.parametrize("flow", ["train", "retrain"])
def test_a_window_shorter_than_the_holdout_is_refused(refused, flow):
    arguments = ("--since", "2013-02-10", "--until", "2013-03-01")
    says = ("2013-02-10..2013-03-01", "a holdout of 31 days", "choose a longer window")
    refused(2, says, flow, *MODEL, *arguments)


# --- settings and places -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("HEADRACE_WORKERS", "many", ("HEADRACE_WORKERS = 'many' is refused", "valid integer")),
        ("HEADRACE_WORKERS", "0", ("HEADRACE_WORKERS = '0' is refused", "Dask worker processes")),
        ("HEADRACE_WORKER", "2", "no setting is named 'HEADRACE_WORKER'; did you mean"),
        ("HEADRACE_ENVIRONMENT", "prodcution", "HEADRACE_ENVIRONMENT = 'prodcution' is refused"),
        ("HEADRACE_ENVIRONMENT", "../etc", "environment name '../etc' is refused"),
        (
            "HEADRACE_WORKER_MEMORY",
            "plenty",
            ("HEADRACE_WORKER_MEMORY = 'plenty' is refused", "2GiB"),
        ),
    ],
)
def test_a_setting_with_a_wrong_name_or_value_is_told(refused, monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)
    refused(2, says, "batch_predict", *MODEL)


@pytest.mark.parametrize("flow", ["train", "batch_predict"])
def test_a_storage_folder_below_a_file_is_named(refused, tmp_path, monkeypatch, flow):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HEADRACE_STORAGE", str(tmp_path / "file" / "storage"))
    refused(1, ("cannot ", "file/storage/", "Not a directory"), flow, *MODEL)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("flow", ["train", "deploy"])
def test_a_registry_that_is_no_database_is_named(refused, world, flow):
    path = world.home / "registry.db"
    path.write_bytes(b"this is no database " * 200)
    says = ("registry.db", "not a database", "HEADRACE_REGISTRY")
    refused(1, says, flow, *MODEL)
    assert path.read_bytes() == b"this is no database " * 200


def test_an_online_store_that_is_no_database_is_named(refused, world):
    world.settings.online_path.write_bytes(b"this is no database " * 200)
    refused(1, ("online.db", "not a database", "move it away"), "materialize")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("tcp://127.0.0.1:1", "no Dask scheduler answers at 'tcp://127.0.0.1:1'"),
        ("lokal", ("HEADRACE_CLUSTER", "'lokal'", "tcp://")),
    ],
)
def test_a_cluster_that_does_not_answer_is_named(refused, monkeypatch, address, says):
    from tasks.clusters.dask_settings import DASK_SETTINGS

    monkeypatch.setitem(DASK_SETTINGS, "distributed.comm.timeouts.connect", "1s")
    monkeypatch.setenv("HEADRACE_CLUSTER", address)
    refused(1 if "tcp" in address else 2, says, "batch_predict", *MODEL)


# --- bundles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "name"),
    [
        ("deploy", bundle.MANIFEST),
        ("deploy", bundle.CARD),
        ("batch_predict", bundle.model_file("xgboost")),
        ("batch_predict", bundle.GOLDEN),
        ("check_drift", bundle.REFERENCE),
    ],
)
def test_a_bundle_with_one_byte_changed_is_refused(refused, world, flow, name):
    digest = release.require_release(world.settings.storage_uri, "flight_delay").champion
    path = Path(world.settings.uri("bundles", digest, name))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    says = (f"bundle {digest[:12]} is refused: {name} was changed", "Restore it from a good copy")
    refused(1, says, flow, *MODEL)


def test_a_bundle_that_is_gone_is_refused(refused, world):
    digest = release.require_release(world.settings.storage_uri, "flight_delay").champion
    shutil.rmtree(world.settings.uri("bundles", digest))
    refused(1, f"bundle {digest[:12]} is refused: bundle.json is missing", "deploy", *MODEL)


def test_a_training_set_that_is_gone_is_named_by_the_drift_report(refused, world):
    (found,) = Path(world.settings.uri("training_sets")).glob("*.parquet")
    found.unlink()
    refused(1, (found.name, "--report false"), "check_drift", *MODEL)


def test_a_champion_that_saw_the_holdout_is_not_compared(world, capfd):
    since = datetime(2013, 1, 1, tzinfo=UTC)
    until = since + timedelta(days=50)
    arguments = ("--until", f"{until:%Y-%m-%d}")
    before = release.history(world.settings.storage_uri, "flight_delay")
    assert world.run("retrain", *MODEL, *arguments) == 2
    written = capfd.readouterr()
    assert "error: model spec 'flight_delay' is refused: the champion was trained" in written.err
    assert "Traceback" not in written.err
    assert release.history(world.settings.storage_uri, "flight_delay") == before


def test_rows_that_cannot_be_scored_are_kept_with_their_reason(world, edit_table, capfd):
    def some_too_far(table):
        far = pc.if_else(pc.equal(table["carrier"], "HA"), 99_999.0, table["distance_miles"])
        return replace(table, "distance_miles", far)

    edit_table("flight_schedule", some_too_far)
    assert world.run("batch_predict", *MODEL, "--month", "2013-03", "--json") == 0
    assert '"rejected": 31' in capfd.readouterr().out
