"""Which windows of a scoring table are to be scored: from a day to a day, or those missed."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from featurestore.offline.tables import table_span
from headrace import storage
from headrace.errors import UsageError
from headrace.settings import Settings
from headrace.spec import load_spec
from headrace.window import Window, midnight
from tasks.batch.commit import read_manifest
from tasks.batch.plan import window_output

Every = Literal["day", "month"]
"""How long a window is, in UTC."""


class BackfillUnclear(UsageError):
    """Days that do not say which windows are meant."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"{reason}: give --since and --until, or --missed for what is missing since the first "
            "window that was committed."
        )


def asked_windows(
    settings: Settings,
    model: str,
    every: Every,
    since: date | None,
    until: date | None,
    *,
    missed: bool,
) -> list[Window]:
    """The windows that a caller means; the arguments are those of the other two functions.

    Raises:
        BackfillUnclear: if days are missing, or given beside ``missed``.
    """
    if missed and (since or until):
        raise BackfillUnclear("--missed and days exclude each other")
    if missed:
        return missed_windows(settings, model, every)
    if since is None or until is None:
        raise BackfillUnclear("no days are given")
    return windows_between(since, until, every)


def windows_between(since: date, until: date, every: Every) -> list[Window]:
    """The windows from the first day up to, but not including, the last one; oldest first.

    Raises:
        BackfillUnclear: if there are none, or months that do not begin on a first day.

    >>> print(*windows_between(date(2013, 1, 1), date(2013, 3, 1), "month"))
    2013-01-01..2013-02-01 2013-02-01..2013-03-01
    """
    if since >= until:
        raise BackfillUnclear(f"there is nothing from {since} until {until}")
    if every == "month" and (since.day, until.day) != (1, 1):
        raise BackfillUnclear(f"{since} or {until} is not the first day of a month")
    return list(_windows(since, until, every))


def missed_windows(
    settings: Settings, model: str, every: Every, *, today: date | None = None
) -> list[Window]:
    """The whole windows that nobody has committed since the first that was; oldest first.

    They reach as far as the scoring table does. Without any that is committed it is the last whole
    window alone.

    Args:
        settings: where tables and predictions are.
        model: whose.
        every: how long a window is.
        today: windows end before this day begins (UTC); the present one if None.
    """
    spec = load_spec(model)
    first, last = table_span(
        settings.uri("offline"), spec.scoring_table, spec.label.event_timestamp
    )
    today = today or datetime.now(UTC).date()
    end = min(_begin(today, every), _next(_begin(last.date(), every), every))
    committed = {w.since: w for w in committed_windows(settings, model, every)}
    begin = min(committed).date() if committed else _begin(end - timedelta(days=1), every)
    begin = max(begin, _begin(first.date(), every))
    return [w for w in _windows(begin, end, every) if w.since not in committed]


def is_committed(settings: Settings, model: str, window: Window) -> bool:
    """Whether a window has predictions, whichever bundle made them."""
    return read_manifest(window_output(settings, model, window)) is not None


def committed_windows(settings: Settings, model: str, every: Every) -> list[Window]:
    """The windows of a length that have predictions, oldest first."""
    names = storage.list_names(settings.uri("predictions", model))
    found = [window for name in names if (window := _named(name, every))]
    return [window for window in found if is_committed(settings, model, window)]


def _named(name: str, every: Every) -> Window | None:
    """The window that a folder of predictions is named after; None for another one."""
    first, dots, last = name.partition("..")
    try:
        since, until = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        return None
    if not dots or since != _begin(since, every) or until != _next(since, every):
        return None
    return Window(since=midnight(since), until=midnight(until))


def _windows(since: date, until: date, every: Every) -> Iterator[Window]:
    while since < until:
        following = _next(since, every)
        yield Window(since=midnight(since), until=midnight(following))
        since = following


def _begin(day: date, every: Every) -> date:
    return day if every == "day" else day.replace(day=1)


def _next(day: date, every: Every) -> date:
    return day + timedelta(days=1) if every == "day" else (day + timedelta(days=31)).replace(day=1)
