"""Find features: list, search and describe views, services and transforms, or make a page of all.

A plain command, not a flow: it reads and prints. `python -m flows.features --help` lists what it
can do; `--json` prints one JSON document. Nulls and drift are those of the last
`python -m flows.check_features`.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from flows._listing import hits_text, listing_text, service_text, transform_text, view_text
from headrace.errors import ExitCode, HeadraceError
from headrace.settings import load_settings

if TYPE_CHECKING:
    from featurestore.catalog.discovery import Entry

EPILOG = "exit codes: 0 done, 1 failed, 2 wrong usage"


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    chosen = _parser().parse_args(argv)
    try:
        print(_answer(chosen))  # noqa: T201  (this is a command)
    except HeadraceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return ExitCode.DONE


def _answer(chosen: argparse.Namespace) -> str:
    # Here, for --help must not wait for Arrow.
    from tasks import discovery

    settings = load_settings()
    listing = discovery.gather(settings, versions=chosen.versions)
    for problem in listing.problems:
        print(f"note: {problem}", file=sys.stderr)  # noqa: T201
    if chosen.what == "page":
        uri = discovery.write_page(settings, listing)
        return _json({"page": uri}) if chosen.json else uri
    if chosen.what == "search":
        hits = discovery.search(listing, chosen.words)
        found = [hit.model_dump(mode="json") for hit in hits]
        return _json(found) if chosen.json else hits_text(hits, chosen.words)
    if chosen.what == "describe":
        return _described(discovery.describe(listing, chosen.name), as_json=chosen.json)
    return _json(listing.model_dump(mode="json")) if chosen.json else listing_text(listing)


def _described(entry: "Entry", *, as_json: bool) -> str:
    if as_json:
        return _json(entry.model_dump(mode="json"))
    if entry.kind == "view":
        return view_text(entry)
    return service_text(entry) if entry.kind == "service" else transform_text(entry)


def _json(document: object) -> str:
    return json.dumps(document, indent=1)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print one JSON document")
    shared.add_argument(
        "--versions",
        action="store_true",
        help="ask the model registry too which of its versions read what (takes seconds)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m flows.features", description=__doc__.partition("\n")[0], epilog=EPILOG
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="COMMAND")
    for name, help_ in (
        ("list", "every feature view, service and transform"),
        ("search", "what has all the words in its name, description, tags, owner or features"),
        ("describe", "all that is known of a view, a service, a feature or a transform"),
        ("page", "write one HTML page of everything, and print where"),
    ):
        command = commands.add_parser(name, parents=[shared], help=help_, description=help_)
        if name == "search":
            command.add_argument("words", nargs="+", metavar="WORD")
        if name == "describe":
            command.add_argument("name", metavar="NAME", help="weather, weather.wind_speed_mph ...")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
