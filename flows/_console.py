"""What a flow run says on the terminal: one line a fact, each failure once, a table at the end.

The Prefect UI keeps every line; only the terminal is spared the repetition.
"""

import logging
import shutil
import textwrap
from collections.abc import Sequence

from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import PrefectConsoleHandler

_WIDEST = 100
_ENDED = "Finished in state "


class Quiet(logging.Filter):
    """Drops what a terminal has said already: ends that went well, subflows' addresses, errors.

    An exception passes through its task, its flow and that flow's parent, and each tells all of it.
    Here they say that they failed; what went wrong is told once, by the command, at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: list[BaseException] = []
        self._has_address = False

    def filter(self, record: logging.LogRecord) -> bool:
        """False if the terminal need not say it."""
        if not record.name.startswith(("prefect.flow_runs", "prefect.task_runs")):
            return True
        message = record.getMessage()
        if message.startswith("View at "):
            is_first, self._has_address = not self._has_address, True
            return is_first
        if record.exc_info and record.exc_info[1]:
            return self._shorten(record, record.exc_info[1])
        if message.startswith(_ENDED):
            return self._tell_end(record, message)
        return not message.startswith("Beginning subflow run ")

    def _tell_end(self, record: logging.LogRecord, message: str) -> bool:
        # "Finished in state Failed('...')", an error for a task. A flow's end is no news: its
        # exception was told before, and the command tells what it made.
        record.msg, record.args = message.removeprefix(_ENDED).partition("(")[0].lower(), ()
        return record.levelno >= logging.ERROR

    def _shorten(self, record: logging.LogRecord, error: BaseException) -> bool:
        if any(error is one for one in self._told):
            return False
        self._told.append(error)
        record.msg, record.args = "failed with %s", (type(error).__name__,)
        record.exc_info = record.exc_text = None  # the UI's handler has seen it already
        return True


def be_quiet() -> Quiet:
    """Make the terminal quiet about the runs that follow; the UI is told everything."""
    quiet = Quiet()
    setup_logging()
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, PrefectConsoleHandler):
            continue
        for old in [one for one in handler.filters if isinstance(one, Quiet)]:
            handler.removeFilter(old)
        handler.addFilter(quiet)
    return quiet


def table(lines: Sequence[tuple[str, str]], *, width: int | None = None) -> str:
    """Two columns; a long value goes on below itself.

    Args:
        lines: what, and its value.
        width: in characters; that of the terminal if None, but never wider than 100.

    >>> print(table([("rows", "3"), ("reason", "the interval does not lie above 0")], width=28))
    rows    3
    reason  the interval does
            not lie above 0
    """
    within = min(width or shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    indent = max(len(what) for what, _ in lines) + 2
    return "\n".join(_row(f"{what:<{indent}}", value, within) for what, value in lines)


def _row(head: str, value: str, width: int) -> str:
    # Paths and commands are to be copied: better a long line than one cut in two.
    whole = textwrap.wrap(
        value,
        max(width - len(head), 20),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return (head + f"\n{' ' * len(head)}".join(whole)).rstrip()
