"""The trailing delays of carriers and destinations, and each aircraft's previous leg.

Each arrival makes a row in each table, true and known at the minute of the arrival. Arrivals of
one key in one minute share one row.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from featurestore.flights.tables import LATE_MINUTES, feature_table, minutes_of, moments_of
from featurestore.flights.trailing import Events, events

_HOUR, _DAY, _WEEK = 60, 1440, 10080
_A_MONDAY = 4 * _DAY  # 1970-01-05, in minutes since 1970


def carrier_origin_delays(flights: pa.Table) -> pa.Table:
    """How late a carrier's flights from an origin arrived, over the last day and week."""
    return _trailing(flights, ["carrier", "origin"], {"24h": _DAY, "7d": _WEEK})


def destination_delays(flights: pa.Table) -> pa.Table:
    """How late the flights to a destination arrived, over the last six hours and the last day."""
    return _trailing(flights, ["dest"], {"6h": 6 * _HOUR, "24h": _DAY})


def aircraft_previous_leg(flights: pa.Table) -> pa.Table:
    """The last leg of each aircraft; of the legs out of New York, which are all the data has.

    One aircraft is said to arrive at two airports in one minute, once in the year; the leg that
    was scheduled later counts.

    ``arrival_hour_of_week`` (UTC, 0 to below 168 from Monday 0:00) lets a transform tell how long
    ago the leg ended, without a feature that grows with the calendar.
    """
    arrived = _arrived(flights)
    minutes = minutes_of(arrived["arrival"])
    values = {
        "arrival_delay_minutes": arrived["arrival_delay_minutes"].cast(pa.float64()),
        "departure_delay_minutes": arrived["departure_delay_minutes"].cast(pa.float64()),
        "distance_miles": arrived["distance_miles"],
        "air_time_minutes": arrived["air_time_minutes"].cast(pa.float64()),
        "arrival_hour_of_week": (minutes - _A_MONDAY) % _WEEK / _HOUR,
    }
    arrivals = events(_codes(arrived, ["tailnum"]), minutes)
    return _one_row_each(arrivals, {"tailnum": arrived["tailnum"]}, values, minutes)


def _trailing(flights: pa.Table, keys: Sequence[str], windows: Mapping[str, int]) -> pa.Table:
    arrived = _arrived(flights)
    codes, minutes = _codes(arrived, keys), minutes_of(arrived["arrival"])
    delay = arrived["arrival_delay_minutes"].to_numpy()
    arrivals = events(codes, minutes)
    values = {}
    for name, length in windows.items():
        window = arrivals.window(codes, minutes, length=length)
        values[f"arrival_delay_mean_{name}_minutes"] = window.mean(delay)
        values[f"arrivals_late_share_{name}"] = window.mean(delay > LATE_MINUTES)
    return _one_row_each(arrivals, {key: arrived[key] for key in keys}, values, minutes)


def _one_row_each(
    arrivals: Events,
    keys: Mapping[str, pa.ChunkedArray],
    values: Mapping[str, pa.ChunkedArray | np.ndarray],
    minutes: np.ndarray,
) -> pa.Table:
    """The last row of each key and minute, as a feature table."""
    last = arrivals.order[np.diff(arrivals.places, append=-1) != 0]
    moments = moments_of(minutes[last])
    return feature_table(
        {name: column.take(last) for name, column in keys.items()},
        {name: column.take(last) for name, column in values.items()},
        event=moments,
        created=moments,
    )


def _arrived(flights: pa.Table) -> pa.Table:
    return flights.filter(flights["arrival"].is_valid()).combine_chunks()


def _codes(table: pa.Table, keys: Sequence[str]) -> np.ndarray:
    """One code from 0 for each combination of keys, int64, shape (rows,)."""
    codes = np.zeros(table.num_rows, np.int64)
    for key in keys:
        column = table[key].combine_chunks().dictionary_encode()
        codes = codes * len(column.dictionary) + column.indices.to_numpy()
    return codes
