"""Eight processes move one release twenty times each: every move is in the history, once."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from headrace import release

MOVERS, MOVES = 8, 20

_MOVER = """
import sys
from headrace import release
from headrace.errors import ReleaseConflict
root, mover, moves = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(moves):
    while True:
        now = release.current_release(root, "delays")
        expected = now.revision if now else 0
        try:
            release.move_release(
                root, "delays", champion="a" * 64, expected=expected, by=mover, reason=str(number)
            )
            break
        except ReleaseConflict:
            continue
"""


def race(command):
    """Start all movers, then wait for all."""
    started = [
        subprocess.Popen([sys.executable, *command, f"mover-{mover}", str(MOVES)])
        for mover in range(MOVERS)
    ]
    assert [process.wait(60) for process in started] == [0] * MOVERS


def wanted():
    return Counter((f"mover-{mover}", move) for mover in range(MOVERS) for move in range(MOVES))


def test_no_move_is_lost_and_the_history_is_complete(tmp_path):
    race(["-c", _MOVER, str(tmp_path)])
    history = release.history(str(tmp_path), "delays")
    assert [found.revision for found in history] == list(range(1, MOVERS * MOVES + 1))
    assert Counter((found.moved_by, int(found.reason)) for found in history) == wanted()
    for mover in range(MOVERS):
        own = [int(found.reason) for found in history if found.moved_by == f"mover-{mover}"]
        assert own == list(range(MOVES))


def test_a_naive_mover_in_the_same_race_loses_moves(tmp_path):
    path = tmp_path / "release.json"
    race([str(Path(__file__).parent / "naive" / "mover.py"), str(path)])
    assert Counter((mover, move) for mover, move in json.loads(path.read_text())) != wanted()
