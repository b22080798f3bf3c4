"""From the join keys of rows to what a source asks for, made once an entity and kept."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from featurestore.online.source import Group, Source, Token
from featurestore.wire.entity_key import EntityKeyWriter

_KEPT_KEYS = 65_536  # entities whose keys are kept as bytes; traffic asks for the same ones again
Keys = Mapping[str, Sequence[str | int | None]]
"""For each join key one value a row; None: no such entity."""


class Entities:
    """Turns the join keys of rows into what the source asks for."""

    def __init__(self, position: int, group: Group, source: Source) -> None:
        """Prepare for the entities of a group, which stands at ``position`` among the groups."""
        self._names = [key.name for key in group.join_keys]
        self._writer = writer = EntityKeyWriter(group.join_keys)

        def token(*values: Any) -> Token | None:
            key = writer.write(values)
            return None if key is None else source.token(position, key)

        # By type too: 1 and True are equal, but only one of them is a whole number.
        self._token = lru_cache(_KEPT_KEYS, typed=True)(token)

    def tokens(self, keys: Keys, rows: int) -> list[Token | None]:
        """By row; None where a key is null."""
        if not self._names:  # a view without entities has one row
            return [self._token()] * rows
        return list(map(self._token, *[keys[name] for name in self._names]))

    def key(self, keys: Keys, row: int) -> bytes:
        """The entity key of a row, none of whose keys is null."""
        key = self._writer.write([keys[name][row] for name in self._names])
        assert key is not None
        return key
