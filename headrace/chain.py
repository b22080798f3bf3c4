"""A chain: numbered documents in a folder, each created exclusively and never changed.

Whoever creates number N+1 first has moved the chain on; everybody else finds the name taken. That
is compare-and-swap on any storage that can create a file exclusively, a folder or S3, and the files
are the history.
"""

from headrace import storage

_DIGITS = 8


def numbers(folder: str) -> list[int]:
    """The numbers in the chain, rising; empty if it has not begun. Costs one listing."""
    stems = (n.removesuffix(".json") for n in storage.list_names(folder) if n.endswith(".json"))
    return [int(stem) for stem in stems if len(stem) == _DIGITS and stem.isdigit()]


def newest(folder: str) -> int:
    """The highest number in the chain; 0 if it has not begun."""
    return max(numbers(folder), default=0)


def address(folder: str, number: int) -> str:
    """Where document ``number`` is, or will be.

    >>> address("releases/delays", 12)
    'releases/delays/00000012.json'
    """
    return f"{folder}/{number:0{_DIGITS}d}.json"


def holds(folder: str, number: int) -> bool:
    """True if document ``number`` is there: one small look-up."""
    return storage.exists(address(folder, number))


def read(folder: str, number: int) -> bytes:
    """Document ``number``.

    Raises:
        FileNotFoundError: if there is none.
    """
    return storage.read_bytes(address(folder, number))


def add(folder: str, number: int, document: bytes) -> bool:
    """Create document ``number``; False if another one is there already."""
    return storage.create_exclusive(address(folder, number), document)
