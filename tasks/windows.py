"""What a flow works on when the caller leaves it open: the last month, the champion."""

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from featurestore.offline.tables import table_span
from headrace import release
from headrace.errors import DatesOutsideData, UsageError
from headrace.settings import Settings
from headrace.spec import load_spec
from headrace.window import Window, midnight


class Asked(NamedTuple):
    """The window as the caller wrote it: a month, two days, or nothing."""

    month: str | None
    since: date | None
    until: date | None


class WindowUnclear(UsageError):
    """A month and days at once, or half a window."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        super().__init__(
            f"--month {asked.month}, --since {asked.since}, --until {asked.until}: give a month, "
            "or both --since and --until, or none of them for the last month."
        )


def choose(settings: Settings, model: str, asked: Asked) -> Window:
    """The window of the model's scoring table that the caller means: its last month if left open.

    Raises:
        WindowUnclear: for a mixture of month and days.
        DatesOutsideData: if the table has no rows there; the error says where it has.
    """
    spec = load_spec(model)
    first, last = table_span(
        settings.uri("offline"), spec.scoring_table, spec.label.event_timestamp
    )
    window = _written(asked) or Window.of_month(f"{last:%Y-%m}")
    if window.until <= first or window.since > last:
        raise DatesOutsideData(spec.scoring_table, window.since, window.until, first, last)
    return window


def choose_logged(asked: Asked) -> Window:
    """The window of an inference log that the caller means: the last 30 days if left open.

    Raises:
        WindowUnclear: for a mixture of month and days.
    """
    now = datetime.now(UTC)
    return _written(asked) or Window(since=now - timedelta(days=30), until=now)


def champion(settings: Settings, endpoint: str) -> str:
    """The digest of the bundle that answers at an endpoint.

    Raises:
        UnknownName: if the endpoint was never released.
    """
    return release.require_release(settings.storage_uri, endpoint).champion


def _written(asked: Asked) -> Window | None:
    if (asked.since is None) != (asked.until is None) or (asked.month and asked.since):
        raise WindowUnclear(asked)
    if asked.since and asked.until:
        return Window(since=midnight(asked.since), until=midnight(asked.until))
    return Window.of_month(asked.month) if asked.month else None
