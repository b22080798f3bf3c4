"""What the server counts, in Prometheus' words; one registry a server, so tests can have many."""

from collections.abc import Iterator

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from monitoring.inference_log import InferenceLog
from serving.dataplane import STATUS_NAMES, Answer
from serving.followed import Endpoint

# From a warm single row to a full batch; the default buckets begin at 5 ms.
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The counters of one server."""

    def __init__(self, endpoint: Endpoint, log: InferenceLog) -> None:
        self._registry = registry = CollectorRegistry()
        self._model = endpoint.name
        self._requests = Counter(
            "inference_requests_total",
            "Inference requests, by edge and HTTP status.",
            ["model", "edge", "status"],
            registry=registry,
        )
        self._rows = Counter(
            "inference_rows_total", "Rows answered.", ["model", "edge"], registry=registry
        )
        self._duration = Histogram(
            "inference_request_duration_seconds",
            "From the end of the request's headers to its answer.",
            ["model", "edge"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._reads = Counter(
            "feature_reads_total",
            "Online reads, by view and by what was found.",
            ["model", "view", "status"],
            registry=registry,
        )
        self._degraded = Counter(
            "inference_degraded_total",
            "Answers for which the online store could not be asked.",
            ["model", "edge"],
            registry=registry,
        )
        registry.register(_State(endpoint, log))

    def count(self, edge: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(self._model, edge, str(status)).inc()
        self._duration.labels(self._model, edge).observe(seconds)

    def count_answer(self, edge: str, answer: Answer) -> None:
        """Count the rows and the reads of one answer."""
        self._rows.labels(self._model, edge).inc(len(answer.predictions))
        if answer.degraded:
            self._degraded.labels(self._model, edge).inc()
        for view, codes in answer.statuses.items():
            for code, reads in enumerate(np.bincount(codes, minlength=len(STATUS_NAMES)).tolist()):
                if reads:
                    self._reads.labels(self._model, view, STATUS_NAMES[code]).inc(reads)

    def text(self) -> bytes:
        """Everything counted so far, in the text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """Facts that live elsewhere, read when they are scraped."""

    def __init__(self, endpoint: Endpoint, log: InferenceLog) -> None:
        self._endpoint, self._log = endpoint, log

    def collect(self) -> Iterator[Metric]:
        endpoint, log = self._endpoint, self._log
        revision = endpoint.current.release.revision
        refused, unreachable = endpoint.refused is not None, endpoint.unreachable is not None
        if (cache := getattr(endpoint.current.reader, "cache", None)) is not None:
            hits, misses = "feature_cache_hits", "feature_cache_misses"
            yield self._counter(hits, "Entities found in the cache.", cache.hits)
            yield self._counter(misses, "Entities asked of the online store.", cache.misses)
        yield self._gauge("release_revision", "Revision that answers.", revision)
        yield self._gauge("release_refused", "1 while the newest release is refused.", refused)
        yield self._gauge("release_unreachable", "1 while releases cannot be read.", unreachable)
        dropped, written = "inference_log_dropped_rows", "inference_log_written_rows"
        yield self._counter(dropped, "Log rows dropped since the start.", log.dropped_rows)
        yield self._counter(written, "Log rows written since the start.", log.written_rows)

    def _gauge(self, name: str, told: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, told, labels=["model"])
        family.add_metric([self._endpoint.name], value)
        return family

    def _counter(self, name: str, told: str, value: float) -> Metric:
        family = CounterMetricFamily(name, told, labels=["model"])
        family.add_metric([self._endpoint.name], value)
        return family
