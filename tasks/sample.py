"""The sample project's tables: a year of real flights, written once into the offline store."""

from datetime import datetime
from typing import Any

from prefect.logging import get_run_logger

from headrace import storage
from headrace.settings import Settings
from headrace.window import Window
from tasks.scoring_table import scoring_rows
from tasks.step import step


@step("write the sample flights")
def write_flights(settings: Settings) -> tuple[str, int]:
    """Return the offline store's address and its rows. Safe to run twice: written once.

    The last table stands for all: it is written after every other one.
    """
    from featurestore.flights.sources import write_tables
    from featurestore.offline.tables import count_rows

    root = settings.uri("offline")
    if not storage.exists(f"{root}/flight_schedule.parquet"):
        get_run_logger().info("writing the tables of a year of flights to %s", root)
        write_tables(root)
    rows = count_rows(root)
    get_run_logger().info("%s rows in %s", f"{rows:,}", root)
    return root, rows


def request_rows(
    settings: Settings, model: str, window: Window, *, rows: int
) -> list[dict[str, Any]]:
    """The first rows of a window as an application would send them to a server."""
    table = scoring_rows(settings, model, window).slice(0, rows)
    return [{name: _json(value) for name, value in row.items()} for row in table.to_pylist()]


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
