"""The one ``infer`` under every edge: queries in, answers out, no HTTP.

An edge takes a model once, makes a ``Query`` with it and submits that. What arrives for one model
in one turn of the event loop is one batch: keys are validated, features read, the model called and
its answers checked once for all of them; then every caller gets its own rows. A batch that would
hold the loop for long is computed on a thread, and what arrives meanwhile is the next batch.

Everything here runs on the loop's thread, but for what a thread computes. Docs:
docs/online_inference.md.
"""

import asyncio
import logging
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from featurestore.errors import EntityKeyRefused, StoredValueBroken
from featurestore.freshness import ReadStatus
from featurestore.online.reader import OnlineRows
from headrace.errors import HeadraceError
from serving import query as queries
from serving.batching import ModelQueue
from serving.errors import (
    DeadlineExceeded,
    NotFinite,
    OnlineStoreFailing,
    Overloaded,
    PlaneFailed,
)
from serving.inputs import Inputs, KeyedRows, keyed_inputs, keyed_rows, raw_inputs, split
from serving.outputs import Run, answers, run
from serving.query import Computed, Done, Outcome, Query
from serving.recorder import Recorder
from serving.schema import Rows
from serving.served import STATUS_NAMES, FeatureReader, ServedModel
from serving.settings import ServerSettings

if TYPE_CHECKING:
    from serving.results.batch import Found, Results

__all__ = ["STATUS_NAMES", "DataPlane", "FeatureReader", "ServedModel", "read_features"]

_LOOP_SECONDS = 0.002
"""The longest that a batch may hold the event loop."""
_LARGE_ROWS = 512
"""A query of more rows is work enough for a batch of its own, and others do not wait for it."""
_MOST_LARGE = 8
"""How many such queries may wait."""
_READS = 2
"""How many batches of one model read features at once; while they do, the next one gathers."""
_OF_ROWS = (EntityKeyRefused, StoredValueBroken)
"""What lies in the keys that certain rows ask for, or in the values stored for them."""
_logger = logging.getLogger(__name__)


class DataPlane:
    """Answers queries of any number of models; one for a process and its event loop."""

    def __init__(
        self,
        settings: ServerSettings,
        results: "Results | None" = None,
        recorder: Recorder | None = None,
    ) -> None:
        """Wait for queries.

        Args:
            settings: bounds of batches and of waiting.
            results: results that are kept; None: every query is computed.
            recorder: told of every batch; None: nothing is counted or logged.
        """
        self._settings, self._results, self._recorder = settings, results, recorder
        self._queues: dict[int, ModelQueue] = {}  # by id() of a model that is alive
        self._reading: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="batch")
        self._large_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-batch")
        self._large = 0

    def submit(self, query: Query, done: Done) -> None:
        """Answer ``query`` and tell ``done``, which may be before this returns.

        On the loop's thread only.
        """
        query.done = done
        queue = self._queues.get(id(query.model)) or self._open(query.model)
        waiting = queue.keyed if query.features is None else queue.raw
        if query.rows > _LARGE_ROWS and self._is_large(query, queue):
            self._start_large(query, queue)
            return
        if waiting.rows + queue.busy_rows > queue.most_rows:
            self._shed(query, "rows", f"{waiting.rows:,} rows wait already")
            return
        if len(waiting.queries) >= self._settings.max_waiting:
            self._shed(query, "requests", f"{len(waiting.queries):,} requests wait already")
            return
        waiting.queries.append(query)
        waiting.rows += query.rows
        if not queue.due:
            queue.due = True
            asyncio.get_running_loop().call_soon(self._turn, queue)

    async def infer(self, query: Query) -> "queries.Answer":
        """Return the answer to ``query``; where the caller is cancelled, the query is dropped.

        Raises:
            HeadraceError: as ``done`` would be told.
        """
        waiter: asyncio.Future[queries.Answer] = asyncio.get_running_loop().create_future()

        def done(_: Query, outcome: Outcome) -> None:
            if waiter.done():  # cancelled in this turn
                return
            if isinstance(outcome, HeadraceError):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(outcome)

        self.submit(query, done)
        try:
            return await waiter
        finally:
            query.drop()

    async def matrix(self, query: Query) -> Inputs:
        """Return what the model would see of ``query``: reads and transforms, no prediction.

        Raises:
            HeadraceError: as ``infer``.
        """
        refused: list[HeadraceError] = []

        def tell(_: Query, outcome: Outcome) -> None:
            if isinstance(outcome, HeadraceError):
                refused.append(outcome)

        if query.features is not None:
            inputs = raw_inputs(query.model, [query], tell)
        elif keyed := keyed_rows(query.model, [query], tell):
            inputs = keyed_inputs(
                query.model, keyed, await read_features_async(query.model, keyed.rows)
            )
        else:
            inputs = None
        if inputs is None:
            raise refused[0]
        return inputs

    def close(self) -> None:
        """Let go of the threads once they have computed what they have begun."""
        self._threads.shutdown(wait=False)
        self._large_thread.shutdown(wait=False)

    def _open(self, model: ServedModel) -> ModelQueue:
        queue = self._queues[id(model)] = ModelQueue()
        weakref.finalize(model, self._queues.pop, id(model), None)
        return queue

    def _turn(self, queue: ModelQueue) -> None:
        """Begin what has gathered for a model, as far as it is not busy."""
        queue.due = False
        most = self._settings.max_batch_rows
        self._start_reads(queue, most)  # the store works while the model does
        while not queue.busy_rows and (queue.raw.queries or queue.ready):
            if queue.raw.queries and (batch := self._alive(queue.raw.take(most))):
                self._prepare(queue, batch)
            if queue.ready:
                self._compute(queue)
        self._start_reads(queue, most)

    def _start_reads(self, queue: ModelQueue, most_rows: int) -> None:
        """Read features of what has gathered, but not further ahead than the model can follow."""
        while queue.keyed.queries and queue.reads + len(queue.ready) < _READS:
            if batch := self._alive(queue.keyed.take(most_rows)):
                queue.reads += 1
                task = asyncio.get_running_loop().create_task(self._read_batch(queue, batch))
                self._reading.add(task)
                task.add_done_callback(self._reading.discard)

    def _alive(self, batch: list[Query]) -> list[Query]:
        """The queries that somebody still waits for; those that are late are told so."""
        now = time.perf_counter()
        alive, late = [], 0
        for query in batch:
            if query.done is None:
                continue
            if query.deadline is not None and query.deadline < now:
                late += 1
                self._tell(query, DeadlineExceeded(now - query.deadline))
            else:
                alive.append(query)
        if self._recorder:
            self._recorder.begun(batch, alive, late, now)
        return alive

    def _prepare(self, queue: ModelQueue, batch: list[Query]) -> None:
        try:
            inputs = raw_inputs(batch[0].model, batch, self._tell)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for ever
            self._fail(batch, "prepare a batch", error)
            return
        if inputs is None:
            return
        if self._results is None:
            queue.ready.append(inputs)
        elif self._results.is_shared:
            task = asyncio.get_running_loop().create_task(self._look_up(queue, inputs))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
        else:
            found, rest = self._results.raw_here(batch[0].model, inputs)
            self._hand_out_found(found)
            queue.ready += [rest] if rest else []

    async def _look_up(self, queue: ModelQueue, inputs: Inputs) -> None:
        """Look for results of raw features in Redis; what is not there is to be computed."""
        assert self._results is not None
        try:
            found, rest = await self._results.raw(inputs.queries[0].model, inputs)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for ever
            self._fail(inputs.queries, "look up results", error)
        else:
            self._hand_out_found(found)
            queue.ready += [rest] if rest else []
        self._turn(queue)

    async def _read_batch(self, queue: ModelQueue, batch: list[Query]) -> None:
        model = batch[0].model
        try:
            keyed = keyed_rows(model, batch, self._tell)
            if keyed and self._results:
                found, keyed = await self._results.keyed(model, keyed)
                self._hand_out_found(found)
            if keyed:
                queue.ready += await self._read(model, keyed)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for ever
            self._fail(batch, "read features", error)
        finally:
            queue.reads -= 1
        self._turn(queue)

    async def _read(self, model: ServedModel, keyed: KeyedRows) -> list[Inputs]:
        begun = time.perf_counter()
        try:
            read = await read_features_async(model, keyed.rows)
            if self._recorder:
                self._recorder.read(keyed.queries[0], time.perf_counter() - begun)
            return [keyed_inputs(model, keyed, read)]
        except OnlineStoreFailing as error:
            if not error.of_rows:
                raise
            if len(keyed.queries) == 1:
                self._tell(keyed.queries[0], error)
                return []
        return [inputs for alone in split(keyed) for inputs in await self._read(model, alone)]

    def _compute(self, queue: ModelQueue) -> None:
        """Let the model answer what is ready, on the loop where that is quick, else on a thread."""
        inputs, queue.ready = queue.ready, []
        model, rows = inputs[0].queries[0].model, sum([len(some.matrix) for some in inputs])
        if queue.cost.seconds(rows) > _LOOP_SECONDS:
            queue.busy_rows = rows
            running = asyncio.get_running_loop().run_in_executor(self._threads, run, model, inputs)
            running.add_done_callback(partial(self._ran, queue, inputs))
            return
        try:
            ran = run(model, inputs)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for ever
            self._fail([query for some in inputs for query in some.queries], "compute", error)
        else:
            self._deliver(queue, inputs, ran)

    def _ran(self, queue: ModelQueue, inputs: list[Inputs], running: asyncio.Future[Run]) -> None:
        """A thread has computed a batch: tell its queries, and begin what has gathered since."""
        queue.busy_rows = 0
        if error := running.exception():
            self._fail([query for some in inputs for query in some.queries], "compute", error)
        else:
            self._deliver(queue, inputs, running.result())
        self._turn(queue)

    def _deliver(self, queue: ModelQueue, inputs: list[Inputs], ran: Run) -> None:
        for some, batch in zip(inputs, ran.batches, strict=True):
            self._hand_out(some, batch)
            if self._results:
                self._results.keep(some.queries[0].model, some, batch)
        if self._recorder:
            self._recorder.ran(inputs[0].queries[0], ran)
        queue.cost.measured(ran.rows, ran.seconds)
        queue.pace.measured(ran.rows, time.perf_counter() - ran.begun)
        settings = self._settings
        queue.most_rows = queue.pace.most_rows(settings.max_wait_seconds, settings.max_batch_rows)

    def _hand_out(self, inputs: Inputs, batch: Computed) -> None:
        """Give every query of a batch its own rows."""
        model, null = inputs.queries[0].model, self._settings.on_not_finite == "null"
        answered = [
            self._tell(query, outcome) and type(outcome) is queries.Answer
            for query, outcome in answers(model, inputs, batch, null_not_finite=null)
        ]
        if self._recorder:
            self._recorder.answered(inputs, batch, answered)

    def _hand_out_found(self, found: "Found | None") -> None:
        if found:
            self._hand_out(found.inputs, found.computed)

    def _is_large(self, query: Query, queue: ModelQueue) -> bool:
        return query.features is None or queue.cost.seconds(query.rows) > _LOOP_SECONDS

    def _start_large(self, query: Query, queue: ModelQueue) -> None:
        if self._large >= _MOST_LARGE:
            why = f"{self._large} requests of more than {_LARGE_ROWS} rows wait already"
            self._shed(query, "large", why)
            return
        self._large += 1
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._large_thread, _run_large, query)
        running.add_done_callback(partial(self._ran_large, query, queue))

    def _ran_large(
        self, query: Query, queue: ModelQueue, running: "asyncio.Future[_Large]"
    ) -> None:
        self._large -= 1
        if error := running.exception():
            self._fail([query], "compute", error)
            return
        large = running.result()
        if large.outcome:
            self._tell(query, large.outcome)
        elif large.inputs and large.ran:
            self._deliver(queue, [large.inputs], large.ran)

    def _shed(self, query: Query, reason: str, why: str) -> None:
        if self._recorder:
            self._recorder.shed(query, reason)
        self._tell(query, Overloaded(why))

    def _fail(self, batch: Sequence[Query], step: str, error: BaseException) -> None:
        if not isinstance(error, HeadraceError):
            _logger.error("the data plane could not %s", step, exc_info=error)
            error = PlaneFailed(step)
        for query in batch:
            self._tell(query, error)

    def _tell(self, query: Query, outcome: Outcome) -> bool:
        """Tell who waits for a query, once; False if nobody does."""
        done = query.done
        if done is None:
            return False
        query.done = None
        try:
            done(query, outcome)
        except Exception:
            # The neighbours of a query whose edge fails are told all the same.
            _logger.exception(
                "edge=%s request_id=%s was not answered", query.edge, query.request_id
            )
        return True


@dataclass(slots=True)
class _Large:
    """What became of a large query on its thread; nothing at all if it was dropped before."""

    outcome: Outcome | None = None
    inputs: Inputs | None = None
    ran: Run | None = None


def _run_large(query: Query) -> _Large:
    large, model = _Large(), query.model

    def tell(_: Query, outcome: Outcome) -> None:
        large.outcome = outcome

    if query.done is None:
        return large
    if query.deadline is not None and (late := time.perf_counter() - query.deadline) > 0:
        return _Large(DeadlineExceeded(late))
    if query.features is not None:
        large.inputs = raw_inputs(model, [query], tell)
    elif keyed := keyed_rows(model, [query], tell):
        read = read_features(model, keyed.rows.keys, keyed.rows.at)
        large.inputs = keyed_inputs(model, keyed, read)
    if large.inputs:
        large.ran = run(model, [large.inputs])
    return large


async def read_features_async(model: ServedModel, rows: Rows) -> OnlineRows:
    """Return the feature values of each row's entities, leaving the loop free meanwhile.

    Raises:
        OnlineStoreFailing: as ``read_features``.
    """
    try:
        return await model.reader.read_async(rows.keys, rows.at)
    except HeadraceError as error:
        raise OnlineStoreFailing(error, of_rows=isinstance(error, _OF_ROWS)) from error


def read_features(
    model: ServedModel, keys: Mapping[str, Sequence[str | int | None]], at: np.ndarray
) -> OnlineRows:
    """Return the feature values of each row's entities.

    Raises:
        OnlineStoreFailing: if the store cannot give them.
    """
    try:
        return model.reader.read(keys, at)
    except HeadraceError as error:
        raise OnlineStoreFailing(error, of_rows=isinstance(error, _OF_ROWS)) from error


# What follows serves the edges that do not submit queries yet.


@dataclass(frozen=True)
class Answer:
    """Predictions, and what they rest on."""

    model: ServedModel
    matrix: np.ndarray
    """What the model saw: float32, shape (rows, columns)."""
    predictions: np.ndarray
    """float32, shape (rows,)."""
    rows: Rows | None = None
    """The request; None where raw features were sent."""
    statuses: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What became of each view's read, as codes of ``ReadStatus``, shape (rows,)."""
    event_times: Mapping[str, np.ndarray] = field(default_factory=dict)
    """When each view's values were true: datetime64[us], shape (rows,)."""

    @property
    def degraded(self) -> bool:
        """Whether a value is missing because the online store could not be asked."""
        return any((codes == ReadStatus.UNAVAILABLE).any() for codes in self.statuses.values())


def infer_keys(model: ServedModel, rows: Rows) -> Answer:
    """Answer rows of entity keys and request fields: read features, transform, predict.

    Raises:
        OnlineStoreFailing: if features cannot be read.
        NotFinite: if the model answers with NaN or infinity.
    """
    online = read_features(model, rows.keys, rows.at)
    matrix = model.predictor.matrix(online.columns, rows.request)
    predictions = _predict(model, matrix)
    return Answer(model, matrix, predictions, rows, online.status, online.event_times)


def infer_features(model: ServedModel, matrix: np.ndarray) -> Answer:
    """Answer rows of raw features: float32, shape (rows, columns), in the plan's order."""
    return Answer(model, matrix, _predict(model, matrix))


def _predict(model: ServedModel, matrix: np.ndarray) -> np.ndarray:
    predictions = model.predictor.predict(matrix)
    finite = np.isfinite(predictions)
    if not finite.all():
        row = int(np.argmin(finite))
        raise NotFinite(model.predictor.digest, row, float(predictions[row]))
    return predictions
