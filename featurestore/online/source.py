"""What the online reader asks of a store: one interface over SQLite and Redis.

The reader deals in views, moments and values; a source knows where they lie. Views that share
their join keys are a *group*: one entity has one reply for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from featurestore.online.trips import Steps, Trips
from featurestore.stores.stored import StoredView
from headrace.plan import NUMBERS, JoinKey, ViewRead

NOTHING = np.iinfo(np.int64).min
"""The stamp of an entity that the store does not know."""
Token = bytes
"""An entity as its source asks for it; made once and kept."""
Reply = list[Any]
"""What a source said of one entity: for each view of the group ``STAMP``, the packed row (None:
there is none), then a message for each feature of the plan that is no number."""


@dataclass(frozen=True)
class Group:
    """Views of the same entities."""

    join_keys: tuple[JoinKey, ...]
    """Sorted by name."""
    views: tuple[ViewRead, ...]


class Source(Protocol):
    """Reads the rows of entities. Safe to use from several threads at once."""

    place: str
    """What errors call the store."""
    holds_up: bool
    """Whether it reads without trips and takes so long that no event loop should wait for it."""

    @property
    def trips(self) -> Trips | None:
        """Who makes its trips; None: it reads without any, as soon as it is asked."""

    def token(self, group: int, entity_key: bytes, /) -> Token:
        """How an entity is asked for; equal for equal entities."""

    def fetch(self, wanted: Sequence[Sequence[Token]]) -> Steps[tuple[Any, list[list[Reply]]]]:
        """Ask for entities of each group, all at one moment.

        Returns:
            The signature of the views' records, which changes when a view is written anew, and a
            reply for each entity, group by group.

        Raises:
            OnlineStoreFailed: if the store cannot be read.
        """

    def learn(self, signature: Any, /) -> Steps[tuple[Any, dict[str, StoredView]]]:
        """The views' records, and the signature they have."""

    def stamp(self, stamp: Any, /) -> int:
        """A stamp of a reply as an integer; None is ``NOTHING``."""

    def stamps(self, stamps: Sequence[Any], /) -> np.ndarray:
        """Several stamps as ``stamp`` makes them, int64."""

    def expected_stamp(self, event: Any, created: Any, /) -> Any:
        """The stamp that belongs to a packed row with these times: microseconds, int or int64.

        Where a row's stamp is another one, another Feast client has written since, and Feast's own
        rows count.
        """

    def messages(
        self, view: ViewRead, entity_keys: Sequence[bytes]
    ) -> Steps[list[tuple[int, int, list[bytes]] | None]]:
        """Feast's own rows: event and created time, a message for each number feature of ``view``.

        None for an entity that the store does not know.
        """

    def close(self) -> None:
        """Let go of the store."""


def groups_of(views: Sequence[ViewRead]) -> list[Group]:
    """The views by their join keys, in order of first use."""
    found: dict[tuple[JoinKey, ...], list[ViewRead]] = {}
    for view in views:
        keys = tuple(sorted(view.join_keys, key=lambda key: key.name))
        found.setdefault(keys, []).append(view)
    return [Group(keys, tuple(some)) for keys, some in found.items()]


def objects_of(view: ViewRead) -> list[str]:
    """The names of the features that are no numbers, as replies have them."""
    return [feature.name for feature in view.features if feature.dtype not in NUMBERS]


def numbers_of(view: ViewRead) -> list[str]:
    """The names of the number features, in the view's order."""
    return [feature.name for feature in view.features if feature.dtype in NUMBERS]
