"""A run reports to Prefect and does not depend on it.

Prefect is where runs are watched, not where their results are. When its API is away in the middle
of a run (down, answering 500, its database's disk full) the client tries again for about a minute;
the work goes on meanwhile. When it stays away longer, what the run did still stands: its end is
reported for some more time, then its report is printed and its exit code is right all the same.
"""

import contextlib
import copy
import functools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_RETRY_EXTRA_CODES,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    temporary_settings,
)
from prefect.states import Completed, Failed

from headrace.settings import Settings
from tasks import prefect_server
from tasks.deployments import PrefectUnreachable

PATIENCE_SECONDS = 120.0
"""How long the end of a run is reported after Prefect's own client has given up."""
_AGAIN_SECONDS = 2.0
_AWAY = (httpx.HTTPError, PrefectException, OSError, RuntimeError)


@dataclass
class _Outcome:
    """What the body of a flow came to, whatever Prefect makes of it."""

    run_id: Any = None
    ended: bool = False
    report: Any = None
    error: Exception | None = None

    @property
    def state(self) -> State[Any]:
        """What Prefect should say of it."""
        return Failed(message=str(self.error)) if self.error else Completed()


def run_reporting(flow: Any, config: Any, settings: Settings) -> Any:
    """Run ``flow`` under the Prefect server of the settings, and return its report.

    Raises:
        PrefectUnreachable: if there is nobody to report to when the run should begin.
        Exception: what the flow raised.
    """
    api = PREFECT_API_URL.value() or prefect_server.api_url(settings)
    with _under(api, settings):
        outcome = _Outcome()
        try:
            return _kept(flow, outcome)(config)
        except _AWAY as error:
            if outcome.run_id is None:
                raise PrefectUnreachable(api) from error
            if not outcome.ended or error is outcome.error:
                raise
            _say(f"the Prefect API at {api} could not be told that this run has ended: {error}")
            _report_end(outcome)
        if outcome.error:
            raise outcome.error
        return outcome.report


@contextlib.contextmanager
def _under(api: str, settings: Settings) -> Iterator[None]:
    """Prefect's settings for one run."""
    changed: dict[Any, Any] = {
        PREFECT_API_URL: api,
        PREFECT_HOME: settings.home / "prefect",
        # Its thread holds up the end of every flow and subflow by up to a second, for events that
        # only deployments have somebody to act on.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_CLIENT_RETRY_EXTRA_CODES: PREFECT_CLIENT_RETRY_EXTRA_CODES.value()
        | prefect_server.RETRIED_CODES,
    }
    with temporary_settings(changed):
        yield


def _kept(flow: Any, outcome: _Outcome) -> Any:
    """The same flow, whose body leaves its outcome behind."""

    @functools.wraps(flow.fn)
    def body(*args: Any, **kwargs: Any) -> Any:
        outcome.run_id = flow_run.id
        try:
            outcome.report = flow.fn(*args, **kwargs)
        except Exception as error:
            outcome.error = error
            raise
        finally:
            outcome.ended = True
        return outcome.report

    own = copy.copy(flow)
    own.fn = body
    return own


def _report_end(outcome: _Outcome) -> None:
    """Tell Prefect how the run ended, as long as there is hope."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(outcome.run_id, outcome.state, force=True)
        except _AWAY as error:
            if time.monotonic() >= deadline:
                _say(f"its state there stays as it is ({error}); what the run did stands")
                return
            time.sleep(_AGAIN_SECONDS)
        else:
            return


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  (this is a command)
