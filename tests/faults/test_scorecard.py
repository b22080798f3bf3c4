"""The scorecard is made from what the rows' own tests wrote, and a failed row cannot hide."""

import json

import pytest

from tests.scorecard import main

pytest_plugins = ["pytester"]

TESTS = """
def test_that_holds(scorecard):
    scorecard("R1", passed=True, figure="24 kills, 0 lost", seed=7, kills=24)

def test_that_breaks_after_its_figure(scorecard):
    scorecard("R2", passed=True, figure="1 kill")
    assert False

def test_that_says_no_and_goes_on(scorecard):
    scorecard("R10", passed=False, figure="3 of 1,200 served")

def test_that_breaks_before_its_figure(scorecard):
    assert False

def test_of_a_row_that_is_not_there(scorecard):
    scorecard("R99", passed=True, figure="all")
"""


@pytest.fixture
def kept(pytester):
    """The figures that a run of ``TESTS`` leaves, by row, and its folder."""
    pytester.makepyfile(TESTS)
    run = pytester.runpytest_inprocess("-p", "tests.scorecard", "--scorecard", "cards")
    run.assert_outcomes(passed=2, failed=3, errors=1)
    run.stdout.fnmatch_lines_random(["*no row is named 'R99'*", "*R10 failed, and no assertion*"])
    folder = pytester.path / "cards"
    return folder, {card["row"]: card for card in map(_read, folder.glob("*.json"))}


def _read(path):
    return json.loads(path.read_text())


def test_each_row_is_kept_with_its_figure_its_seed_and_what_it_holds_for(kept):
    _, cards = kept
    assert set(cards) == {"R0", "R1", "R2", "R10"}
    assert cards["R1"]["figure"] == "24 kills, 0 lost"
    assert (cards["R1"]["seed"], cards["R1"]["facts"]) == (7, {"kills": 24})
    assert cards["R1"]["versions"]["prefect"]
    assert [row for row, card in cards.items() if card["pass"]] == ["R1"]


def test_the_page_is_made_from_the_files_alone_and_says_what_failed(kept, capsys):
    folder, _ = kept
    assert main([str(folder)]) == 1
    printed = capsys.readouterr().out
    assert "1 of 5 hold" in printed
    rows = [line.split(" | ")[0] for line in printed.splitlines()[6:]]
    assert rows == ["| R0", "| R0", "| R1", "| R2", "| R10"]
    assert "test_that_breaks_before_its_figure" in printed
    assert "| R1 | workers killed | 24 kills, 0 lost | 7 |" in printed


def test_a_folder_without_figures_is_no_scorecard(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "holds no figure; run pytest with --scorecard" in capsys.readouterr().err
