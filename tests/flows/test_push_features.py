"""The stream flow as its users run it: a file, a pipe that stays open, an unknown view."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from featurestore.offline.tables import count_rows

pytestmark = pytest.mark.slow

EVENTS = Path(__file__).parents[2] / "examples" / "weather_events.jsonl"


def pushed(world, source, *more):
    return world.report("push_features", "--view", "weather", "--source", str(source), *more)


def test_a_file_is_pushed_once_and_bad_events_are_a_finding(world, tmp_path):
    rows = count_rows(world.settings.uri("offline"))
    path = tmp_path / "events.jsonl"
    path.write_bytes(EVENTS.read_bytes())
    code, report = pushed(world, path)
    assert (code, report["events"], report["rows_added"], report["rejected"]) == (0, 6, 6, 0)
    assert report["entities_written"] == 3
    with path.open("a") as file:
        file.write('{"origin": "JFK"}\n')
    code, report = pushed(world, path)
    assert (code, report["events"], report["rejected"]) == (3, 1, 1)
    (rejected,) = Path(report["rejected_folder"]).iterdir()
    assert "is missing; write null" in json.loads(rejected.read_text())["reason"]
    assert count_rows(world.settings.uri("offline")) == rows + 6


def test_sigterm_ends_a_stream_after_the_batch(world, redis_url):
    from featurestore.stores.resp import Connection, command

    connection = Connection(redis_url, timeout_seconds=10)
    for event in EVENTS.read_bytes().splitlines():
        connection.ask(command(b"XADD", b"weather", b"*", b"event", event), replies=1)

    def terminate_when_read():
        pending = command(b"XINFO", b"GROUPS", b"weather")
        for _ in range(600):
            groups = connection.ask(pending, replies=1)[0]
            if groups and dict(zip(groups[0][::2], groups[0][1::2], strict=True))[b"pending"] == 6:
                break
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=terminate_when_read)
    killer.start()
    code, report = pushed(world, f"{redis_url}?stream=weather", "--batch-seconds", "0.2")
    killer.join()
    (summary,) = connection.ask(command(b"XPENDING", b"weather", b"headrace-weather"), replies=1)
    connection.close()
    assert (code, report["events"], report["rows_added"]) == (0, 6, 6)
    assert summary[0] == 0


def test_an_unknown_view_is_refused(world, capsys):
    assert world.run("push_features", "--view", "wether", "--source", str(EVENTS)) == 2
    assert "did you mean 'weather'" in capsys.readouterr().err
