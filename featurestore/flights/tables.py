"""The tables of what is known beforehand: the schedule, the labels, the weather and the planes.

Feature tables, here and in ``delays`` and ``congestion``, have an ``event_timestamp``, when a row
was true, and a ``created_timestamp``, when it was known. A row is made only of what was known at
its ``created_timestamp``, so a point-in-time join can never hand the future to a model.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")
LATE_MINUTES = 15
"""A flight that leaves, or arrives, more than this after schedule is late."""

_FASTEST_WIND_MPH = 253
"""The fastest gust ever measured (Barrow Island, 1996); one row of the file says 1,048."""
_WEATHER = {
    "temp": "temperature_f",
    "dewp": "dew_point_f",
    "humid": "humidity_percent",
    "wind_dir": "wind_direction_degrees",
    "wind_speed": "wind_speed_mph",
    "wind_gust": "wind_gust_mph",
    "precip": "precipitation_inches",
    "pressure": "pressure_millibars",
    "visib": "visibility_miles",
}
_KEYS = ["origin", "dest", "carrier", "tailnum"]
_SCHEDULE = ["flight_id", *_KEYS, "scheduled_departure", "distance_miles"]


def flight_schedule(flights: pa.Table) -> pa.Table:
    """Every scheduled flight, with what is known of it before it leaves."""
    return flights.select(_SCHEDULE)


def flight_labels(flights: pa.Table) -> pa.Table:
    """Every flight that arrived where it should, whether it came late, and when that was known.

    A cancelled or diverted flight has no arrival, hence no label.
    """
    arrived = flights.filter(flights["arrival"].is_valid())
    late = pc.greater(arrived["arrival_delay_minutes"], LATE_MINUTES).cast(pa.int8())
    labels = arrived.select(_SCHEDULE).append_column("arrives_late", late)
    return labels.append_column("created_timestamp", arrived["arrival"])


def weather(raw: pa.Table) -> pa.Table:
    """Weather by origin and hour: true from the start of the hour, known at its end."""
    hour = raw["time_hour"].cast(UTC_MICROSECONDS).to_numpy()
    values = {name: raw[column].cast(pa.float64()) for column, name in _WEATHER.items()}
    speed = values["wind_speed_mph"]
    values["wind_speed_mph"] = pc.if_else(pc.greater(speed, _FASTEST_WIND_MPH), None, speed)
    known = hour + np.timedelta64(1, "h")
    return feature_table({"origin": raw["origin"]}, values, event=hour, created=known)


def planes(raw: pa.Table) -> pa.Table:
    """Each plane. The file does not say of when it is: taken as known from the year's start."""
    start = np.full(raw.num_rows, np.datetime64("2013-01-01", "us"))
    values = {
        "year_built": raw["year"].cast(pa.float64()),
        "seats": raw["seats"],
        "engines": raw["engines"],
    }
    return feature_table({"tailnum": raw["tailnum"]}, values, event=start, created=start)


def feature_table(
    keys: Mapping[str, pa.ChunkedArray],
    values: Mapping[str, pa.ChunkedArray | np.ndarray],
    *,
    event: np.ndarray,
    created: np.ndarray,
) -> pa.Table:
    """Return a feature table ordered by event time, then by key.

    Args:
        keys: the join keys, strings.
        values: the features; NaN in a NumPy column becomes null.
        event: datetime64[us], shape (rows,); when a row was true.
        created: datetime64[us], shape (rows,); when it was known.
    """
    features = {
        name: pa.array(column, from_pandas=True) if isinstance(column, np.ndarray) else column
        for name, column in values.items()
    }
    times = {
        "event_timestamp": pa.array(event, UTC_MICROSECONDS),
        "created_timestamp": pa.array(created, UTC_MICROSECONDS),
    }
    order = [("event_timestamp", "ascending"), *((key, "ascending") for key in keys)]
    return pa.table({**keys, **times, **features}).sort_by(order).combine_chunks()


def minutes_of(moments: pa.ChunkedArray) -> np.ndarray:
    """Whole minutes since 1970, int64, shape (rows,); -1 for null. Nothing here is finer."""
    minutes = pc.divide(moments.cast(pa.int64()), 60_000_000)
    whole: np.ndarray = minutes.fill_null(-1).to_numpy()
    return whole


def moments_of(minutes: np.ndarray) -> np.ndarray:
    """The inverse of ``minutes_of``: datetime64[us], shape (rows,)."""
    return minutes.astype("datetime64[m]").astype("datetime64[us]")
