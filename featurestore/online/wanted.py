"""What a micro-batch still has to ask of one group's entities, and how the answers become rows."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from featurestore.online.entity_cache import Entity, Kept
from featurestore.online.source import Token

_row: Callable[[Any], bytes] = itemgetter(1)  # of what is kept
_objects: Callable[[Any], Sequence[Any]] = itemgetter(2)


class EntityRows(NamedTuple):
    """Rows of entities of one group, as ``GroupDecoder`` makes them."""

    rows: Sequence[bytes]
    objects: Sequence[Sequence[Any]]
    """By row the messages of all features that are no numbers."""


class Wanted:
    """The entities of one group that a batch needs; each is asked for once."""

    def __init__(
        self,
        entities: Sequence[Entity],
        kept: Sequence[Kept | None] | None,
        tokens: Callable[[Sequence[Entity]], list[Token | None]],
    ) -> None:
        """Find out what is missing.

        Args:
            entities: by row.
            kept: what is kept of them, by row; None: nothing.
            tokens: how entities are asked for; None for what is none.
        """
        self.kept = kept
        self._entities = entities
        self.asked: list[Entity] = []
        """The entities to ask for."""
        self.tokens: list[Token] = []
        """How each of them is asked for."""
        if kept is not None and None not in kept:
            return
        missing = entities
        if kept is not None:
            missing = [e for e, k in zip(entities, kept, strict=True) if k is None]
        self.asked = list(dict.fromkeys(missing))
        found = tokens(self.asked)
        if None in found:
            pairs = list(zip(self.asked, found, strict=True))
            self.asked = [entity for entity, made in pairs if made is not None]
            found = [made for made in found if made is not None]
        self.tokens = found  # type: ignore[assignment]

    def rows(self, answered: EntityRows, nobody: tuple[bytes, Sequence[Any]]) -> EntityRows:
        """A row for each row of the batch.

        Args:
            answered: a row for each of ``asked``.
            nobody: the row, and the messages, of an entity that does not exist.
        """
        entities, kept = self._entities, self.kept
        if kept is not None and not self.asked and None not in kept:
            return EntityRows(list(map(_row, kept)), list(map(_objects, kept)))
        if kept is None and len(self.asked) == len(entities):
            return answered  # each is of one row, in their order
        of_each = dict(zip(self.asked, zip(*answered, strict=True), strict=True))
        if kept is None:
            both = [of_each.get(entity, nobody) for entity in entities]
        else:
            pairs = zip(entities, kept, strict=True)
            both = [of_each.get(e, nobody) if k is None else k[1:] for e, k in pairs]
        rows, objects = zip(*both, strict=True) if both else ((), ())
        return EntityRows(rows, objects)
