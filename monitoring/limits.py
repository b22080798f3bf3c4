"""How old, how empty and how different a feature view may become before somebody is told.

A view's tags say it, where the defaults do not fit: ``max_age`` (``90m``, ``26h``, ``3d``),
``max_null_rise`` (a share, 0 to 1) and ``max_psi`` (nats); ``off`` switches a check off.
"""

import re
from collections.abc import Mapping

from headrace.spec import Part
from monitoring.errors import LimitRefused

OFF = "off"
MAX_AGE, MAX_NULL_RISE, MAX_PSI = "max_age", "max_null_rise", "max_psi"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Limits(Part):
    """What a view may do; None: anything."""

    max_age_seconds: float | None
    """How old its newest value may be."""
    max_null_rise: float | None = 0.05
    """By how much the share of missing values of a feature may rise, 0 to 1."""
    max_psi: float | None = 0.25
    """How far a feature may move, in nats."""


def limits_of(view: str, tags: Mapping[str, str], *, ttl_seconds: float | None) -> Limits:
    """Return a view's limits: its tags' where it has them; the TTL is the default of the age.

    Raises:
        LimitRefused: for a tag that is no limit.

    >>> limits_of("weather", {"max_age": "90m", "max_psi": "off"}, ttl_seconds=21600.0)
    Limits(max_age_seconds=5400.0, max_null_rise=0.05, max_psi=None)
    """
    default = Limits(max_age_seconds=ttl_seconds)
    return Limits(
        max_age_seconds=_age(view, tags[MAX_AGE]) if MAX_AGE in tags else ttl_seconds,
        max_null_rise=_number(view, tags, MAX_NULL_RISE, default.max_null_rise),
        max_psi=_number(view, tags, MAX_PSI, default.max_psi),
    )


def age_in_words(seconds: float) -> str:
    """An age as people say it.

    >>> age_in_words(21600), age_in_words(310), age_in_words(3 * 86400), age_in_words(5)
    ('6 h', '5 min', '3 d', '5 s')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (seconds >= length and seconds % length == 0):
            return f"{seconds / length:.3g} {unit}" if unit != "min" else f"{seconds // 60:.0f} min"
    return f"{seconds:.0f} s"


def _age(view: str, text: str) -> float | None:
    if text == OFF:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)
    if found is None:
        raise LimitRefused(view, MAX_AGE, text, "90m, 26h or 3d")
    return float(found[1]) * _SECONDS[found[2]]


def _number(view: str, tags: Mapping[str, str], tag: str, default: float | None) -> float | None:
    if tag not in tags:
        return default
    if tags[tag] == OFF:
        return None
    try:
        limit = float(tags[tag])
    except ValueError as error:
        raise LimitRefused(view, tag, tags[tag], "a number such as 0.1") from error
    if not 0 < limit < float("inf"):
        raise LimitRefused(view, tag, tags[tag], "a number above 0")
    return limit
