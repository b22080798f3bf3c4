"""What other parts count or know by themselves, as metrics: releases, caches and the log."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

from monitoring.inference_log import InferenceLog, Reason
from serving.dataplane import DataPlane
from serving.metrics import Metrics
from serving.repository import ModelRepository

if TYPE_CHECKING:
    from serving.results.batch import Results


def of_models(repository: ModelRepository) -> Callable[[Metrics], None]:
    """What is known of each endpoint: its revision, its release's state, its reader's cache."""

    def put(metrics: Metrics) -> None:
        for name, endpoint in repository.endpoints.items():
            refused, unreachable = endpoint.refused is not None, endpoint.unreachable is not None
            told = "1 while the newest release is refused."
            metrics.gauge("release_refused", told, "highest", model=name).put(refused)
            told = "1 while releases cannot be read."
            metrics.gauge("release_unreachable", told, "highest", model=name).put(unreachable)
            if (model := endpoint.current) is None:
                continue
            told = "Revision that answers; the oldest where processes differ."
            revision = metrics.gauge("release_revision", told, "lowest", model=name)
            revision.put(model.release.revision)
            if (cache := getattr(model.reader, "cache", None)) is not None:
                _put_cache(metrics, name, cache)

    return put


def of_plane(plane: DataPlane) -> Callable[[Metrics], None]:
    """How much waits and is under way in the data plane."""

    def put(metrics: Metrics) -> None:
        told = "Requests that wait for their batch."
        metrics.gauge("inference_waiting_requests", told).put(plane.waiting_requests)
        told = "Rows that threads compute now."
        metrics.gauge("inference_computing_rows", told).put(plane.computing_rows)

    return put


def of_log(log: InferenceLog) -> Callable[[Metrics], None]:
    """What became of the rows of the inference log."""

    def put(metrics: Metrics) -> None:
        told = "Log rows dropped since the start, by reason."
        for reason in get_args(Reason):
            dropped = metrics.counter("inference_log_dropped_rows_total", told, reason=reason)
            dropped.reach(log.dropped[reason])
        told = "Log rows written since the start."
        metrics.counter("inference_log_written_rows_total", told).reach(log.written_rows)
        told = "Log rows that the sampled share leaves out."
        metrics.counter("inference_log_skipped_rows_total", told).reach(log.skipped_rows)
        told = "Log rows that wait to be written."
        metrics.gauge("inference_log_waiting_rows", told).put(log.waiting_rows)

    return put


def of_results(results: "Results") -> Callable[[Metrics], None]:
    """What the cache of results holds, and how often it had what was asked."""

    def put(metrics: Metrics) -> None:
        counted = results.cache.counted
        told = "Rows whose result was found, in this process or in Redis."
        hits = "result_cache_hits_total"
        metrics.counter(hits, told, place="process").reach(counted.hits)
        metrics.counter(hits, told, place="redis").reach(counted.shared_hits)
        told = "Rows whose result was looked for and found nowhere."
        metrics.counter("result_cache_misses_total", told).reach(counted.misses)
        told = "Memory that kept results take."
        metrics.gauge("result_cache_bytes", told).put(results.cache.bytes)

    return put


def _put_cache(metrics: Metrics, name: str, cache: Any) -> None:
    told = "Entities found in the cache."
    metrics.counter("feature_cache_hits_total", told, model=name).reach(cache.hits)
    told = "Entities asked of the online store."
    metrics.counter("feature_cache_misses_total", told, model=name).reach(cache.misses)
