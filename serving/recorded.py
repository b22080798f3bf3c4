"""Counts and logs what the data plane answers, until the plane does that itself by the batch."""

import time
from datetime import UTC, datetime

from headrace.errors import HeadraceError
from monitoring.inference_log import Inference, InferenceLog
from serving.dataplane import DataPlane
from serving.metrics import Metrics
from serving.query import Answer, Done, Outcome, Query


class Recorded:
    """A data plane whose answers are counted and logged."""

    def __init__(self, plane: DataPlane, metrics: Metrics, log: InferenceLog) -> None:
        self._plane, self._metrics, self._log = plane, metrics, log
        self.matrix = plane.matrix

    def submit(self, query: Query, done: Done) -> None:
        """As ``DataPlane.submit``."""

        def told(asked: Query, outcome: Outcome) -> None:
            if not isinstance(outcome, HeadraceError):
                self._record(outcome)
            done(asked, outcome)

        self._plane.submit(query, told)

    async def infer(self, query: Query) -> Answer:
        """As ``DataPlane.infer``."""
        answer = await self._plane.infer(query)
        self._record(answer)
        return answer

    def _record(self, answer: Answer) -> None:
        query, model = answer.query, answer.model
        seconds = time.perf_counter() - query.received
        self._metrics.count(query.edge, 200, seconds)
        self._metrics.count_answer(query.edge, answer)  # type: ignore[arg-type]
        rows = query.given
        if query.instances and not query.partial:
            rows = model.schema.rows(query.instances)
        inference = Inference(
            request_id=query.request_id,
            received_at=datetime.now(UTC),
            edge=query.edge,
            digest=model.predictor.digest,
            revision=model.release.revision,
            plan=model.predictor.plan,
            matrix=answer.matrix,
            predictions=answer.predictions,
            latency_seconds=seconds,
            keys=rows.keys if rows else {},
            request=rows.request if rows else {},
            event_times=answer.event_times,
            statuses=answer.statuses,
        )
        self._log.record(inference)
