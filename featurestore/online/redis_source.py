"""Read entities from Redis: one round trip for a whole micro-batch, over all views.

Each entity costs one ``HMGET``, whatever the number of views that share its key. The views' tags
come along in the same trip, so a store that was emptied, or a view that was written anew, is
noticed before a value is used.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from featurestore.errors import FeatureNotMaterialized, StoredValueBroken, WireBroken
from featurestore.online.redis_trips import RedisTrips
from featurestore.online.source import NOTHING, Group, Reply, Token, numbers_of, objects_of
from featurestore.online.trips import Steps, Trip
from featurestore.stores import redis_layout as layout
from featurestore.stores.resp import command, shown
from featurestore.stores.stored import StoredView
from featurestore.wire.protowire import fields, signed
from headrace.plan import ViewRead

_KEPT_STAMPS = 65_536
_WHOLE_SECONDS = 6  # the bytes of a Timestamp message without a fraction
_SECONDS_FIELD = 8
_CONTINUED = np.array([0, 0x80, 0x80, 0x80, 0x80, 0], np.uint8)
_SEVEN_BITS = 1 << np.arange(0, 35, 7, dtype=np.int64)


class RedisSource:
    """Reads one project's views."""

    holds_up = False

    def __init__(
        self, url: str, project: str, groups: Sequence[Group], *, deadline_seconds: float
    ) -> None:
        """Prepare all commands; connects at the first read.

        Args:
            url: as ``featurestore.stores.resp.Connection`` takes it.
            project: the Feast project.
            groups: what is read.
            deadline_seconds: how long one read may take.
        """
        self._project = project
        self.place = shown(url)
        self.trips = RedisTrips(url, deadline_seconds=deadline_seconds)
        self._views = sorted({view.view for group in groups for view in group.views})
        names = [name.encode() for name in self._views]
        self._ask_tags = command(b"HMGET", layout.tags_hash(project), *names)
        self._ask_records = command(b"HMGET", layout.views_hash(project), *names)
        self._around = [_hmget_around(_fields(group)) for group in groups]
        self.stamp = lru_cache(_KEPT_STAMPS)(_microseconds)

    def token(self, _: int, entity_key: bytes) -> Token:
        """See ``Source``: what differs between the commands that ask for entities of a group."""
        key = layout.entity_hash(entity_key, self._project)
        return b"$%d\r\n%b\r\n" % (len(key), key)

    def fetch(self, wanted: Sequence[Sequence[Token]]) -> Steps[tuple[Any, list[list[Reply]]]]:
        """See ``Source``. The signature is the views' tags."""
        commands, asked = [self._ask_tags], 1
        for tokens, (head, tail) in zip(wanted, self._around, strict=True):
            if tokens:
                commands += (head, (tail + head).join(tokens), tail)
                asked += len(tokens)
        replies = yield Trip(b"".join(commands), asked)
        if len(wanted) == 1:
            return replies[0], [replies[1:]]
        parts, start = [], 1
        for tokens in wanted:
            parts.append(replies[start : start + len(tokens)])
            start += len(tokens)
        return replies[0], parts

    def learn(self, _: Any) -> Steps[tuple[Any, dict[str, StoredView]]]:
        """See ``Source``; costs a round trip."""
        (texts,) = yield Trip(self._ask_records, 1)
        records = {
            name: StoredView.model_validate_json(text)
            for name, text in zip(self._views, texts, strict=True)
            if text is not None
        }
        found = [records[name].tag if name in records else None for name in self._views]
        return found, records

    def stamps(self, stamps: Sequence[Any]) -> np.ndarray:
        """See ``Source``."""
        if set(map(type, stamps)) == {bytes}:
            data = b"".join(stamps)
            if len(data) == _WHOLE_SECONDS * len(stamps):
                parts = np.frombuffer(data, np.uint8).reshape(-1, _WHOLE_SECONDS)
                # Of one field, the seconds, in five bytes: the years 1978 to 3058.
                if ((parts & 0x80) == _CONTINUED).all() and (parts[:, 0] == _SECONDS_FIELD).all():
                    seconds: np.ndarray = (parts[:, 1:] & 0x7F) @ _SEVEN_BITS
                    return seconds * 1_000_000
        return np.fromiter(map(self.stamp, stamps), np.int64, len(stamps))

    def expected_stamp(self, event: Any, _: Any) -> Any:
        """See ``Source``: Feast keeps event times to the microsecond, and no created times."""
        return event

    def messages(
        self, view: ViewRead, entity_keys: Sequence[bytes]
    ) -> Steps[list[tuple[int, int, list[bytes]] | None]]:
        """See ``Source``; costs a round trip."""
        names = numbers_of(view)
        wanted = [layout.feature_field(view.view, name) for name in names]
        head, tail = _hmget_around([layout.timestamp_field(view.view), *wanted])
        keys = [layout.entity_hash(key, self._project) for key in entity_keys]
        asked = b"".join([b"%b$%d\r\n%b\r\n%b" % (head, len(key), key, tail) for key in keys])
        found: list[tuple[int, int, list[bytes]] | None] = []
        for stamp, *messages in (yield Trip(asked, len(keys))):
            if stamp is None:
                found.append(None)
            elif None in messages:
                missing = names[messages.index(None)]
                raise FeatureNotMaterialized(f"feature {missing} of view {view.view}", self.place)
            else:
                event = self.stamp(stamp)
                found.append((event, event, messages))
        return found

    def close(self) -> None:
        """See ``Source``."""
        self.trips.close()


def _fields(group: Group) -> list[bytes]:
    found = []
    for view in group.views:
        found += [layout.timestamp_field(view.view), layout.packed_field(view.view)]
        found += [layout.feature_field(view.view, name) for name in objects_of(view)]
    return found


def _hmget_around(wanted: Sequence[bytes]) -> tuple[bytes, bytes]:
    """What stands before and after the key in a command that asks for some fields."""
    head = b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(wanted))
    return head, b"".join([b"$%d\r\n%b\r\n" % (len(field), field) for field in wanted])


def _microseconds(stamp: Any) -> int:
    """A ``Timestamp`` message as microseconds since 1970."""
    if stamp is None:
        return int(NOTHING)
    try:
        found = {number: signed(value) for number, _, value in fields(stamp)}  # type: ignore[arg-type]
    except (WireBroken, TypeError) as error:
        raise StoredValueBroken("event time", "Timestamp", stamp) from error
    return found.get(1, 0) * 1_000_000 + found.get(2, 0) // 1000
