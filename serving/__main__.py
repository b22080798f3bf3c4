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
    from serving import grpc, listener

    grpc.check(settings)
    with listener.listen(settings) as listening:
        url = listener.address(listening)

        def ready(summary: str) -> None:
            sys.stdout.write(f"ready: {summary} at {url} (docs: {url}/docs)\n")
            sys.stdout.flush()

        if settings.workers > 1:
            return _serve_by_workers(settings, places, listening, ready)
        from serving import process

        process.run(settings, places, listening, ready=ready)
        return ExitCode.DONE


def _serve_by_workers(
    settings: "ServerSettings",
    places: "Settings",
    listening: "Socket",
    ready: "Callable[[str], None]",
) -> int:
    import logging
    import tempfile
    from pathlib import Path

    from serving import logs, workers

    # What the workers share besides the port; it goes with the server.
    with tempfile.TemporaryDirectory(prefix="headrace-serve-") as shared:

        def work(number: int, parent: "Socket") -> int:
            from serving import process

            logs.configure(settings.log_format, number)
            try:
                process.run(
                    settings,
                    places,
                    listening,
                    ready=lambda said: parent.sendall(said.encode()),
                    parent=parent,
                    shared=Path(shared),
                )
            except HeadraceError as error:
                return _told(error)
            return ExitCode.DONE

        return workers.Parent(
            settings.workers,
            work,
            ready=lambda said: ready(f"{said}, {settings.workers} workers,"),
            tell=logging.getLogger(__name__).warning,
        ).run()


def _told(error: HeadraceError) -> int:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201
    return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
