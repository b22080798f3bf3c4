"""Where results are kept, by the settings; a server that keeps none imports nothing for it."""

from pathlib import Path
from typing import TYPE_CHECKING

from serving.settings import ServerSettings

if TYPE_CHECKING:
    from serving.results.batch import Results
    from serving.results.warm import Warming


def open_results(settings: ServerSettings) -> tuple["Results | None", "Warming | None"]:
    """Return where results are kept, and what computes some before a model answers."""
    if not settings.result_cache_mb:
        return None, None
    from serving.results.batch import Results
    from serving.results.cache import ResultCache
    from serving.results.shared import SharedResults
    from serving.results.warm import Warming

    url = settings.result_cache_redis
    shared = SharedResults(url, retry_seconds=settings.store_retry_seconds) if url else None
    capacity = settings.result_cache_mb * 2**20
    results = Results(ResultCache(capacity, settings.result_cache_seconds, shared))
    path = settings.result_cache_warm
    return results, Warming(results, Path(path), settings) if path else None
