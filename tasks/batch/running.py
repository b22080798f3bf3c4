"""Which batch runs there are: each writes down what it does, and its heart beats beside it.

::

    <storage>/running/<id>.json        what runs where, with which parameters, as which Prefect run
    <storage>/running/<id>.beat        its heartbeat
    <storage>/running/attempts/<key>   how often the same work was started again after a death

Prefect keeps a run whose process was killed in the state *running* for ever: nobody tells it. From
here a reaper (``reaper.py``) finds such runs and starts them again.
"""

import atexit
import contextlib
import json
import logging
import shlex
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect.runtime import deployment, flow_run
from pydantic import BaseModel

from headrace import storage
from headrace.errors import StorageFailed
from headrace.sealed import Damaged, seal, unseal
from headrace.settings import Settings
from headrace.spec import Part
from headrace.storage import sha256
from tasks.batch.liveness import Heartbeat, Observer, Process, this_process

_log = logging.getLogger(__name__)


class Run(Part):
    """A run of a flow, as it was when it began."""

    id: str
    module: str
    """What ``python -m`` takes: ``flows.batch_predict``."""
    config: dict[str, Any]
    """The flow's configuration, without what was left at its default."""
    flow_run: str | None
    """Prefect's id of it."""
    deployment: str | None
    """Prefect's id of the deployment it came from."""
    folder: str
    """The working directory that relative paths in the configuration count from."""
    process: Process
    seconds: float
    """How long it may give no sign of life."""
    attempt: int
    """How often the same work had been started again before."""

    @property
    def key(self) -> str:
        """Names the work: the same flow with the same configuration."""
        return sha256(json.dumps([self.module, self.config], sort_keys=True).encode())[:16]

    @property
    def arguments(self) -> list[str]:
        """The command line that starts the same work: ``-m flows.batch_predict --model ...``."""
        return ["-m", self.module, *_flags(self.config)]

    @property
    def command(self) -> str:
        """The same, for people."""
        return f"python {shlex.join(self.arguments)}"


_outer: ContextVar[Run | None] = ContextVar("outer", default=None)


@contextlib.contextmanager
def registered(settings: Settings, *, module: str, config: BaseModel) -> Iterator[Run]:
    """Be known as a running flow inside the block; called first thing in the flow.

    A flow inside a registered one is part of it: it would only be started twice.

    The entry of a Prefect run outlives the block, since Prefect is told only then how it ended: it
    goes with the process, or when a reaper finds that Prefect knows.

    Args:
        settings: where storage is.
        module: what ``python -m`` takes to start the flow.
        config: its parameters.
    """
    outer = _outer.get()
    if outer:
        yield outer
        return
    draft = Run(
        id=uuid.uuid4().hex,
        module=module,
        config=config.model_dump(mode="json", exclude_defaults=True),
        flow_run=flow_run.id,
        # Inside another flow, Prefect would name the deployment of that one.
        deployment=None if flow_run.parent_flow_run_id else deployment.id,
        folder=str(Path.cwd()),
        process=this_process(),
        seconds=settings.lease_seconds,
        attempt=0,
    )
    run = draft.model_copy(update={"attempt": attempts(settings, draft)})
    uri = entry_uri(settings, run.id)
    storage.write_atomic(uri, seal(run))
    heart = Heartbeat(_beat_uri(settings, run), seconds=run.seconds, on_beat=lambda: True)
    heart.start()
    inside = _outer.set(run)
    try:
        yield run
    finally:
        _outer.reset(inside)
        heart.stop()
        try:
            storage.remove(_attempts_uri(settings, run))
            if run.flow_run is None:
                forget(settings, run)
            elif storage.is_local(uri):  # another store's client does not outlive our threads
                atexit.register(_forget_quietly, settings, run)
        except StorageFailed as error:  # how the run itself ended matters more
            _log.warning("%s The reaper tidies up.", error)


def runs(settings: Settings) -> list[Run]:
    """Every run that is written down, alive or not."""
    folder = settings.uri("running")
    names = [name for name in storage.list_names(folder) if name.endswith(".json")]
    found = (read(settings, name.removesuffix(".json")) for name in names)
    return [run for run in found if run]


def read(settings: Settings, run_id: str) -> Run | None:
    """The entry of a run; None if it was removed, or is none that this version can read."""
    uri = entry_uri(settings, run_id)
    try:
        return unseal(storage.read_bytes(uri), Run, uri=uri)
    except FileNotFoundError:
        return None
    except Damaged as error:  # of another version, say: no reason for other runs not to start
        _log.warning("%s is passed over: %s", uri, error.reason)
        return None


def observer_of(settings: Settings, run: Run) -> Observer:
    """What finds out whether a run has ended."""
    return Observer(_beat_uri(settings, run), run.process, seconds=run.seconds)


def attempts(settings: Settings, run: Run) -> int:
    """How often its work was started again since it last came to an end."""
    try:
        return int(storage.read_bytes(_attempts_uri(settings, run)))
    except FileNotFoundError:
        return 0


def count_attempt(settings: Settings, run: Run) -> None:
    """Write down that the work of ``run`` is started once more."""
    storage.write_atomic(_attempts_uri(settings, run), b"%d" % (run.attempt + 1))


def forget(settings: Settings, run: Run) -> None:
    """Remove the entry of a run."""
    storage.remove(entry_uri(settings, run.id))
    storage.remove(_beat_uri(settings, run))


def claim_uri(settings: Settings, run: Run) -> str:
    """Where reapers agree which of them deals with a dead run."""
    return settings.uri("running", "claims", run.id)


def entry_uri(settings: Settings, run_id: str) -> str:
    """Where a run is written down."""
    return settings.uri("running", f"{run_id}.json")


def _forget_quietly(settings: Settings, run: Run) -> None:
    with contextlib.suppress(StorageFailed):
        forget(settings, run)


def _beat_uri(settings: Settings, run: Run) -> str:
    return settings.uri("running", f"{run.id}.beat")


def _attempts_uri(settings: Settings, run: Run) -> str:
    return settings.uri("running", "attempts", run.key)


def _flags(config: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in config.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            flags.append(flag)
        elif value is False:
            flags.append(f"--no-{flag.removeprefix('--')}")
        else:
            flags += [flag, value if isinstance(value, str) else json.dumps(value)]
    return flags
