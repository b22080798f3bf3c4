"""A model whose answer for a row anybody can compute, and the queries that ask it."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np

from featurestore.vectors import input_matrix
from headrace.plan import pinned_transforms
from headrace.release import Release
from serving.query import Query
from serving.schema import RequestSchema
from serving.served import ServedModel

NAN_FROM, OUT_FROM = 7_000.0, 8_000.0
"""From which miles on the model answers NaN, and above 1."""


def oracle(row):
    """What the model answers for a row of raw features, from its miles alone."""
    miles = float(np.float32(row[3]))
    if miles >= OUT_FROM:
        return 2.0
    return np.nan if miles >= NAN_FROM else float(np.float32(miles) / np.float32(10_000))


@dataclass
class PlainPredictor:
    plan: object
    task: str = "binary"
    seconds: float = 0.0
    fails: Exception | None = None
    digest: str = "d" * 64

    def __post_init__(self):
        self.columns = self.plan.columns
        self.bundle = SimpleNamespace(
            manifest=SimpleNamespace(task=self.task, model="flight_delay", plan=self.plan)
        )
        self.calls = []
        self._transforms = pinned_transforms(self.plan, self.digest)

    def matrix(self, reads, request):
        return input_matrix(self.plan, self._transforms, reads, request)

    def predict(self, matrix):
        assert matrix.dtype == np.float32
        assert matrix.flags.c_contiguous
        assert matrix.shape[1] == len(self.columns)
        self.calls.append(len(matrix))
        if self.seconds:
            time.sleep(self.seconds)
        if self.fails:
            raise self.fails
        miles = matrix[:, 3]
        answers = miles / np.float32(10_000)
        answers[miles >= NAN_FROM] = np.nan
        answers[miles >= OUT_FROM] = 2.0
        return answers


def served(plan, reader, **options):
    release = Release(
        endpoint="flight_delay",
        revision=1,
        champion="d" * 64,
        moved_at=datetime(2013, 1, 1, tzinfo=UTC),
        moved_by="test",
        reason="test",
    )
    return ServedModel(release, PlainPredictor(plan, **options), reader, RequestSchema(plan))


def raw_query(model, miles, *, as_matrix=False, **options):
    """One row a number of miles; each row's second column tells whose it is."""
    rows = [[1.0, float(place), None, number, 8.0] for place, number in enumerate(miles)]
    features = [value for row in rows for value in row]
    if as_matrix:
        features = np.array(features, np.float32).reshape(len(rows), 5)
    return query(model, len(rows), features=features, **options)


def keyed_query(model, miles, **options):
    rows = [
        {
            "origin": "JFK",
            "tailnum": "N123AA",
            "scheduled_departure": "2013-08-01T12:00:00Z",
            "distance_miles": number,
        }
        for number in miles
    ]
    return query(model, len(rows), instances=rows, **options)


def query(model, rows, **options):
    return Query(model, "v2", rows, "id", time.perf_counter(), **options)


def ask(plane, *queries):
    """The outcome of each query, submitted in one turn; None for one that was never told."""

    async def gather():
        told = {}
        for each in queries:
            plane.submit(each, lambda one, outcome: told.setdefault(one, []).append(outcome))
        for _ in range(2_000):
            if all(each in told or each.done is None for each in queries):
                break
            await asyncio.sleep(0.001)
        assert all(len(outcomes) == 1 for outcomes in told.values())
        return [told[each][0] if each in told else None for each in queries]

    return asyncio.run(gather())
