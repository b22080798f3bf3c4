"""Local clocks as columns: what the clock on the wall says at each moment of a UTC column.

``zoneinfo`` answers one moment at a time. Here a zone's offsets are found once in a process; after
that a column costs one ``searchsorted``.
"""

import functools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_STEP = timedelta(days=7)  # no zone changes its offset twice in a week


def local_time(utc: np.ndarray, zone: str) -> np.ndarray:
    """Return the local wall-clock time of each moment.

    Args:
        utc: datetime64[us], shape (rows,); moments in UTC.
        zone: IANA name, ``America/New_York``.

    Returns:
        datetime64[us], shape (rows,); NaT for NaT and outside 1970 to 2099, for which the rules
        of daylight saving are not known.

    >>> local_time(np.array(["2013-07-01T12:00"], "datetime64[us]"), "America/New_York")
    array(['2013-07-01T08:00:00.000000'], dtype='datetime64[us]')
    """
    since, offsets = _offsets(zone)
    moments = utc.astype("datetime64[us]", copy=False)
    local: np.ndarray = moments + offsets[np.searchsorted(since, moments, side="right")]
    return local


@functools.cache
def _offsets(zone: str) -> tuple[np.ndarray, np.ndarray]:
    """When the offset changes, shape (n,), and the offsets before, between and after, (n + 1,)."""
    info = ZoneInfo(zone)
    since, offsets = [_FIRST], [_FIRST.astimezone(info).utcoffset()]
    for week in range((_LAST - _FIRST) // _STEP):
        end = _FIRST + (week + 1) * _STEP
        if end.astimezone(info).utcoffset() != offsets[-1]:
            since.append(_change(info, end - _STEP, end))
            offsets.append(end.astimezone(info).utcoffset())
    outside = np.timedelta64("NaT", "us")
    moments = [moment.replace(tzinfo=None) for moment in (*since, _LAST)]
    known = np.array(offsets, "timedelta64[us]")
    return np.array(moments, "datetime64[us]"), np.concatenate([[outside], known, [outside]])


def _change(info: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second at which the offset is that of ``after``, by bisection."""
    offset = after.astimezone(info).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // timedelta(seconds=2) * timedelta(seconds=1)
        if middle.astimezone(info).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after
