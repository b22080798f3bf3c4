"""A file that is there."""

from typing import NamedTuple


class Found(NamedTuple):
    """A file that is there."""

    uri: str
    bytes: int
    stamp: str
    """Changes whenever the file is written: its size and time, or its ETag."""


TEMPORARY = ".writing-"
"""How the names begin that a killed writer may leave behind; no reader looks at them."""
