import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import RowsLost
from featurestore.join.by_entity import join_share, put_together, share_jobs
from featurestore.join.certificate import Certificate
from featurestore.join.historical import historical_features
from featurestore.join.out_of_core import write_historical_features
from featurestore.join.verify import verify
from headrace.errors import SchemaMismatch
from headrace.plan import JoinKey


@pytest.fixture
def views(read):
    return (
        read(),
        read(view="ever", table="ever", ttl_minutes=None),
        read(view="gates", table="gates", keys=[JoinKey(name="origin"), JoinKey(name="gate")]),
    )


@pytest.fixture
def offline(tmp_path, values, put_table):
    rows = [("JFK", 30 * n, 30 * n + 5 * (n % 3), float(n)) for n in range(20)]
    put_table(str(tmp_path), "hourly", values(*rows, ("EWR", 900, 900, 7.0)))
    put_table(str(tmp_path), "ever", values(("JFK", 0, 0, -1.0), ("LGA", 900, 900, -2.0)))
    gates = values(("JFK", 100, 100, 1.0), ("LGA", 200, 290, 2.0), (None, 0, 0, 3.0))
    gates = gates.append_column("gate", pa.array(["a", "b", "c"]))
    put_table(str(tmp_path), "gates", gates)
    return str(tmp_path)


@pytest.fixture
def rows(asked):
    names = ["JFK", "LGA", "EWR", None, "JFK", "BOS"]
    table = asked(*[(names[n % 6], (37 * n) % 700) for n in range(60)])
    gates = pa.array(["ab"[n % 2] for n in range(60)])
    return table.append_column("gate", gates).append_column("note", pa.array(range(60)))


def test_a_table_comes_out_with_a_row_for_each_row_and_its_certificate(views, offline, rows):
    made = historical_features(rows, views, offline, timestamp="at", explain=True)
    assert made.table.select(rows.column_names).equals(rows)
    assert made.table.column_names[4:7] == [
        "hourly__x", "hourly__event_timestamp", "hourly__null_reason",
    ]  # fmt: skip
    assert made.certificate.rows_in == made.certificate.rows_out == 60
    for view in made.certificate.views:
        assert sum(view.reasons.values()) == 60
        missing = 60 - view.reasons["PRESENT"]
        assert view.null_counts == {f"{view.read.view}__x": missing}
        assert made.table[f"{view.read.view}__null_reason"].null_count == 60 - missing


def test_reasons_are_exact_though_only_the_time_in_reach_is_read(read, offline, asked):
    rows = asked(("JFK", 1200), ("EWR", 800), ("LGA", 800), (None, 800), ("JFK", 800))
    made = historical_features(rows, [read()], offline, timestamp="at", explain=True)
    reasons = made.table["hourly__null_reason"].to_pylist()
    assert reasons == ["EXPIRED", "FUTURE", "NEVER_SEEN", "NULL_KEY", "EXPIRED"]
    early = historical_features(asked(("JFK", 32)), [read()], offline, timestamp="at")
    assert early.certificate.views[0].reasons["PRESENT"] == 1  # at 30 only the value of 0 is known


def test_of_a_value_out_of_reach_and_written_late_it_is_said(
    read, tmp_path, values, put_table, asked
):
    put_table(str(tmp_path), "hourly", values(("JFK", 0, 900, 1.0)))
    made = historical_features(asked(("JFK", 500)), [read()], str(tmp_path), timestamp="at")
    assert made.certificate.views[0].reasons["WRITTEN_LATE"] == 1


def test_the_same_inputs_have_the_same_certificate(views, offline, rows):
    one = historical_features(rows, views, offline, timestamp="at").certificate
    pieces = pa.concat_tables([rows.slice(0, 7), rows.slice(7)])
    other = historical_features(pieces, views, offline, timestamp="at").certificate
    assert one.to_bytes() == other.to_bytes()
    assert Certificate.model_validate_json(one.to_bytes()) == one


def test_verify_says_what_differs(views, offline, rows, values, put_table):
    made = historical_features(rows, views, offline, timestamp="at")
    kept = Certificate.model_validate_json(made.certificate.to_bytes())
    assert verify(kept, table=made.table, labels=rows, offline_uri=offline) == ()
    changed = made.table.set_column(2, "gate", pa.array(["z"] * 60))
    put_table(offline, "ever", values(("JFK", 0, 0, -1.5), ("LGA", 900, 900, -2.0)))
    told = verify(kept, table=changed, labels=rows.slice(1), offline_uri=offline)
    assert told == (
        "the table's values or columns are not those that came out of the join",
        "there are 59 label rows, not 60",
        "the label rows are not those that went in",
        "table ever has other values in reach",
    )
    put_table(offline, "ever", values(("JFK", 0, 0, -1.0), ("LGA", 1, 1, 0.0)))
    assert verify(kept, offline_uri=offline) == ("table ever has 2 rows in reach, not 1",)


def test_chunks_and_shares_give_the_same_bytes(views, offline, rows, tmp_path):
    pq.write_table(rows, tmp_path / "rows.parquet", row_group_size=11)
    asked = (str(tmp_path / "rows.parquet"), views, offline)
    whole = historical_features(rows, views, offline, timestamp="at")
    streamed = write_historical_features(
        *asked, str(tmp_path / "a.parquet"), timestamp="at", chunk_rows=8
    )
    jobs = share_jobs(*asked, str(tmp_path / "work"), timestamp="at", shares=3, chunk_rows=8)
    sources = [join_share(job) for job in reversed(jobs)][::-1]
    dealt = put_together(jobs, sources, str(tmp_path / "b.parquet"))
    assert whole.certificate == streamed == dealt
    assert pq.read_table(tmp_path / "a.parquet").equals(whole.table)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_rows_that_change_between_the_jobs_are_found_out(views, offline, rows, tmp_path):
    pq.write_table(rows, tmp_path / "rows.parquet")
    asked = (str(tmp_path / "rows.parquet"), views[:1], offline, str(tmp_path / "work"))
    jobs = share_jobs(*asked, timestamp="at", shares=2)
    sources = [join_share(job) for job in jobs]
    pq.write_table(pa.concat_tables([rows, rows]), tmp_path / "rows.parquet")
    with pytest.raises(RowsLost, match="have 60 rows for the 120 from 0 on"):
        put_together(jobs, sources, str(tmp_path / "out.parquet"))
    assert not (tmp_path / "out.parquet").exists()


def test_no_rows_make_a_file_without_rows(views, offline, rows, tmp_path):
    pq.write_table(rows.slice(0, 0), tmp_path / "rows.parquet")
    out = str(tmp_path / "out.parquet")
    made = write_historical_features(
        str(tmp_path / "rows.parquet"), views, offline, out, timestamp="at"
    )
    assert made.rows_out == pq.read_table(out).num_rows == 0
    assert made.first is None


def test_a_view_without_rows_leaves_rows_without_values(read, tmp_path, values, put_table, asked):
    put_table(str(tmp_path), "hourly", values())
    made = historical_features(asked(("JFK", 0)), [read()], str(tmp_path), timestamp="at")
    assert made.certificate.views[0].reasons["NEVER_SEEN"] == 1
    assert made.table["hourly__x"].to_pylist() == [None]


def test_a_row_before_all_history_has_only_future_values(read, offline, asked):
    made = historical_features(asked(("JFK", -9000)), [read()], offline, timestamp="at")
    assert made.certificate.views[0].reasons["FUTURE"] == 1


def _cast(table, kind):
    return table.set_column(1, "event_timestamp", table["event_timestamp"].cast(kind))


def _nulled(table):
    times = table["event_timestamp"].to_pylist()
    return table.set_column(
        1, "event_timestamp", pa.array([times[0], None], table.schema.field(1).type)
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.drop_columns(["event_timestamp"]), "event_timestamp'] are missing"),
        (lambda t: _cast(t, pa.string()), "event_timestamp is string, but must be timestamp"),
        (lambda t: _cast(t, pa.timestamp("us")), r"event_timestamp is timestamp\[us\], but"),
        (_nulled, "event_timestamp is null in 1 rows"),
    ],
)
def test_a_source_with_a_bad_time_is_refused(
    read, tmp_path, values, put_table, asked, change, told
):
    table = change(values(("JFK", 0, 0, 1.0), ("JFK", 10, 10, 1.0)))
    put_table(str(tmp_path), "hourly", table)
    with pytest.raises(SchemaMismatch, match=told):
        historical_features(asked(("JFK", 5)), [read()], str(tmp_path), timestamp="at")


def test_a_row_column_of_a_features_name_is_refused(views, offline, rows):
    twice = rows.append_column("hourly__x", pa.array(np.zeros(60)))
    with pytest.raises(SchemaMismatch, match="column hourly__x is also a feature"):
        historical_features(twice, views, offline, timestamp="at")


def test_neither_join_nor_certificate_look_at_a_clock(views, offline, rows, monkeypatch):
    import time

    one = historical_features(rows, views, offline, timestamp="at")
    real = time.time
    for skew in (-3600, -300, 300, 3600):
        monkeypatch.setattr(time, "time", lambda skew=skew: real() + skew)
        monkeypatch.setattr(time, "time_ns", lambda skew=skew: int((real() + skew) * 1e9))
        other = historical_features(rows, views, offline, timestamp="at")
        assert other.table.equals(one.table)
        assert json.loads(other.certificate.to_bytes()) == json.loads(one.certificate.to_bytes())
