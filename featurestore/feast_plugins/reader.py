"""Read any online store that Feast knows, through Feast: the way for stores that we do not read.

Slower by an order of magnitude, and it brings Feast into the process. Feast leaves the TTL to its
callers; ``featurestore.online.reader`` applies it to these rows as to its own.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import FeatureNotMaterialized, OnlineStoreFailed
from featurestore.feast_plugins.compile import feast_store
from featurestore.feast_plugins.objects import view_read
from featurestore.online.source import NOTHING, Group, Reply, Token, objects_of
from featurestore.online.trips import Steps, at_once
from featurestore.stores.packed import pack_rows
from featurestore.stores.stored import StoredView, stored_view
from featurestore.wire.numbers import decode_numbers
from headrace.plan import NUMBERS, ViewRead
from headrace.settings import Settings

if TYPE_CHECKING:
    from feast.online_response import OnlineResponse

_KEY_VERSION = 3  # of Feast's serialisation of entity keys, as in ``featurestore.wire.numbers``


class FeastSource:
    """Reads through ``FeatureStore.get_online_features``, one call a group."""

    trips = None
    holds_up = True

    def __init__(
        self, settings: Settings, groups: Sequence[Group], *, repository: str = "featurestore"
    ) -> None:
        """Open the store that ``feature_store.yaml`` names.

        Args:
            settings: where Feast's registry is.
            groups: what is read.
            repository: the package with ``feature_store.yaml`` and ``definitions/``.

        Raises:
            DefinitionsRefused: if the definitions cannot be used.
        """
        from feast import FeatureStore

        store: FeatureStore = feast_store(settings, repository=repository)
        self._store, self._groups = store, groups
        self.place = f"of feature_store.yaml ({store.config.online_store.type})"
        entities = {entity.name: entity for entity in store.list_entities()}
        found = {view.name: view for view in store.list_feature_views()}
        views = [view.view for group in groups for view in group.views]
        self._records = {
            name: StoredView(view=stored_view(view_read(found[name], entities)))
            for name in views
            if name in found
        }

    def token(self, _: int, entity_key: bytes) -> Token:
        """See ``Source``: Feast's key of the entity."""
        return entity_key

    def fetch(self, wanted: Sequence[Sequence[Token]]) -> Steps[tuple[Any, list[list[Reply]]]]:
        """See ``Source``. Feast's definitions are read once, so the signature never changes."""
        parts = [
            self._read(group, tokens) if tokens else []
            for group, tokens in zip(self._groups, wanted, strict=True)
        ]
        return at_once(("feast", parts))

    def learn(self, signature: Any) -> Steps[tuple[Any, dict[str, StoredView]]]:
        """See ``Source``: what Feast's registry says."""
        return at_once((signature, self._records))

    def stamp(self, stamp: Any) -> int:
        """See ``Source``: an event time in microseconds."""
        return NOTHING if stamp is None else int(stamp)

    def stamps(self, stamps: Sequence[Any]) -> np.ndarray:
        """See ``Source``."""
        return np.array([NOTHING if stamp is None else stamp for stamp in stamps], np.int64)

    def expected_stamp(self, event: Any, _: Any) -> Any:
        """See ``Source``: rows are packed here, of what Feast said."""
        return event

    def messages(
        self, view: ViewRead, _: Sequence[bytes]
    ) -> Steps[list[tuple[int, int, list[bytes]] | None]]:
        """See ``Source``: never needed, since all rows agree."""
        raise FeatureNotMaterialized(f"feature view {view.view}", self.place)

    def close(self) -> None:
        """See ``Source``: Feast closes its connections itself."""

    def _read(self, group: Group, tokens: Sequence[Token]) -> list[Reply]:
        names = [f"{view.view}:{feature.name}" for view in group.views for feature in view.features]
        try:
            response = self._store.get_online_features(
                names, _entity_rows(tokens), full_feature_names=True
            )
        except Exception as error:  # each store of Feast's has errors of its own
            raise OnlineStoreFailed("read", self.place, error) from error
        replies: list[Reply] = [[] for _ in tokens]
        for view in group.views:
            for reply, said in zip(replies, self._replies(view, response), strict=True):
                reply += said
        return replies

    def _replies(self, view: ViewRead, response: "OnlineResponse") -> list[Reply]:
        columns = dict(
            zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True)
        )
        vectors = {f.name: columns[f"{view.view}__{f.name}"] for f in view.features}
        first = next(iter(vectors.values()))
        events = [ts.seconds * 1_000_000 + ts.nanos // 1000 for ts in first.event_timestamps]
        there = [
            any(vector.statuses[row] != _not_found() for vector in vectors.values())
            for row in range(len(events))
        ]
        stored = self._records[view.view]
        messages = {
            n: [v.SerializeToString() for v in vector.values] for n, vector in vectors.items()
        }
        blank = np.full(len(events), np.nan)
        dtypes = {feature.name: feature.dtype for feature in view.features}
        numbers = [
            decode_numbers(messages[f.name], dtypes[f.name], f"{f.name} of view {view.view}")
            if f.name in messages
            else blank
            for f in stored.view.features
            if f.dtype in NUMBERS
        ]
        event = np.array(events, dtype=np.int64)
        packed = pack_rows(stored.tag, event, event, numbers)
        return [
            [
                event if present else None,
                row.tobytes() if present else None,
                *[messages[name][position] for name in objects_of(view)],
            ]
            for position, (event, present, row) in enumerate(
                zip(events, there, packed, strict=True)
            )
        ]


def _entity_rows(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    from feast.infra.key_encoding_utils import deserialize_entity_key

    rows = []
    for token in tokens:
        key = deserialize_entity_key(token, entity_key_serialization_version=_KEY_VERSION)
        values = [getattr(value, value.WhichOneof("val")) for value in key.entity_values]
        rows.append(dict(zip(key.join_keys, values, strict=True)))
    return rows


def _not_found() -> int:
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    return int(FieldStatus.NOT_FOUND)
