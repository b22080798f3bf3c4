import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import storage
from headrace.errors import NameRefused, StorageFailed
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead
from headrace.spec import RequestField
from monitoring.inference_log import InferenceLog, Inferences, read_log

NOON = datetime(2013, 8, 1, 12, 0, tzinfo=UTC)
STATUS_NAMES = ("present", "never_seen")
PLAN = FeaturePlan(
    project="headrace",
    feature_service="flight_delay",
    definitions_sha256="0" * 64,
    event_timestamp="scheduled_departure",
    views=(
        ViewRead(
            view="weather",
            table="weather",
            join_keys=(JoinKey(name="origin"), JoinKey(name="gate", dtype="INT64")),
            event_timestamp="event_timestamp",
            created_timestamp="created_timestamp",
            ttl_seconds=None,
            features=(FeatureRead(name="wind", dtype="DOUBLE"),),
        ),
    ),
    request=(
        RequestField(name="scheduled_departure", dtype="timestamp", description="when"),
        RequestField(name="distance", description="miles"),
        RequestField(name="seats", dtype="int64", description="seats"),
    ),
    inputs_from_request=("distance",),
    transforms=(),
)


def inference(request_id="a", rows=2, at=NOON, **changes):
    clock = at.timestamp() - 100.0  # the server's own clock says 100
    return Inferences(
        **{
            "endpoint": "flight_delay",
            "request_ids": [request_id],
            "counts": [rows],
            "received_at": [100.0],
            "clock": clock,
            "answered_at": 100.002,
            "edges": ["plain"],
            "digest": "d" * 64,
            "revision": 1,
            "plan": PLAN,
            "matrix": np.array([[3.5, 100.25]] * rows, np.float32),
            "predictions": np.linspace(0.25, 0.5, rows, dtype=np.float32),
            "keys": {"origin": ["JFK"] * rows, "gate": [None] * rows},
            "request": {
                "scheduled_departure": np.array(["2013-08-01T13:00"] * rows, "datetime64[us]"),
                "distance": np.array([100.25] * rows),
                "seats": np.array([7.0] * rows),
            },
            "event_times": {"weather": np.array(["2013-08-01T11:00", "NaT"], "datetime64[us]")},
            "statuses": {"weather": np.array([0, 1], np.uint8)},
        }
        | changes
    )


def raw(request_id="r", rows=3, at=NOON):
    """A request of raw features: no keys, no request fields, no reads."""
    matrix = np.ones((rows, 2), np.float32)
    return inference(
        request_id, rows, at, matrix=matrix, keys={}, request={}, event_times={}, statuses={}
    )


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "storage")


def open_log(root, **options):
    return InferenceLog(root, status_names=STATUS_NAMES, **{"flush_seconds": 60} | options)


def read(root, since=NOON - timedelta(hours=1), until=NOON + timedelta(hours=2)):
    return read_log(root, "flight_delay", since=since, until=until)


def test_what_was_recorded_is_read_back(root):
    log = open_log(root)
    log.record(inference())
    log.close()
    first, second = read(root).to_pylist()
    assert first == {
        "request_id": "a",
        "row": 0,
        "received_at": NOON,
        "endpoint": "flight_delay",
        "edge": "plain",
        "digest": "d" * 64,
        "revision": 1,
        "latency_seconds": pytest.approx(0.002),
        "prediction": 0.25,
        "origin": "JFK",
        "gate": None,
        "scheduled_departure": datetime(2013, 8, 1, 13, tzinfo=UTC),
        "distance": 100.25,
        "seats": 7,
        "weather__wind": 3.5,
        "event_time__weather": datetime(2013, 8, 1, 11, tzinfo=UTC),
        "status__weather": "present",
    }
    assert (second["row"], second["prediction"]) == (1, 0.5)
    assert (second["event_time__weather"], second["status__weather"]) == (None, "never_seen")


def test_model_inputs_are_float32_and_times_are_utc(root):
    log = open_log(root)
    log.record(inference())
    log.close()
    schema = read(root).schema
    assert schema.field("weather__wind").type == schema.field("distance").type == pa.float32()
    assert schema.field("event_time__weather").type == pa.timestamp("us", tz="UTC")
    assert schema.field("gate").type == schema.field("seats").type == pa.int64()


def test_what_a_raw_request_did_not_carry_is_null(root):
    log = open_log(root)
    log.record(inference())
    log.record(raw())
    log.close()
    rows = [row for row in read(root).to_pylist() if row["request_id"] == "r"]
    assert len(rows) == 3
    absent = ("origin", "scheduled_departure", "seats", "event_time__weather", "status__weather")
    assert all(row[name] is None for row in rows for name in absent)
    assert rows[0]["distance"] == 1.0


def test_each_hour_has_its_folder_and_each_bundle_its_file(root):
    log = open_log(root)
    log.record(inference("a"))
    log.record(inference("b", digest="e" * 64))
    log.record(inference("c", at=NOON + timedelta(hours=1)))
    log.close()
    folder = Path(root, "inference_log", "flight_delay")
    found = {p.name: len(list(p.glob("part-*.parquet"))) for p in folder.iterdir()}
    assert found == {"2013-08-01T12": 2, "2013-08-01T13": 1}


def test_a_window_holds_its_first_moment_and_not_its_last(root):
    log = open_log(root)
    for minute in range(0, 120, 20):
        log.record(inference(f"m{minute:03}", at=NOON + timedelta(minutes=minute)))
    log.close()
    window = read(root, NOON + timedelta(minutes=20), NOON + timedelta(minutes=80))
    assert window["request_id"].unique().to_pylist() == ["m020", "m040", "m060"]


def test_models_of_other_columns_share_the_log(root):
    other = PLAN.model_copy(update={"views": (), "request": (), "inputs_from_request": ()})
    view = PLAN.views[0].model_copy(update={"view": "wind"})
    other = other.model_copy(update={"views": (view,)})
    log = open_log(root)
    log.record(inference("a"))
    log.record(raw("b", 1))
    matrix = np.ones((1, 1), np.float32)
    log.record(
        inference("c", 1, digest="e" * 64, plan=other, matrix=matrix, event_times={}, statuses={})
    )
    log.close()
    table = read(root)
    assert table["request_id"].to_pylist() == ["a", "a", "b", "c"]
    assert table["wind__wind"].to_pylist() == [None, None, None, 1.0]


def test_an_endpoint_without_a_log_has_no_rows_but_columns(root):
    table = read(root)
    assert table.num_rows == 0
    assert table.schema.field("prediction").type == pa.float32()


def test_rows_are_written_as_soon_as_enough_wait(root):
    log = open_log(root, flush_rows=4)
    log.record(inference("a"))
    log.record(inference("b"))
    wait_until(lambda: log.written_rows == 4)
    log.close()
    assert log.written_rows == read(root).num_rows == 4


def test_rows_are_written_after_a_time_even_if_few_wait(root):
    log = open_log(root, flush_seconds=0.05)
    log.record(inference("a"))
    wait_until(lambda: log.written_rows == 2)
    assert read(root).num_rows == 2
    log.close()


def test_what_does_not_fit_is_dropped_and_counted(root):
    log = open_log(root, capacity_rows=5)
    kept = [log.record(inference(name)) for name in "abc"]
    log.close()
    assert kept == [True, True, False]
    assert (log.dropped_rows, log.written_rows, read(root).num_rows) == (2, 4, 4)


def test_every_row_is_written_or_counted_under_many_threads(root):
    log = open_log(root, flush_rows=20, capacity_rows=60, flush_seconds=0.01)

    def record(number):
        for i in range(50):
            log.record(inference(f"{number}-{i}"))

    threads = [threading.Thread(target=record, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert log.written_rows + log.dropped_rows == 400
    assert read(root).num_rows == log.written_rows


def test_a_closed_log_counts_what_still_comes_and_closes_twice(root):
    log = open_log(root)
    log.close()
    log.close()
    assert not log.record(inference())
    assert log.dropped_rows == 2


def test_a_place_that_cannot_be_written_is_tried_again_and_nothing_is_lost(root):
    Path(root).mkdir()
    in_the_way = Path(root, "inference_log")
    in_the_way.write_text("a file where the folder should be")
    log = open_log(root, flush_seconds=0.02)
    log.record(inference())
    wait_until(lambda: log.failed_writes > 1)
    in_the_way.unlink()
    wait_until(lambda: log.written_rows == 2)
    log.close()
    assert (log.dropped_rows, read(root).num_rows) == (0, 2)


def test_what_cannot_be_written_by_the_end_is_counted(root):
    Path(root).mkdir()
    Path(root, "inference_log").write_text("in the way")
    log = open_log(root)
    log.record(inference())
    log.close()
    assert (log.dropped_rows, log.written_rows) == (2, 0)


def test_a_damaged_file_is_named(root):
    log = open_log(root)
    log.record(inference())
    log.close()
    (part,) = Path(root).rglob("part-*.parquet")
    data = bytearray(part.read_bytes())
    data[40] ^= 0xFF
    part.write_bytes(data)
    with pytest.raises(StorageFailed, match=part.name):
        read(root)


def test_half_a_file_is_never_seen(root, monkeypatch):
    seen = []
    original = storage.write_atomic
    monkeypatch.setattr(
        storage, "write_atomic", lambda uri, data: (seen.append(data), original(uri, data))
    )
    log = open_log(root)
    log.record(inference())
    log.close()
    assert pq.read_table(pa.BufferReader(seen[0])).num_rows == 2


def test_an_endpoint_that_is_no_name_is_refused(root):
    log = open_log(root)
    with pytest.raises(NameRefused):
        log.record(inference(endpoint="../etc"))
    log.close()


def batch(requests=5, rows=2, **changes):
    """One batch of several requests; each row's miles are its number in the batch."""
    every = requests * rows
    matrix = np.column_stack([np.full(every, 3.5), np.arange(every)]).astype(np.float32)
    return inference(
        **{
            "request_ids": [f"r{n}" for n in range(requests)],
            "edges": ["v2"] * requests,
            "counts": [rows] * requests,
            "received_at": [100.0 + n / 1000 for n in range(requests)],
            "matrix": matrix,
            "predictions": np.arange(every, dtype=np.float32),
            "keys": {},
            "request": {},
            "event_times": {},
            "statuses": {},
        }
        | changes
    )


def test_the_requests_of_a_batch_keep_their_rows_arrival_and_latency(root):
    log = open_log(root)
    log.record(batch())
    log.close()
    table = read(root)
    assert table["request_id"].to_pylist() == [f"r{n}" for n in range(5) for _ in range(2)]
    assert table["row"].to_pylist() == [0, 1] * 5
    assert table["prediction"].to_pylist() == table["distance"].to_pylist() == list(range(10))
    assert table["received_at"][9].as_py() == NOON + timedelta(milliseconds=4)
    seconds = table["latency_seconds"].to_pylist()
    assert seconds == pytest.approx([0.002 - n / 1000 for n in range(5) for _ in range(2)])


def test_only_wanted_rows_are_written_under_their_own_numbers(root):
    log = open_log(root)
    numbers = np.array([0, 1, 3, 4, 0, 1, 0, 1, 0, 1])
    log.record(batch(wanted=np.array([0, 2, 9]), row_numbers=numbers))
    log.close()
    table = read(root)
    assert log.written_rows == table.num_rows == 3
    columns = [table[name].to_pylist() for name in ("request_id", "row", "prediction")]
    assert list(zip(*columns, strict=True)) == [("r0", 0, 0.0), ("r1", 3, 2.0), ("r4", 1, 9.0)]


def test_a_batch_over_the_turn_of_an_hour_is_written_to_both(root):
    log = open_log(root)
    log.record(batch(at=NOON + timedelta(minutes=59, seconds=59.998)))
    log.close()
    folder = Path(root, "inference_log", "flight_delay")
    assert sorted(path.name for path in folder.iterdir()) == ["2013-08-01T12", "2013-08-01T13"]
    late = read(root, since=NOON + timedelta(hours=1))
    assert late["request_id"].to_pylist() == ["r2", "r2", "r3", "r3", "r4", "r4"]
    assert log.written_rows == read(root).num_rows == 10


def test_memory_is_bounded_by_bytes_too(root):
    log = open_log(root, capacity_bytes=3 * batch().bytes)
    assert [log.record(batch()) for _ in range(4)] == [True, True, True, False]
    log.close()
    assert dict(log.dropped) == {"bytes": 10, "unwritten": 0}


def test_a_share_of_requests_is_written_whole_and_the_rest_counted(root):
    log = open_log(root, share=0.25)
    for _ in range(100):
        log.record(batch())
    log.close()
    counted = read(root)["request_id"].value_counts().to_pylist()
    assert all(one["counts"] % 2 == 0 for one in counted)
    assert log.written_rows + log.skipped_rows == 1_000
    assert 150 < log.written_rows < 350  # 250 expected, 5 standard deviations


def test_rows_that_do_not_fit_the_columns_are_counted_and_stop_nothing(root, caplog):
    log = open_log(root)
    log.record(inference("a", keys={"origin": ["JFK", 3], "gate": [None, None]}))
    log.record(inference("b", digest="e" * 64))
    log.close()
    assert (dict(log.dropped)["broken"], log.written_rows) == (2, 2)
    assert "2 rows of flight_delay" in caplog.text
    assert set(read(root)["request_id"].to_pylist()) == {"b"}


def wait_until(holds, seconds=5.0):
    waited = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if holds():
            return
        waited.wait(0.01)
    raise AssertionError("it did not happen in time")
