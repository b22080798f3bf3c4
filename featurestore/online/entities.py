"""From the join keys of rows to entities, and to what a source asks for of one."""

from collections.abc import Mapping, Sequence

from featurestore.online.entity_cache import Entity
from featurestore.online.source import Group, Source, Token
from featurestore.wire.entity_key import EntityKeyWriter

_KEPT_KEYS = 65_536  # entities whose keys are kept as bytes; traffic asks for the same ones again
_PLAIN = {int, type(None)}
Keys = Mapping[str, Sequence[str | int | None]]
"""For each join key one value a row; None: no such entity."""


class Entities:
    """Turns the join keys of rows into the entities of one group."""

    def __init__(self, position: int, group: Group, source: Source) -> None:
        """Prepare for the entities of a group, which stands at ``position`` among the groups."""
        self._names = [key.name for key in group.join_keys]
        self._whole = [key.name for key in group.join_keys if key.dtype != "STRING"]
        self._writer = EntityKeyWriter(group.join_keys)
        self._position, self._source = position, source
        self._tokens: dict[Entity, Token] = {}

    def of(self, keys: Keys, rows: int) -> Sequence[Entity]:
        """The entity of each row: equal where the keys are.

        Raises:
            EntityKeyRefused: if a key that must be a whole number is another kind of number.
        """
        names = self._names
        for name in self._whole:
            # 1, 1.0 and True are equal, so only what is written says which of them they were.
            if not set(map(type, keys[name])) <= _PLAIN:
                self._check(keys, rows)
        if len(names) == 1:
            return keys[names[0]]
        if not names:  # a view without entities has one row
            return [()] * rows
        return list(zip(*[keys[name] for name in names], strict=True))

    def tokens(self, entities: Sequence[Entity]) -> list[Token | None]:
        """How the source asks for each entity; None where one of its keys is null.

        Raises:
            EntityKeyRefused: if a key is not of its type.
        """
        found: list[Token | None] = list(map(self._tokens.get, entities))
        if None in found:
            if len(self._tokens) > _KEPT_KEYS:
                self._tokens = {}
            for place, (entity, token) in enumerate(zip(entities, found, strict=True)):
                if token is None and (key := self.key(entity)) is not None:
                    made = self._source.token(self._position, key)
                    found[place] = self._tokens[entity] = made
        return found

    def key(self, entity: Entity) -> bytes | None:
        """Feast's key of an entity; None where one of its keys is null.

        Raises:
            EntityKeyRefused: if a key is not of its type.
        """
        return self._writer.write([entity] if len(self._names) == 1 else entity)  # type: ignore[arg-type]

    def _check(self, keys: Keys, rows: int) -> None:
        for row in range(rows):
            self._writer.write([keys[name][row] for name in self._names])
