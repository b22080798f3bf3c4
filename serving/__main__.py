"""``python -m serving`` and ``headrace-serve``: answer for one endpoint until told to stop.

Prints one line when it is ready. SIGTERM or Ctrl-C ends it: requests under way are answered, the
inference log is written, and the exit code is 0.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from headrace.errors import ExitCode, HeadraceError

if TYPE_CHECKING:
    from headrace.settings import Settings
    from serving.settings import ServerSettings


def main(argv: list[str] | None = None) -> int:
    """Run the server and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        # Imported here: --help and a wrong option answer at once.
        from headrace.settings import load_settings
        from serving.settings import load_server_settings

        settings, places = load_server_settings(**vars(arguments)), load_settings()
        # A command: the process is ours alone, but for Feast, which needs pandas.
        if argv is None and places.online_uri != "feast":
            sys.meta_path.insert(0, _WithoutPandas)
        _serve(settings, places)
    except HeadraceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return ExitCode.DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headrace-serve",
        description="Answer inference requests for one endpoint.",
        epilog="Every other setting is a HEADRACE_SERVER_ variable; see docs/serving.md.",
    )
    parser.add_argument("--endpoint", help="endpoint whose release is served (flight_delay)")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8080); 0: any free one")
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


def _serve(settings: "ServerSettings", places: "Settings") -> None:
    import logging

    from featurestore.online.reader import ReaderOptions, open_online_reader
    from monitoring.inference_log import InferenceLog
    from serving import listener
    from serving.app import create_app
    from serving.dataplane import STATUS_NAMES
    from serving.endpoint import Endpoint

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("serving").setLevel(logging.INFO)
    options = ReaderOptions(
        deadline_seconds=settings.store_deadline_seconds,
        retry_seconds=settings.store_retry_seconds,
        degrade=settings.on_store_failure == "degrade",
        cache_seconds=settings.cache_seconds,
        cache_rows=settings.cache_rows,
    )
    with listener.listen(settings.host, settings.port) as socket:
        endpoint = Endpoint(
            places.storage_uri,
            settings.endpoint,
            lambda plan: open_online_reader(places, plan, options),
            poll_seconds=settings.poll_seconds,
        )
        log = InferenceLog(
            places.storage_uri,
            settings.endpoint,
            status_names=STATUS_NAMES,
            flush_rows=settings.log_flush_rows,
            flush_seconds=settings.log_flush_seconds,
            capacity_rows=settings.log_capacity_rows,
        )
        app = create_app(endpoint, settings=settings, log=log)
        listener.run(app, socket, drain_seconds=settings.drain_seconds, ready=endpoint.summary)


if __name__ == "__main__":
    raise SystemExit(main())
