import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from featurestore.flights import raw, tables
from headrace.spec import load_spec

FEATURE_TABLES = [
    "weather",
    "planes",
    "origin_congestion",
    "carrier_origin_delays",
    "destination_delays",
    "aircraft_previous_leg",
]


@pytest.mark.parametrize("name", FEATURE_TABLES)
def test_no_feature_row_is_known_before_it_is_true(year, name):
    event, created = (year[name][f"{kind}_timestamp"] for kind in ("event", "created"))
    assert event.type == created.type == pa.timestamp("us", tz="UTC")
    assert event.null_count == created.null_count == 0
    assert (created.to_numpy() >= event.to_numpy()).all()


@pytest.mark.parametrize("name", FEATURE_TABLES)
def test_feature_tables_are_sorted_by_event_time_and_hold_no_nan(year, name):
    table = year[name]
    assert (np.diff(table["event_timestamp"].to_numpy()) >= np.timedelta64(0, "us")).all()
    floats = [c for c in table.columns if pa.types.is_floating(c.type)]
    assert not any(pc.any(pc.is_nan(column)).as_py() for column in floats)


def test_an_hours_weather_is_known_when_the_hour_is_over(year):
    table = year["weather"]
    late = table["created_timestamp"].to_numpy() - table["event_timestamp"].to_numpy()
    assert (late == np.timedelta64(1, "h")).all()
    assert table.num_rows == 26_115


def test_a_wind_faster_than_any_ever_measured_is_missing_and_all_others_stay():
    wind = raw.read_weather()["wind_speed"]
    kept = tables.weather(raw.read_weather())["wind_speed_mph"]
    assert pc.max(wind).as_py() > 1000
    assert pc.max(kept).as_py() < 50
    assert kept.null_count == wind.null_count + 1


def test_every_arrival_has_a_label_with_the_moment_it_was_known(year, flights):
    labels, arrived = year["flight_labels"], flights.filter(flights["arrival"].is_valid())
    assert labels.num_rows == arrived.num_rows == 327_346
    assert labels["flight_id"].equals(arrived["flight_id"])
    assert labels["created_timestamp"].equals(arrived["arrival"])
    late = arrived["arrival_delay_minutes"].to_numpy() > 15
    assert labels["arrives_late"].type == pa.int8()
    assert labels["arrives_late"].to_numpy().tolist() == late.tolist()


def test_the_schedule_has_every_flight_and_nothing_that_was_known_only_later(year, flights):
    schedule = year["flight_schedule"]
    assert schedule["flight_id"].equals(flights["flight_id"])
    assert len(set(schedule["flight_id"].to_pylist())) == schedule.num_rows == 336_776
    outcomes = {"departure", "arrival", "departure_delay_minutes", "air_time_minutes"}
    assert not outcomes & set(schedule.column_names)


@pytest.mark.parametrize("name", ["flight_labels", "flight_schedule"])
def test_the_model_finds_its_columns(year, name):
    spec = load_spec("flight_delay")
    wanted = {*spec.label.entity_keys, *(field.name for field in spec.request)}
    if name == spec.label.table:
        wanted |= {spec.label.column, spec.label.created_timestamp}
    assert wanted <= set(year[name].column_names)
