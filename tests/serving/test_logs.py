import json
import logging

import pytest

from serving.errors import BodyRefused, Overloaded, PlaneFailed
from serving.logs import RequestLog, configure


@pytest.fixture
def clean_root():
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    yield
    root.handlers[:] = kept
    root.setLevel(level)


class Clock:
    now = 1.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def counted():
    return []


@pytest.fixture
def log(counted, clock):
    return RequestLog(lambda *what: counted.append(what), slow_seconds=1.0, clock=clock)


def test_a_refusal_is_counted_and_one_line_with_its_facts(log, counted, clean_root, capsys):
    configure("text")
    log.refused("plain", 400, "10.1.2.3", "r1", BodyRefused("it is empty"))
    line = capsys.readouterr().err
    assert "the body is refused: it is empty." in line
    assert line.endswith("status=400 edge=plain caller=10.1.2.3 request_id=r1\n")
    assert counted == [("plain", 400)]


def test_a_line_of_json_has_its_facts_as_fields(log, clean_root, capsys):
    configure("json", worker=3)
    log.refused("v2", 503, "10.1.2.3", "r1", Overloaded("too much"))
    line = json.loads(capsys.readouterr().err)
    assert line["message"].startswith("the server is overloaded")
    facts = {name: line[name] for name in ("level", "worker", "status", "edge", "request_id")}
    assert facts == {
        "level": "warning",
        "worker": 3,
        "status": 503,
        "edge": "v2",
        "request_id": "r1",
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_caller_cannot_write_a_line_of_its_own(form, log, clean_root, capsys):
    configure(form)
    log.refused("v2", 400, "x\ny", "id", BodyRefused("it says 'a\n2026 ERROR all is lost'"))
    assert capsys.readouterr().err.count("\n") == 1


def test_a_fault_of_ours_is_logged_with_its_traceback(log, clean_root, capsys):
    configure("text")
    fault = PlaneFailed("encode")
    fault.__cause__ = ZeroDivisionError("the cause")
    log.refused("v2", 500, "x", "id", fault)
    assert "ZeroDivisionError: the cause" in capsys.readouterr().err


def test_a_flood_writes_some_lines_a_second_and_counts_the_others(log, counted, clock, caplog):
    caplog.set_level(logging.INFO, "serving")
    for _ in range(1000):
        log.refused("v2", 400, "x", "id", BodyRefused("no"))
    assert (len(caplog.records), len(counted)) == (10, 1000)
    clock.now += 1
    log.refused("v2", 400, "x", "id", BodyRefused("no"))
    assert caplog.records[10].facts == {"lines": 990}


def test_good_requests_are_silent_slow_ones_are_not(log, caplog):
    caplog.set_level(logging.INFO, "serving")
    log.answered("v2", 0.5, "x", "quick")
    log.answered("v2", 1.5, "x", "late")
    assert [record.facts["request_id"] for record in caplog.records] == ["late"]
    RequestLog(lambda *_: None, access=True).answered("v2", 0.5, "x", "asked for")
    assert caplog.records[-1].facts["request_id"] == "asked for"
