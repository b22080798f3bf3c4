"""``python -m serving`` and ``headrace-serve``: answer for one endpoint until told to stop.

Prints one line when it is ready. SIGTERM or Ctrl-C ends it: requests under way are answered, the
inference log is written, and the exit code is 0.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from headrace.errors import ExitCode, HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket as Socket  # noqa: N812  (the name of the module is taken)

    from headrace.settings import Settings
    from serving.settings import ServerSettings


def main(argv: list[str] | None = None) -> int:
    """Run the server and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        # Imported here: --help and a wrong option answer at once.
        from headrace.settings import load_settings
        from serving import logs
        from serving.settings import load_server_settings

        settings, places = load_server_settings(**vars(arguments)), load_settings()
        # A command: the process is ours alone, but for Feast, which needs pandas.
        if argv is None:
            logs.configure(settings.log_format)
            if places.online_uri != "feast":
                sys.meta_path.insert(0, _WithoutPandas)
        return _serve(settings, places)
    except HeadraceError as error:
        return _told(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headrace-serve",
        description="Answer inference requests for one endpoint.",
        epilog="Every other setting is a HEADRACE_SERVER_ variable; see docs/serving.md.",
    )
    parser.add_argument("--endpoint", help="endpoint whose release is served (flight_delay)")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8080); 0: any free one")
    parser.add_argument("--grpc-port", type=int, help="port of gRPC; without it, no gRPC")
    parser.add_argument("--workers", type=int, help="processes that share the port (1)")
    return parser


class _WithoutPandas:
    """Bars pandas: pyarrow imports it on the first ``pa.array()`` wherever it is installed.

    That would be 45 MB and 0.4 s for nothing. With it barred, the server runs as it does where
    ``headrace[serving]`` alone is installed.
    """

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("the server runs without pandas", name=name)


def _serve(settings: "ServerSettings", places: "Settings") -> int:
    """Answer, alone or as the parent of several workers, until told to stop."""
    import logging

    from serving import grpc, listener, logs, workers

    grpc.check(settings)
    with listener.listen(settings) as listening:
        url = listener.address(listening)

        def ready(summary: str) -> None:
            sys.stdout.write(f"ready: {summary} at {url} (docs: {url}/docs)\n")
            sys.stdout.flush()

        if settings.workers == 1:
            _work(settings, places, listening, ready)
            return ExitCode.DONE

        def work(number: int, parent: "Socket") -> int:
            logs.configure(settings.log_format, number)
            try:
                _work(settings, places, listening, lambda said: parent.send(said.encode()), parent)
            except HeadraceError as error:
                return _told(error)
            return ExitCode.DONE

        return workers.Parent(
            settings.workers,
            work,
            ready=lambda said: ready(f"{said}, {settings.workers} workers,"),
            tell=logging.getLogger(__name__).warning,
        ).run()


def _work(
    settings: "ServerSettings",
    places: "Settings",
    listening: "Socket",
    ready: "Callable[[str], object]",
    parent: "Socket | None" = None,
) -> None:
    """Load the models and answer for them in this process."""
    from featurestore.online.reader import ReaderOptions, open_online_reader
    from monitoring.inference_log import InferenceLog
    from serving import listener
    from serving.app import create_server
    from serving.dataplane import STATUS_NAMES
    from serving.loading import ModelLoader
    from serving.repository import ModelRepository
    from serving.results.opening import open_results
    from serving.trial import Trials

    options = ReaderOptions(
        deadline_seconds=settings.store_deadline_seconds,
        retry_seconds=settings.store_retry_seconds,
        degrade=settings.on_store_failure == "degrade",
        cache_seconds=settings.cache_seconds,
        cache_rows=settings.cache_rows,
    )
    trials = Trials(
        places.uri("bundles"),
        device=settings.device,
        threads=settings.threads,
        seconds=settings.trial_seconds,
        memory_bytes=settings.trial_memory_mb * 2**20,
        fork=True,  # nothing here has started a thread yet
    )
    results, warming = open_results(settings)
    loader = ModelLoader(
        places.storage_uri,
        lambda plan: open_online_reader(places, plan, options),
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
    )
    log = InferenceLog(
        places.storage_uri,
        status_names=STATUS_NAMES,
        flush_rows=settings.log_flush_rows,
        flush_seconds=settings.log_flush_seconds,
        capacity_rows=settings.log_capacity_rows,
    )
    jobs_uri = settings.jobs_store or str(places.home / "jobs.db")
    server = create_server(
        repository,
        settings=settings,
        log=log,
        results=results,
        jobs_uri=None if jobs_uri == "off" else jobs_uri,
    )
    listener.HttpServer(
        server.app,
        server.lane,
        drain_seconds=settings.drain_seconds,
        ready=lambda: ready(repository.summary()),
        parent=parent,
    ).run([listening])


def _told(error: HeadraceError) -> int:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201
    return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
