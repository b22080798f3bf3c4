"""The online store in Redis: Feast's layout and the packed rows beside it (``redis_layout``).

Rows are compared and written by a script inside Redis, a batch at a time, so no other writer can
come between the two. While Redis works on one batch, the next one is encoded.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import hiredis
import numpy as np
import pyarrow as pa

from featurestore.errors import OnlineStoreFailed, ViewReplaced
from featurestore.stores import redis_layout as layout
from featurestore.stores.redis_calls import call, create_transactions, write_calls
from featurestore.stores.redis_scripts import PUT_VIEW, SWEEP, WRITE
from featurestore.stores.resp import Connection, command, shown
from featurestore.stores.rows import EncodedRows, encode_rows
from featurestore.stores.stored import StoredView, read_record
from featurestore.wire.entity_key import EntityKeyWriter

TIMEOUT_SECONDS = 30.0
"""The longest wait for Redis to answer."""
_ENCODED_ROWS = 8192  # at a time, while the ones before are under way
_SCAN_KEYS = 1000

_log = logging.getLogger(__name__)


class RedisStore:
    """The online store of one Feast project in one Redis database. For one thread at a time."""

    chunk_rows = 131_072
    in_key_order = False

    def __init__(self, url: str, project: str) -> None:
        """Connect.

        Raises:
            OnlineStoreFailed: if the server cannot be reached, or refuses.
        """
        self._url, self._project = url, project
        self.place = shown(url)
        self._connection: Connection | None = None
        self._takes_payloads = True
        self._on_known_entities: set[str] = set()  # views that share their entities with others
        self._connect()

    def views(self) -> dict[str, StoredView]:
        """See ``OnlineStore``."""
        (found,) = self._ask(command(b"HGETALL", layout.views_hash(self._project)))
        views = [name.decode() for name in found[::2]]
        pairs = zip(views, found[1::2], strict=True)
        return {view: read_record(view, record, self.place) for view, record in pairs}

    def put_view(self, stored: StoredView) -> bool:
        """See ``OnlineStore``."""
        keys = [layout.views_hash(self._project), layout.tags_hash(self._project)]
        record = stored.model_dump_json().encode()
        words = [stored.view.view.encode(), stored.tag, record]
        (written,) = self._ask(call(PUT_VIEW, keys, words))
        return bool(written)

    def write(
        self,
        stored: StoredView,
        rows: pa.Table,
        *,
        then: Callable[[int], StoredView] | None = None,
    ) -> int:
        """See ``OnlineStore``. A killed write leaves each entity's row whole, old or new."""
        written = 0
        under_way: Future[int] | None = None
        with ThreadPoolExecutor(1) as sender:
            for start in range(0, len(rows), _ENCODED_ROWS):
                job = self._job(stored, encode_rows(stored, rows.slice(start, _ENCODED_ROWS)))
                written += under_way.result() if under_way else 0
                under_way = sender.submit(job)
            written += under_way.result() if under_way else 0
        if then is not None:
            self.put_view(then(written))
        return written

    @contextlib.contextmanager
    def anew(self, stored: StoredView) -> Iterator[None]:
        """See ``OnlineStore``."""
        if not self.put_view(stored):
            raise ViewReplaced(stored.view.view, self.place)
        yield

    def sweep(self, stored: StoredView) -> None:
        """See ``OnlineStore``."""
        view = stored.view.view
        names = {feature.name for feature in stored.view.features}.union(stored.replaced)
        fields = [layout.packed_field(view), layout.timestamp_field(view)]
        fields += [layout.feature_field(view, name) for name in sorted(names)]
        pattern = _escaped(EntityKeyWriter(stored.view.join_keys).head) + b"*"
        pattern += _escaped(self._project.encode())
        cursor, tags = b"0", layout.tags_hash(self._project)
        while True:
            scan = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % _SCAN_KEYS)
            ((cursor, keys),) = self._ask(command(*scan))
            if keys:
                words = [view.encode(), stored.tag, *fields]
                (swept,) = self._ask(call(SWEEP, [tags, *keys], words))
                if swept == -1:
                    raise ViewReplaced(view, self.place)
            if cursor == b"0":
                return

    def close(self) -> None:
        """See ``OnlineStore``."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(self._url, timeout_seconds=TIMEOUT_SECONDS)
            loads = [command(b"SCRIPT", b"LOAD", s) for s in (WRITE, PUT_VIEW, SWEEP)]
            try:
                self._connection.ask(loads, replies=len(loads))
            except OnlineStoreFailed:
                self.close()
                raise
        return self._connection

    def _ask(self, *commands: bytes, replies: int | None = None) -> list[Any]:
        connection = self._connect()
        try:
            return connection.ask(commands, replies=replies or len(commands))
        except OnlineStoreFailed:
            self.close()  # answers may still be under way; the next call connects again
            raise

    def _job(self, stored: StoredView, rows: EncodedRows) -> Callable[[], int]:
        """What writes some rows, with all commands ready to be sent."""
        view = stored.view.view
        first_load = stored.loading and stored.generation == 1
        if first_load and self._takes_payloads and view not in self._on_known_entities:
            transactions = create_transactions(self._project, stored, rows)
            if transactions is not None:
                return partial(self._create, stored, rows, transactions)
        return partial(self._write, stored, write_calls(self._project, stored, rows))

    def _create(
        self, stored: StoredView, rows: EncodedRows, transactions: list[tuple[bytes, int]]
    ) -> int:
        """Make the hashes that are not there and write the rows of the others."""
        there: list[int] = []
        try:
            done = 0
            for transaction, size in transactions:
                made = self._transact(stored, transaction, size)
                refused = [row for row, reply in enumerate(made) if reply != b"OK"]
                for row in refused:
                    if not str(made[row]).startswith("BUSYKEY"):
                        raise OnlineStoreFailed("write", self.place, made[row]) from made[row]
                there += [done + row for row in refused]
                done += size
        except OnlineStoreFailed as error:
            if not isinstance(error.reason, hiredis.ReplyError):
                raise
            _log.info("%s takes no payloads (%s): rows are written by HSET", self.place, error)
            self._takes_payloads = False
            return self._write(stored, write_calls(self._project, stored, rows))
        if not there:
            return len(rows.keys)
        if len(there) > len(rows.keys) / 2:
            self._on_known_entities.add(stored.view.view)
        others = rows.take(np.array(there))
        written = self._write(stored, write_calls(self._project, stored, others))
        return len(rows.keys) - len(there) + written

    def _transact(self, stored: StoredView, transaction: bytes, size: int) -> list[Any]:
        """The replies of a transaction, which ran while the view had this generation only."""
        view, tags = stored.view.view.encode(), layout.tags_hash(self._project)
        while True:
            _, tag = self._ask(command(b"WATCH", tags), command(b"HGET", tags, view))
            if tag != stored.tag:
                raise ViewReplaced(stored.view.view, self.place)
            *_, made = self._ask(transaction, replies=size + 2)
            if made is not None:  # None: some view's record was written in between
                return list(made)

    def _write(self, stored: StoredView, calls: list[bytes]) -> int:
        written = self._ask(*calls)
        if -1 in written:
            raise ViewReplaced(stored.view.view, self.place)
        return sum(written)


def _escaped(text: bytes) -> bytes:
    """Bytes as a pattern of SCAN that means just them."""
    return re.sub(rb"([*?\[\]\\^])", rb"\\\1", text)
