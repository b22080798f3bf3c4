"""How far a run is: in its log, and in Prefect as a progress artifact and a table of the shards.

Scoring never waits for it. A thread of its own tells Prefect, at a bounded rate; while Prefect's
API is away it tries on, says so once in the log, and the run goes on.
"""

import contextlib
import contextvars
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Literal, Self

import httpx
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException

from tasks.batch.output import ShardRecord
from tasks.batch.plan import BatchPlan, Shard

State = Literal["waiting", "running", "done", "kept", "failed"]
_ORDER: tuple[State, ...] = ("failed", "running", "waiting", "done", "kept")

INTERVAL_SECONDS = 2.0
"""Between two lines of the log, and between two updates in Prefect."""

_TABLE_ROWS = 300  # of a run with more shards, the ones that are worth a look come first
_END_SECONDS = 5.0  # how long the end of a run waits for Prefect to hear of it

Logger = logging.Logger | logging.LoggerAdapter[Any]


class Progress:
    """The states of a run's shards, as they become known."""

    def __init__(self, plan: BatchPlan, logger: Logger, *, recorded: frozenset[str]) -> None:
        """Args are the plan, where to say it, and the shards that have a record from before."""
        self._shards = {shard.id: shard for shard in plan.shards}
        self._recorded = recorded & set(self._shards)
        self._states: dict[str, State] = dict.fromkeys(self._shards, "waiting")
        self._records: dict[str, ShardRecord] = {}
        self._reasons: dict[str, str] = {}
        self._rows, self._scored_rows, self._done_rows = plan.rows, 0, 0
        self._logger, self._begun = logger, time.monotonic()
        self._said = self._begun
        self._lock = threading.Lock()
        self._prefect = _Prefect(plan, logger, self._share, self._table)

    def __enter__(self) -> Self:
        if self._recorded:
            self._logger.info(
                "%s of %s shards have a record from before and are kept if their parts are whole",
                len(self._recorded),
                len(self._shards),
            )
        self._prefect.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._say()
        self._prefect.stop()

    def began(self, shard: str) -> None:
        """A shard was handed to a worker."""
        with self._lock:
            self._states[shard] = "running"

    def done(self, record: ShardRecord) -> None:
        """A shard is recorded."""
        with self._lock:
            is_kept = record.shard in self._recorded
            self._states[record.shard] = "kept" if is_kept else "done"
            self._records[record.shard] = record
            self._done_rows += record.rows
            self._scored_rows += 0 if is_kept else record.rows
        self._prefect.changed()
        if time.monotonic() - self._said >= INTERVAL_SECONDS:
            self._say()

    def failed(self, shard: str, error: Exception) -> None:
        """A shard has failed for good."""
        with self._lock:
            self._states[shard] = "failed"
            self._reasons[shard] = str(error) or type(error).__name__
        self._prefect.changed()
        self._logger.error("shard %s failed: %s", shard, self._reasons[shard])

    def _share(self) -> float:
        with self._lock:
            return 100.0 * self._done_rows / self._rows if self._rows else 100.0

    def _say(self) -> None:
        self._said = time.monotonic()
        with self._lock:
            done, scored = self._done_rows, self._scored_rows
            counts = Counter(self._states.values())
        rate = scored / max(self._said - self._begun, 1e-3)
        left = f"{(self._rows - done) / rate:,.0f} s left" if rate else "time left unknown"
        self._logger.info(
            "%s of %s rows (%.0f%%), %s rows/s, %s; shards: %s",
            f"{done:,}",
            f"{self._rows:,}",
            100.0 * done / self._rows if self._rows else 100.0,
            f"{rate:,.0f}",
            left,
            ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state]) or "none",
        )

    def _table(self) -> list[dict[str, Any]]:
        with self._lock:
            ordered = sorted(self._shards.values(), key=lambda s: _ORDER.index(self._states[s.id]))
            return [self._line(shard) for shard in ordered[:_TABLE_ROWS]]

    def _line(self, shard: Shard) -> dict[str, Any]:
        record = self._records.get(shard.id)
        return {
            "shard": shard.id,
            "state": self._states[shard.id],
            "file": shard.piece.uri,
            "first row": shard.piece.first_row,
            "rows": shard.rows,
            "rejected": record.rejected.rows if record and record.rejected else 0,
            "reason": self._reasons.get(shard.id, ""),
        }


class _Prefect:
    """Tells Prefect what changed, from a thread of its own that holds up nobody."""

    def __init__(
        self,
        plan: BatchPlan,
        logger: Logger,
        share: Callable[[], float],
        table: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._key = f"{plan.model.replace('_', '-').replace('.', '-')}-batch"
        self._title = f"{plan.rows:,} rows of {plan.source}, run {plan.run}"
        self._logger, self._share, self._table = logger, share, table
        self._changed, self._ended = threading.Event(), threading.Event()
        self._was_away = False
        self._progress: Any = None
        self._shards: Any = None
        context = contextvars.copy_context()  # artifacts belong to the task run of this thread
        self._thread = threading.Thread(target=context.run, args=(self._tell_all,), daemon=True)

    def start(self) -> None:
        self._changed.set()
        self._thread.start()

    def changed(self) -> None:
        self._changed.set()

    def stop(self) -> None:
        self._changed.set()
        self._ended.set()
        self._thread.join(_END_SECONDS)

    def _tell_all(self) -> None:
        while not self._ended.is_set():
            if self._changed.is_set():
                self._changed.clear()
                self._tell()
            self._ended.wait(INTERVAL_SECONDS)
        self._tell()

    def _tell(self) -> None:
        with self._though_away():
            share = self._share()
            if self._progress is None:
                self._progress = create_progress_artifact(
                    progress=share, key=self._key, description=self._title
                )
            else:
                update_progress_artifact(self._progress, progress=share)
            self._tell_shards()

    def _tell_shards(self) -> None:
        table = self._table()
        if self._shards is None:
            self._shards = create_table_artifact(
                table=table, key=f"{self._key}-shards", description=self._title
            )
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._shards, ArtifactUpdate(data=json.dumps(table)))

    @contextlib.contextmanager
    def _though_away(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, PrefectException, OSError, RuntimeError) as error:
            self._changed.set()  # to be tried again
            if not self._was_away:
                self._logger.warning(
                    "Prefect cannot be told of the progress (%s); the run goes on without it", error
                )
            self._was_away = True
