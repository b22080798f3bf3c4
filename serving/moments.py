"""Times in requests: ISO 8601 text with a zone, as moments in UTC."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_MOST_KEPT = 8_192
_LONGEST_KEPT = 40  # characters; a fraction may have any number of digits


def parse_timestamp(text: str) -> datetime:
    """Return the moment that an ISO 8601 ``text`` names, in UTC.

    Raises:
        ValueError: if it is no time, has no zone, or lies outside the years 1 to 9999.

    >>> parse_timestamp("2013-08-01T08:00:00-04:00")
    datetime.datetime(2013, 8, 1, 12, 0, tzinfo=datetime.timezone.utc)
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is outside the years 1 to 9999") from error


class Moments:
    """Parses columns of times; safe to use from several threads.

    Many requests of one second name the same few moments, so parsed texts are kept: finding one is
    a tenth of the work of parsing it.
    """

    def __init__(self) -> None:
        self._kept: dict[str, int] = {}  # microseconds since 1970: NumPy is slow with datetimes

    def column(self, texts: Iterable[str]) -> np.ndarray:
        """Return datetime64[us] in UTC, shape (texts,).

        Raises:
            ValueError: as ``parse_timestamp``.
        """
        found = list(map(self._kept.get, texts))
        if None in found:
            parsed = zip(found, texts, strict=True)
            found = [self._parse(text) if kept is None else kept for kept, text in parsed]
        return np.array(found, np.int64).view("datetime64[us]")

    def _parse(self, text: str) -> int:
        moment = (parse_timestamp(text) - _EPOCH) // _MICROSECOND
        if len(text) <= _LONGEST_KEPT:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[text] = moment
        return moment
