"""The raw year, read once, and the tables of its first days."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from featurestore.flights import raw
from featurestore.flights.sources import build_tables

SMALL_UNTIL = datetime(2013, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def flights() -> pa.Table:
    return raw.read_flights()


@pytest.fixture(scope="session")
def build(flights):
    weather, planes = raw.read_weather(), raw.read_planes()

    def build_until(until=SMALL_UNTIL, *, of=flights) -> dict[str, pa.Table]:
        return dict(build_tables(of, weather, planes, until=until))

    return build_until


@pytest.fixture(scope="session")
def small(build) -> dict[str, pa.Table]:
    return build()


@pytest.fixture(scope="session")
def year(build) -> dict[str, pa.Table]:
    return build(None)


@pytest.fixture(scope="session")
def outcomes(flights) -> list[dict]:
    """The flights around the small tables' days, a dictionary of NumPy moments each."""
    days = flights.slice(0, 11_000)
    moments = {
        name: days[name].to_numpy() for name in ("scheduled_departure", "departure", "arrival")
    }
    rows = days.to_pylist()
    for name, column in moments.items():
        for row, moment in zip(rows, column, strict=True):
            row[name] = None if np.isnat(moment) else moment
    return rows
