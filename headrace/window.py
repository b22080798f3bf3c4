"""A window of time: from a moment, up to but not including another, both in UTC."""

from datetime import UTC, date, datetime, timedelta
from typing import Self

from pydantic import AwareDatetime, model_validator

from headrace.errors import UsageError
from headrace.spec import Part

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class WindowRefused(UsageError):
    """A window that ends before it begins."""

    def __init__(self, since: datetime, until: datetime) -> None:
        self.since, self.until = since, until
        super().__init__(
            f"a window from {since:%Y-%m-%d %H:%M} until {until:%Y-%m-%d %H:%M} UTC is empty: "
            "its end must come after its beginning."
        )


class Window(Part):
    """``since`` <= t < ``until``."""

    since: AwareDatetime
    until: AwareDatetime

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.since >= self.until:
            raise WindowRefused(self.since, self.until)
        return self

    @classmethod
    def of_month(cls, month: str) -> Self:
        """The calendar month ``2013-08`` in UTC.

        >>> print(Window.of_month("2013-12"))
        2013-12-01..2014-01-01
        """
        first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
        return cls(since=first, until=(first + timedelta(days=32)).replace(day=1))

    def __str__(self) -> str:
        """As it stands in names of files and runs."""
        return f"{_short(self.since)}..{_short(self.until)}"


def midnight(day: date) -> datetime:
    """The moment in UTC at which a day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def as_microseconds(moment: datetime) -> int:
    """A moment as microseconds since 1970 in UTC; exact, as no float is involved."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(microseconds: int) -> datetime:
    """The moment so many microseconds after 1970 began, in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def _short(moment: datetime) -> str:
    utc = moment.astimezone(UTC)
    return f"{utc:%Y-%m-%d}" if utc == midnight(utc.date()) else f"{utc:%Y-%m-%dT%H%M%S}"
