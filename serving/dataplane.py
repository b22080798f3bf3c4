"""The one ``infer`` under every edge: queries in, answers out, no HTTP.

An edge takes a model once, makes a ``Query`` with it and submits that. What arrives for one model
in one turn of the event loop is one batch: keys are validated, features read, the model called and
its answers checked once for all of them; then every caller gets its own rows. A batch that would
hold the loop for long is computed on a thread, and what arrives meanwhile is the next batch.

Everything here runs on the loop's thread, but for what a thread computes. Docs:
docs/online_inference.md.
"""

import asyncio
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError
from serving import query as queries
from serving.batching import ModelQueue
from serving.errors import DeadlineExceeded, Overloaded
from serving.features import inputs_of, read_inputs
from serving.inputs import Inputs, keyed_rows, raw_inputs
from serving.large import LARGE_ROWS, MOST_LARGE, Large, run_large
from serving.outputs import Run, answers, fail, run, tell
from serving.query import Computed, Done, Outcome, Query
from serving.recorder import Recorder
from serving.served import STATUS_NAMES, FeatureReader, ServedModel
from serving.settings import ServerSettings

if TYPE_CHECKING:
    from serving.results.batch import Found, Results

__all__ = ["STATUS_NAMES", "DataPlane", "FeatureReader", "ServedModel"]

_LOOP_SECONDS = 0.002
"""The longest that a batch may hold the event loop."""
_READS = 2
"""How many batches of one model read features at once; while they do, the next one gathers."""


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

    @property
    def waiting_requests(self) -> int:
        """How many queries wait for their batch."""
        queues = self._queues.values()
        return sum(len(q.raw.queries) + len(q.keyed.queries) for q in queues) + self._large

    @property
    def computing_rows(self) -> int:
        """How many rows threads compute now, large queries left out."""
        return sum(queue.busy_rows for queue in self._queues.values())

    def submit(self, query: Query, done: Done) -> None:
        """Answer ``query`` and tell ``done``, which may be before this returns.

        On the loop's thread only.
        """
        query.done = done
        queue = self._queues.get(id(query.model)) or self._open(query.model)
        waiting = queue.keyed if query.features is None else queue.raw
        if query.rows > LARGE_ROWS and self._is_large(query, queue):
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
        return await inputs_of(query)

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
                tell(query, DeadlineExceeded(now - query.deadline))
            else:
                alive.append(query)
        if self._recorder:
            self._recorder.begun(batch, alive, late, now)
        return alive

    def _prepare(self, queue: ModelQueue, batch: list[Query]) -> None:
        try:
            inputs = raw_inputs(batch[0].model, batch, tell)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for ever
            fail(batch, "prepare a batch", error)
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
            fail(inputs.queries, "look up results", error)
        else:
            self._hand_out_found(found)
            queue.ready += [rest] if rest else []
        self._turn(queue)

    async def _read_batch(self, queue: ModelQueue, batch: list[Query]) -> None:
        model = batch[0].model
        try:
            keyed = keyed_rows(model, batch, tell)
            if keyed and self._results:
                found, keyed = await self._results.keyed(model, keyed)
                self._hand_out_found(found)
            if keyed:
                read = await read_inputs(model, keyed)
                # Not `ready += await ...`: that would add to the list as it was before waiting,
                # which a thread may be computing by then.
                queue.ready += read
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for ever
            fail(batch, "read features", error)
        finally:
            queue.reads -= 1
        self._turn(queue)

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
            fail([query for some in inputs for query in some.queries], "compute", error)
        else:
            self._deliver(queue, inputs, ran)

    def _ran(self, queue: ModelQueue, inputs: list[Inputs], running: asyncio.Future[Run]) -> None:
        """A thread has computed a batch: tell its queries, and begin what has gathered since."""
        queue.busy_rows = 0
        if error := running.exception():
            fail([query for some in inputs for query in some.queries], "compute", error)
        else:
            self._deliver(queue, inputs, running.result())
        self._turn(queue)

    def _deliver(self, queue: ModelQueue, inputs: list[Inputs], ran: Run) -> None:
        for some, batch in zip(inputs, ran.batches, strict=True):
            self._hand_out(some, batch, ran)
            if self._results:
                self._results.keep(some.queries[0].model, some, batch)
        if self._recorder:
            self._recorder.ran(inputs[0].queries[0], ran)
        queue.cost.measured(ran.rows, ran.seconds)
        queue.pace.measured(ran.rows, time.perf_counter() - ran.begun)
        settings = self._settings
        queue.most_rows = queue.pace.most_rows(settings.max_wait_seconds, settings.max_batch_rows)

    def _hand_out(self, inputs: Inputs, batch: Computed, ran: Run | None = None) -> None:
        """Give every query of a batch its own rows; ``ran`` is None for results that were kept."""
        model, null = inputs.queries[0].model, self._settings.on_not_finite == "null"
        answered = [
            tell(query, outcome) and type(outcome) is queries.Answer
            for query, outcome in answers(model, inputs, batch, null_not_finite=null)
        ]
        if self._recorder:
            self._recorder.answered(inputs, batch, answered, ran)

    def _hand_out_found(self, found: "Found | None") -> None:
        if found:
            self._hand_out(found.inputs, found.computed)

    def _is_large(self, query: Query, queue: ModelQueue) -> bool:
        return query.features is None or queue.cost.seconds(query.rows) > _LOOP_SECONDS

    def _start_large(self, query: Query, queue: ModelQueue) -> None:
        if self._large >= MOST_LARGE:
            why = f"{self._large} requests of more than {LARGE_ROWS} rows wait already"
            self._shed(query, "large", why)
            return
        self._large += 1
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._large_thread, run_large, query)
        running.add_done_callback(partial(self._ran_large, query, queue))

    def _ran_large(self, query: Query, queue: ModelQueue, running: "asyncio.Future[Large]") -> None:
        self._large -= 1
        if error := running.exception():
            fail([query], "compute", error)
            return
        large = running.result()
        if large.outcome:
            tell(query, large.outcome)
        elif large.inputs and large.ran:
            self._deliver(queue, [large.inputs], large.ran)

    def _shed(self, query: Query, reason: str, why: str) -> None:
        if self._recorder:
            self._recorder.shed(query, reason)
        tell(query, Overloaded(why))
