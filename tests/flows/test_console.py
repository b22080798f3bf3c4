import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import _console
from flows._console import Quiet, table
from headrace.errors import UnknownName


def record(message, *, of="prefect.task_runs", level=logging.INFO, error=None):
    exc_info = (type(error), error, None) if error else None
    return logging.LogRecord(of, level, __file__, 1, message, None, exc_info)


def said(quiet, *records):
    return [one.getMessage() for one in records if quiet.filter(one)]


def test_ends_that_went_well_and_subflows_beginnings_are_left_out():
    assert said(
        Quiet(),
        record("Beginning flow run 'quickstart' for flow 'quickstart'", of="prefect.flow_runs"),
        record("Beginning subflow run 'train' for flow 'train'", of="prefect.flow_runs"),
        record("200 trees from 160361 rows"),
        record("Finished in state Completed()"),
    ) == [
        "Beginning flow run 'quickstart' for flow 'quickstart'",
        "200 trees from 160361 rows",
    ]


def test_the_runs_own_address_is_told_and_no_other():
    records = [record(f"View at http://x/{n}", of="prefect.flow_runs") for n in range(3)]
    assert said(Quiet(), *records) == ["View at http://x/0"]


def test_a_failure_names_what_failed_and_leaves_the_sentence_to_the_command():
    error = UnknownName("table", "flihgts", ["flights"])
    told = "Encountered exception during execution"
    assert said(
        Quiet(),
        record("Finished in state Failed('... flihgts ...')", level=logging.ERROR),
        record(told, of="prefect.flow_runs", level=logging.ERROR, error=error),
        record("Finished in state Failed('... flihgts ...')", of="prefect.flow_runs"),
        record(told, of="prefect.flow_runs", level=logging.ERROR, error=error),
    ) == ["failed", "failed with UnknownName"]


def test_a_second_failure_a_crash_and_a_warning_are_not_left_out():
    error, other = ValueError("one"), ValueError("one")
    assert said(
        Quiet(),
        record("x", level=logging.ERROR, error=error),
        record("x", level=logging.ERROR, error=other),
        record("Crash detected! Execution was aborted", level=logging.ERROR),
        record("Finished in state Crashed('aborted')", level=logging.ERROR),
        record("Finished in state Completed()", of="distributed.worker", level=logging.WARNING),
    ) == [
        "failed with ValueError",
        "failed with ValueError",
        "Crash detected! Execution was aborted",
        "crashed",
        "Finished in state Completed()",
    ]


def test_a_new_command_begins_anew():
    first = _console.be_quiet()
    second = _console.be_quiet()
    filters = [
        one
        for handler in logging.getLogger().handlers
        for one in handler.filters
        if isinstance(one, Quiet)
    ]
    assert first is not second
    assert filters == [second]


@pytest.mark.parametrize("value", ["/a/" + "very" * 40 + "/long/path", "x" * 300])
def test_what_is_to_be_copied_is_never_cut(value):
    assert table([("predictions", value)]) == f"predictions  {value}"


@given(st.lists(st.text("ab ", max_size=200), min_size=1, max_size=4), st.integers(30, 120))
def test_a_table_is_no_wider_than_asked_and_loses_no_word(values, width):
    lines = table([("what", value) for value in values], width=width).splitlines()
    words = [word for line in lines for word in line.removeprefix("what").split()]
    assert words == " ".join(values).split()
    long_word = max([len(word) for word in words], default=0)
    assert all(len(line) <= max(min(width, 100), 6 + long_word) for line in lines)
