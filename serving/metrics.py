"""What the server counts, in Prometheus' words: a batch at a time, and in all processes together.

The data plane counts what it answers; who tells a caller an error counts that. What counts by
itself (the log, caches, releases) is copied here once a second and before each scrape.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.counters import Count, Counters, Histogram, Kind, Series
from serving.served import STATUS_NAMES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a warm single row to a full batch; Prometheus' usual buckets begin at 5 ms.
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SHORT_SECONDS = (0.00005, 0.0001, 0.00025, *_SECONDS)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0)


class EdgeMetrics:
    """What is counted of one model's answers through one edge."""

    __slots__ = ("degraded", "requests", "rows", "seconds")

    def __init__(self, counters: Counters, model: str, edge: str) -> None:
        labels = {"model": model, "edge": edge}
        told = "Inference requests, by edge and HTTP status."
        self.requests = counters.counter("inference_requests_total", told, **labels, status="200")
        self.rows = counters.counter("inference_rows_total", "Rows answered.", **labels)
        told = "From the end of the request's headers to its answer."
        name = "inference_request_duration_seconds"
        self.seconds = counters.histogram(name, told, _SECONDS, **labels)
        told = "Answers for which the online store could not be asked."
        self.degraded = counters.counter("inference_degraded_total", told, **labels)


class ModelMetrics:
    """What is counted of one model."""

    def __init__(self, counters: Counters, model: str) -> None:
        self._counters, self._model = counters, model
        self._edges: dict[str, EdgeMetrics] = {}
        self._reads: dict[tuple[str, int], Count] = {}
        self._shed: dict[str, Count] = {}
        self.batch_rows = self._histogram(
            "inference_batch_rows", "Rows that the model answered in one call.", _ROWS
        )
        self.model_seconds = self._histogram(
            "inference_model_duration_seconds", "One call of the model.", _SHORT_SECONDS
        )
        self.read_seconds = self._histogram(
            "feature_read_duration_seconds", "One read of a batch's features.", _SHORT_SECONDS
        )
        self.queue_seconds = self._histogram(
            "inference_queue_duration_seconds",
            "From a request's arrival to the beginning of its batch's computation.",
            _SHORT_SECONDS,
        )
        told = "Requests whose caller left before they were answered."
        self.cancelled = counters.counter("inference_cancelled_total", told, model=model)
        told = "Requests whose deadline was over before they were computed."
        self.late = counters.counter("inference_late_total", told, model=model)

    def edge(self, edge: str) -> EdgeMetrics:
        """What is counted of answers through ``edge``."""
        made = self._edges.get(edge)
        if made is None:
            made = self._edges[edge] = EdgeMetrics(self._counters, self._model, edge)
        return made

    def shed(self, reason: str) -> Count:
        """Requests that were refused because too many wait."""
        made = self._shed.get(reason)
        if made is None:
            told = "Requests refused because too much waits, by what there was too much of."
            labels = {"model": self._model, "reason": reason}
            made = self._shed[reason] = self._counters.counter(
                "inference_shed_total", told, **labels
            )
        return made

    def count_reads(self, statuses: Mapping[str, np.ndarray]) -> None:
        """Count what was found for each row of a batch."""
        for view, codes in statuses.items():
            data = codes.tobytes()
            for code in {0, *data}:
                if number := data.count(code):
                    self._read(view, code).add(number)

    def _read(self, view: str, code: int) -> Count:
        made = self._reads.get((view, code))
        if made is None:
            told = "Online reads, by view and by what was found."
            labels = {"model": self._model, "view": view, "status": STATUS_NAMES[code]}
            made = self._counters.counter("feature_reads_total", told, **labels)
            self._reads[view, code] = made
        return made

    def _histogram(self, name: str, told: str, edges: Sequence[float]) -> Histogram:
        return self._counters.histogram(name, told, edges, model=self._model)


class Metrics:
    """The numbers of one server, which may be several processes."""

    def __init__(self, folder: Path | None = None) -> None:
        """Begin to count.

        Args:
            folder: what the server's processes share; None: there is one process only.
        """
        self.counters = Counters(folder)
        self._models: dict[str, ModelMetrics] = {}
        self._refused: dict[tuple[str, str, int], Count] = {}
        self._sources: list[Callable[[Metrics], None]] = []
        self._refreshing = threading.Lock()

    def model(self, endpoint: str) -> ModelMetrics:
        """What is counted of the models of one endpoint."""
        made = self._models.get(endpoint)
        if made is None:
            made = self._models[endpoint] = ModelMetrics(self.counters, endpoint)
        return made

    def refused(self, edge: str, status: int, model: str = "") -> None:
        """Count a request that got an error; ``model`` is empty where it is not known."""
        made = self._refused.get((model, edge, status))
        if made is None:
            told = "Inference requests, by edge and HTTP status."
            labels = {"model": model, "edge": edge, "status": str(status)}
            made = self.counters.counter("inference_requests_total", told, **labels)
            self._refused[model, edge, status] = made
        made.add(1)

    def counter(self, name: str, told: str, /, **labels: str) -> Count:
        """A counter of another part; ask for it once, and keep it."""
        return self.counters.counter(name, told, **labels)

    def gauge(self, name: str, told: str, kind: Kind = "gauge", /, **labels: str) -> Count:
        """A gauge of another part; ask for it once, and keep it."""
        return self.counters.gauge(name, told, kind, **labels)

    def histogram(
        self, name: str, told: str, edges: Sequence[float], /, **labels: str
    ) -> Histogram:
        """A histogram of another part; ask for it once, and keep it."""
        return self.counters.histogram(name, told, edges, **labels)

    def follow(self, source: "Callable[[Metrics], None]") -> None:
        """Let ``source`` set its numbers, with ``put`` and ``reach``, whenever they are needed."""
        self._sources.append(source)

    def refresh(self) -> None:
        """Copy the numbers of all sources; called once a second, so other processes see them."""
        with self._refreshing:
            for source in self._sources:
                source(self)

    async def keep_fresh(self) -> None:
        """Refresh once a second, until cancelled."""
        while True:
            self.refresh()
            await asyncio.sleep(1.0)

    def text(self) -> bytes:
        """Everything that all processes have counted, in the text format.

        https://prometheus.io/docs/instrumenting/exposition_formats/
        """
        self.refresh()
        families: dict[str, _Family] = {}
        for series, values in self.counters.all_series():
            family = families.get(series.name)
            if family is None:
                family = families[series.name] = _Family(series, {})
            family.add(series, values)
        lines = (line for name in sorted(families) for line in families[name].lines())
        return "".join(f"{line}\n" for line in lines).encode()

    def close(self) -> None:
        """Leave what was counted to the next process."""
        self.refresh()
        self.counters.close()


_Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Family:
    """All series of one name, added up over processes."""

    like: Series
    totals: dict[tuple[_Labels, tuple[float, ...]], np.ndarray]

    def add(self, series: Series, values: np.ndarray) -> None:
        key = series.labels, series.edges
        known = self.totals.get(key)
        if known is None:
            self.totals[key] = values.copy()
        elif series.kind == "lowest":
            self.totals[key] = np.fmin(known, values)
        elif series.kind == "highest":
            self.totals[key] = np.fmax(known, values)
        else:
            self.totals[key] = known + np.nan_to_num(values)

    def lines(self) -> Iterable[str]:
        kind = self.like.kind if self.like.kind in ("counter", "histogram") else "gauge"
        yield f"# HELP {self.like.name} {self.like.told}"
        yield f"# TYPE {self.like.name} {kind}"
        for (labels, edges), values in sorted(self.totals.items(), key=lambda one: one[0]):
            if kind == "histogram":
                yield from self._histogram(labels, edges, values)
            elif not np.isnan(values[0]):
                yield _line(self.like.name, labels, float(values[0]))

    def _histogram(
        self, labels: _Labels, edges: tuple[float, ...], values: np.ndarray
    ) -> Iterable[str]:
        name, counts = self.like.name, np.cumsum(values[:-1]).tolist()
        for edge, count in zip([*map(str, edges), "+Inf"], counts, strict=True):
            yield _line(f"{name}_bucket", (*labels, ("le", edge)), count)
        yield _line(f"{name}_sum", labels, float(values[-1]))
        yield _line(f"{name}_count", labels, counts[-1])


def _line(name: str, labels: _Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(given)}"' for label, given in labels)
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
