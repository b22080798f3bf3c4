"""One process that answers: from the settings to models, data plane and a running server."""

import gc
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from socket import socket

from featurestore.online.reader import ReaderOptions, open_online_reader
from headrace.plan import FeaturePlan
from headrace.settings import Settings
from monitoring.inference_log import InferenceLog
from serving.app import create_server
from serving.listener import HttpServer
from serving.loading import ModelLoader
from serving.metrics import Metrics
from serving.repository import ModelRepository
from serving.results.opening import open_results
from serving.served import STATUS_NAMES, FeatureReader
from serving.settings import ServerSettings
from serving.trial import Trials
from serving.wanted import Wanted

_SWITCH_SECONDS = 0.0005
"""How long a thread that loads a model may keep the event loop from going on; Python's own 5 ms
would be felt by every request."""


def run(
    settings: ServerSettings,
    places: Settings,
    listening: socket,
    *,
    ready: Callable[[str], None],
    parent: socket | None = None,
    shared: Path | None = None,
) -> None:
    """Load the models and answer for them until told to stop.

    Args:
        settings: how.
        places: where storage and online store are.
        listening: the socket; other processes may accept from it too.
        ready: told what answers, once it does.
        parent: a connection to the process that started this one; its end ends this one too.
        shared: a folder of this server's processes; None: there is only this one.

    Raises:
        HeadraceError: if it cannot begin, saying what to do.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    with closing(_trials(settings, places)) as trials:
        results, warming = open_results(settings)
        loader = ModelLoader(
            places.storage_uri,
            _open_reader(settings, places),
            device=settings.device,
            threads=settings.threads,
            trials=trials,
            warm_results=warming,
        )
        repository = ModelRepository(
            settings.endpoints,
            loader,
            poll_seconds=settings.poll_seconds,
            memory_bytes=settings.model_memory_mb * 2**20,
            drain_seconds=settings.drain_seconds,
            wanted=Wanted(shared / "wanted.json") if shared else None,
        )
        jobs_uri = settings.jobs_store or str(places.home / "jobs.db")
        server = create_server(
            repository,
            settings=settings,
            log=_log(settings, places),
            results=results,
            metrics=Metrics(shared),
            jobs_uri=None if jobs_uri == "off" else jobs_uri,
        )
        # What has been loaded stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        # A request leaves no cycles behind. Looking for some after every 700 objects, as Python
        # does, costs a request about a twelfth of its time.
        gc.set_threshold(20_000, 20, 20)
        HttpServer(
            server.app,
            server.lane,
            drain_seconds=settings.drain_seconds,
            ready=lambda: ready(repository.summary()),
            parent=parent,
        ).run([listening])


def _trials(settings: ServerSettings, places: Settings) -> Trials:
    return Trials(
        places.uri("bundles"),
        device=settings.device,
        threads=settings.threads,
        seconds=settings.trial_seconds,
        memory_bytes=settings.trial_memory_mb * 2**20,
        fork=_has_one_thread(),
    )


def _open_reader(
    settings: ServerSettings, places: Settings
) -> Callable[[FeaturePlan], FeatureReader]:
    options = ReaderOptions(
        deadline_seconds=settings.store_deadline_seconds,
        retry_seconds=settings.store_retry_seconds,
        degrade=settings.on_store_failure == "degrade",
        cache_seconds=settings.cache_seconds,
        cache_rows=settings.cache_rows,
    )
    return lambda plan: open_online_reader(places, plan, options)


def _log(settings: ServerSettings, places: Settings) -> InferenceLog:
    return InferenceLog(
        places.storage_uri,
        status_names=STATUS_NAMES,
        flush_rows=settings.log_flush_rows,
        flush_seconds=settings.log_flush_seconds,
        capacity_rows=settings.log_capacity_rows,
        capacity_bytes=settings.log_capacity_bytes,
        share=settings.log_share,
    )


def _has_one_thread() -> bool:
    """Whether a fork is safe: another thread might hold a lock that its copy never lets go of."""
    tasks = Path("/proc/self/task")  # threads of libraries too; only Linux has it
    return tasks.is_dir() and len(list(tasks.iterdir())) == 1
