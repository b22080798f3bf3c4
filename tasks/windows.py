"""What a flow works on when the caller leaves it open: the last month, the champion."""

from datetime import date

from featurestore.offline import table_span
from headrace import release
from headrace.errors import DatesOutsideData, UsageError
from headrace.settings import Settings
from headrace.spec import load_spec
from headrace.window import Window, midnight


class WindowUnclear(UsageError):
    """A month and days at once, or half a window."""

    def __init__(self, month: str | None, since: date | None, until: date | None) -> None:
        self.month, self.since, self.until = month, since, until
        super().__init__(
            f"--month {month}, --since {since}, --until {until}: give a month, or both --since "
            "and --until, or none of them for the last month of the table."
        )


def choose(
    settings: Settings,
    model: str,
    *,
    month: str | None,
    since: date | None,
    until: date | None,
) -> Window:
    """The window of the model's scoring table that the caller means.

    Raises:
        WindowUnclear: for a mixture of month and days.
        DatesOutsideData: if the table has no rows there; the error says where it has.
    """
    if (since is None) != (until is None) or (month and since):
        raise WindowUnclear(month, since, until)
    spec = load_spec(model)
    first, last = table_span(
        settings.uri("offline"), spec.scoring_table, spec.label.event_timestamp
    )
    if since and until:
        window = Window(since=midnight(since), until=midnight(until))
    else:
        window = Window.of_month(month or f"{last:%Y-%m}")
    if window.until <= first or window.since > last:
        raise DatesOutsideData(spec.scoring_table, window.since, window.until, first, last)
    return window


def champion(settings: Settings, endpoint: str) -> str:
    """The digest of the bundle that answers at an endpoint.

    Raises:
        UnknownName: if the endpoint was never released.
    """
    return release.require_release(settings.storage_uri, endpoint).champion
