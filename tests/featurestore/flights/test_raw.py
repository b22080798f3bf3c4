import zipfile
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from featurestore.errors import SampleDataMissing
from featurestore.flights import raw
from headrace.errors import ExitCode, SchemaMismatch

MINUTE = np.timedelta64(60_000_000, "us")


@pytest.fixture(scope="module")
def lines() -> dict[str, dict[str, str]]:
    """The file's own lines by flight id, parsed without Arrow."""
    import csv
    import io

    text = zipfile.ZipFile(raw._folder() / "flights.csv.zip").read("flights.csv").decode()
    found = {}
    for row in csv.DictReader(io.StringIO(text)):
        due = datetime.fromisoformat(row["time_hour"]).replace(minute=int(row["minute"]))
        name = f"{row['carrier']}{row['flight']}-{row['origin']}-{due:%Y%m%dT%H%MZ}"
        found[name] = row
    return found


def test_every_line_of_the_file_is_a_flight_with_a_name_of_its_own(flights, lines):
    assert flights.num_rows == len(lines) == 336_776
    assert set(flights["flight_id"].to_pylist()) == set(lines)


def test_a_flight_has_an_arrival_exactly_where_the_file_has_an_arrival_delay(flights, lines):
    arrived = flights.filter(flights["arrival"].is_valid())["flight_id"].to_pylist()
    assert set(arrived) == {name for name, row in lines.items() if row["arr_delay"] != "NA"}
    assert len(arrived) == 327_346


def test_departures_and_arrivals_show_the_files_numbers_on_the_clocks_of_their_airports(
    flights, lines
):
    zones = dict(raw._ZONES_NOT_IN_AIRPORTS)
    airports = raw._read_csv("airports.csv")
    zones |= dict(zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True))
    arrived = flights.filter(flights["arrival"].is_valid())
    chosen = np.random.default_rng(5).choice(arrived.num_rows, 3000, replace=False)
    for flight in arrived.take(chosen).to_pylist():
        row = lines[flight["flight_id"]]
        left = flight["departure"].astimezone(ZoneInfo("America/New_York"))
        landed = flight["arrival"].astimezone(ZoneInfo(zones[flight["dest"]]))
        assert left.hour * 100 + left.minute == int(row["dep_time"]) % 2400
        assert landed.hour * 100 + landed.minute == int(row["arr_time"]) % 2400


def test_no_flight_is_shorter_than_its_air_time_or_as_long_as_a_day(flights):
    arrived = flights.filter(flights["arrival"].is_valid())
    elapsed = (arrived["arrival"].to_numpy() - arrived["departure"].to_numpy()) / MINUTE
    on_ground = elapsed - arrived["air_time_minutes"].to_numpy()
    assert on_ground.min() >= 5
    assert on_ground.max() < 240
    assert elapsed.max() < 1440


def test_the_scheduled_length_of_every_flight_is_that_of_a_flight(flights):
    arrived = flights.filter(flights["arrival"].is_valid())
    elapsed = (arrived["arrival"].to_numpy() - arrived["departure"].to_numpy()) / MINUTE
    late = (
        arrived["arrival_delay_minutes"].to_numpy() - arrived["departure_delay_minutes"].to_numpy()
    )
    scheduled = elapsed - late
    miles_an_hour = arrived["distance_miles"].to_numpy() / scheduled * 60
    assert miles_an_hour.min() > 40
    assert miles_an_hour.max() < 600


@pytest.mark.parametrize(
    ("clock", "after", "arrives"),
    [
        (330, "2013-03-10T04:00", "2013-03-10T07:30"),  # 23:00 EST, lands 3:30 EDT: 3.5 h
        (203, "2013-03-10T04:06", "2013-03-10T07:03"),  # 2:03 was left out: by the old clock
        (330, "2013-11-03T03:00", "2013-11-03T08:30"),  # 23:00 EDT, lands 3:30 EST: 5.5 h
        (2400, "2013-07-01T03:00", "2013-07-01T04:00"),  # midnight, an hour after 23:00 EDT
        (2300, "2013-07-01T03:30", "2013-07-02T03:00"),  # the next day's 23:00
    ],
)
def test_an_arrival_is_the_next_time_the_clock_shows_its_number(clock, after, arrives):
    found = raw._next_time_the_clock_shows(
        raw._clock_minutes(np.array([clock])), np.array([after], "datetime64[us]"), "US/Eastern"
    )
    assert found[0] == np.datetime64(arrives, "us")


def test_only_cancelled_flights_lack_a_departure_or_may_lack_their_aircraft(flights):
    departure, tailnum = flights["departure"].is_null(), flights["tailnum"].is_null()
    assert pc.sum(departure).as_py() == 8255
    assert pc.sum(pc.and_(tailnum, pc.invert(departure))).as_py() == 0
    assert flights["departure_delay_minutes"].is_null().equals(departure)


def test_clock_numbers_that_contradict_each_other_are_refused(monkeypatch):
    read = raw._read_csv

    def with_a_wrong_number(name):
        table = read(name)
        if name != "flights.csv.zip":
            return table
        air = table["air_time"].to_pylist()
        air[0] = 1000
        return table.set_column(table.column_names.index("air_time"), "air_time", pa.array(air))

    monkeypatch.setattr(raw, "_read_csv", with_a_wrong_number)
    with pytest.raises(SchemaMismatch, match=r"shorter than its air_time \(1 rows\)"):
        raw.read_flights()


def test_missing_sample_data_say_what_to_install(monkeypatch):
    monkeypatch.setattr(raw.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SampleDataMissing, match=r"pip install 'headrace\[flows\]'") as caught:
        raw.read_planes()
    assert caught.value.exit_code == ExitCode.USAGE
