"""The server's log: one line a fact, as text for people or as JSON for machines.

A good request writes nothing, unless that is asked for. An error, a refusal or a slow request
writes one line with its request id; where thousands of them come, some lines a second are written
and the others counted.
"""

import copy
import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from headrace.errors import HeadraceError

_LINES_A_SECOND = 10
_logger = logging.getLogger(__name__)


def configure(form: Literal["text", "json"], worker: int = 0) -> None:
    """Write what this process logs to standard error.

    Args:
        form: how a line looks.
        worker: the number of this process among those that share the port; 0: it is alone.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Json(worker) if form == "json" else _Text(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("serving").setLevel(logging.INFO)


class RequestLog:
    """Counts and logs what the data plane does not see: refusals, and slow requests."""

    def __init__(
        self,
        count: Callable[[str, int], None],
        *,
        access: bool = False,
        slow_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            count: told of every error, by edge and HTTP status.
            access: whether good requests are logged too.
            slow_seconds: what takes longer is logged.
            clock: seconds.
        """
        self._count, self._access, self._slow_seconds = count, access, slow_seconds
        self._clock, self._second, self._written, self._left_out = clock, 0, 0, 0

    def refused(
        self, edge: str, status: int, caller: str, request_id: str, error: HeadraceError
    ) -> None:
        """Take note of a request, or a connection, that got an error."""
        self._count(edge, status)
        level = (
            logging.ERROR if status == 500 else logging.WARNING if status > 500 else logging.INFO
        )
        facts = {"status": status, "edge": edge, "caller": caller, "request_id": request_id}
        # A fault of ours has a cause, and its traceback says where; all else is said in a sentence.
        cause = error.__cause__ if status == 500 else None
        self._write(level, str(error), facts, exc_info=cause)

    def answered(self, edge: str, seconds: float, caller: str, request_id: str) -> None:
        """Take note of a request that was answered."""
        facts = {"seconds": round(seconds, 4), "edge": edge, "caller": caller}
        facts |= {"request_id": request_id}
        if seconds > self._slow_seconds:
            self._write(logging.WARNING, "slow", facts)
        elif self._access:
            _logger.info("answered", extra={"facts": facts})

    def _write(
        self, level: int, message: str, facts: dict[str, Any], exc_info: BaseException | None = None
    ) -> None:
        second = int(self._clock())
        if second != self._second:
            if self._left_out:
                left_out = {"lines": self._left_out}
                _logger.warning("left out, of the second before", extra={"facts": left_out})
            self._second, self._written, self._left_out = second, 0, 0
        if self._written >= _LINES_A_SECOND:
            self._left_out += 1
            return
        self._written += 1
        _logger.log(level, message, exc_info=exc_info, extra={"facts": facts})


class _Text(logging.Formatter):
    def __init__(self, worker: int) -> None:
        who = f"worker {worker} " if worker else ""
        super().__init__(f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = getattr(record, "facts", {})
        said = [f"{name}={_plain(value)}" for name, value in facts.items()]
        record = copy.copy(record)
        record.msg, record.args = " ".join([_printable(record.getMessage()), *said]), None
        return super().format(record)


class _Json(logging.Formatter):
    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = {"worker": worker} if worker else {}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._worker,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _plain(value: Any) -> str:
    text = _printable(str(value))
    return json.dumps(text) if " " in text or not text else text


def _printable(text: str) -> str:
    """``text`` in one line: a log that a caller can write lines into cannot be trusted."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
