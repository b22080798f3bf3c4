"""The one place that decides what may become part of a path."""

import re

from headrace.errors import NameRefused

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def checked_name(kind: str, name: str) -> str:
    """Return ``name`` if it may become part of a path, else raise ``NameRefused``.

    >>> checked_name("model", "flight_delay")
    'flight_delay'
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise NameRefused(kind, str(name))
    return name
