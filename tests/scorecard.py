"""The scorecard: what each row of the reliability table reached, written by its own tests.

A test that proves a row asks for the ``scorecard`` fixture and says its figure; ``pytest
--scorecard DIR`` keeps each as one JSON file, and the page is made from those files alone:

$ python -m tests.scorecard DIR

A row whose test fails, or ends before it has a figure, is on the page as failed.
"""

import argparse
import importlib.metadata
import json
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROWS = {
    "R0": "a test without a figure",
    "R1": "workers killed",
    "R2": "flow process killed",
    "R3": "every crash point of a commit",
    "R4": "scheduler dead, worker hung, capacity",
    "R5": "zombie runs",
    "R6": "duplicate triggers",
    "R7": "orchestrator outage",
    "R8": "S3 faults",
    "R9": "writer exception publishes nothing",
    "R10": "bit rot",
    "R11": "model load containment",
    "R12": "hot swap",
    "R13": "drain and rolling restart",
    "R15": "Redis lost under load",
    "R19": "memory",
    "R20": "full disk",
    "R21": "poisoned input",
    "R23": "slow clients and overload",
    "S1": "hostile bodies",
    "S15": "cancelled requests",
}
NO_ROW = "R0"
"""Of a test that failed before it said which row it proves."""
PACKAGES = ("dask", "distributed", "numpy", "prefect", "pyarrow")

_reports = pytest.StashKey[dict[str, pytest.TestReport]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--scorecard DIR``: where the figures are kept; nowhere without it."""
    parser.addoption("--scorecard", metavar="DIR", help="write the rows' figures here, as JSON")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Keep what became of each phase of a test, for the fixture to read when the test is over."""
    report = yield
    item.stash.setdefault(_reports, {})[report.when] = report
    return report


class Scorecard:
    """What one test says of the rows it proves; a row said twice keeps the last word."""

    def __init__(self) -> None:
        self.said: dict[str, dict[str, Any]] = {}
        self._begun = time.monotonic()

    def __call__(
        self, row: str, *, passed: bool, figure: object, seed: int | None = None, **facts: Any
    ) -> None:
        """Say what a row reached.

        Args:
            row: its name in the reliability table, ``R1``.
            passed: whether the figure is what the row asks for.
            figure: what was measured, in a few words or as a number.
            seed: what to give ``FAULTS_SEED`` to see the same faults again.
            facts: more numbers, as JSON.
        """
        if row not in ROWS:
            raise ValueError(f"no row is named {row!r}; write one of {', '.join(ROWS)}")
        self.said[row] = {
            "row": row,
            "figure": figure,
            "pass": bool(passed),
            "seed": seed,
            "seconds": round(time.monotonic() - self._begun, 1),
            "versions": versions(),
            "facts": facts,
        }

    @property
    def failed(self) -> list[str]:
        """The rows that did not reach what they must."""
        return [row for row, said in self.said.items() if not said["pass"]]

    def write(self, folder: Path, *, test: str, passed: bool) -> None:
        """Keep every row that was said; all of them failed if the test did."""
        folder.mkdir(parents=True, exist_ok=True)
        for row, said in self.said.items():
            # Tests in several processes write here: each has names of its own.
            name = re.sub(r"[^A-Za-z0-9]+", "-", f"{row} {test}").strip("-")
            record = said | {"pass": said["pass"] and passed, "test": test}
            (folder / f"{name}.json").write_text(json.dumps(record, indent=1, sort_keys=True))


@pytest.fixture
def scorecard(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Says the figure of a row: ``scorecard("R1", passed=True, figure="200 kills", seed=7)``."""
    card = Scorecard()
    yield card
    called = request.node.stash.get(_reports, {}).get("call")
    passed = called is not None and called.passed
    if not card.said and not passed:
        card(NO_ROW, passed=False, figure="the test failed before it had a figure")
    folder = request.config.getoption("--scorecard")
    if folder:
        card.write(Path(folder), test=request.node.nodeid, passed=passed)
    if passed and card.failed:
        pytest.fail(f"{', '.join(card.failed)} failed, and no assertion of the test says so")


def versions() -> dict[str, str]:
    """What the figures hold for."""
    found = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **found}


def page(folder: Path) -> str:
    """The page, from the JSON files of ``folder`` alone.

    Raises:
        FileNotFoundError: if there is no figure in it.
    """
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not records:
        raise FileNotFoundError(
            f"{folder} holds no figure; run pytest with --scorecard {folder} first"
        )
    rows = [_line(record) for record in sorted(records, key=_order)]
    failed = sum(not record["pass"] for record in records)
    held = {
        f"{name} {version}" for record in records for name, version in record["versions"].items()
    }
    return "\n".join(
        [
            "# Scorecard",
            "",
            f"{len(records) - failed} of {len(records)} hold. {', '.join(sorted(held))}.",
            "",
            "| row | what | figure | seed | seconds | holds |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
    )


def _line(record: dict[str, Any]) -> str:
    seed = "" if record["seed"] is None else record["seed"]
    what = record["test"] if record["row"] == NO_ROW else ROWS.get(record["row"], "")
    cells = [record["row"], what, record["figure"], seed, record["seconds"]]
    text = [str(cell).replace("|", "/").replace("\n", " ") for cell in cells]
    return f"| {' | '.join([*text, 'yes' if record['pass'] else '**no**'])} |"


def _order(record: dict[str, Any]) -> tuple[str, int, str]:
    letter, number = re.fullmatch(r"([A-Z]+)(\d+)", record["row"]).groups()
    return letter, int(number), record["test"]


def main(argv: list[str] | None = None) -> int:
    """Print the page; 1 if a row failed or none was proved."""
    parser = argparse.ArgumentParser(prog="python -m tests.scorecard", description=page.__doc__)
    parser.add_argument("folder", type=Path, help="what pytest's --scorecard was given")
    folder = parser.parse_args(argv).folder
    try:
        made = page(folder)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(made)
    return int("**no**" in made)


if __name__ == "__main__":
    raise SystemExit(main())
