"""Steps that keep a view fresh from a stream of events."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from featurestore.push.consume import Consumed, Consumer, Pace
from featurestore.push.events import STANDARD_INPUT, EventSource, FileEvents, StandardInput
from featurestore.push.push import Target, pushed_schema, view_of
from featurestore.stores.resp import shown
from headrace.settings import Settings
from headrace.spec import Part
from tasks.step import step


class Stream(Part):
    """Where the events of a view come from, and where they go."""

    view: str
    source: str
    """A file, ``-`` for standard input, or ``redis://host:port/database?stream=NAME``."""
    to: Target = "both"
    group: str = ""
    """Of a Redis stream; ``headrace-<view>`` if left out."""
    consumer: str = ""
    """This consumer's name in the group; the machine's if left out."""


def shown_source(stream: Stream) -> str:
    """The source as reports may show it: without a password."""
    return shown(stream.source) if "://" in stream.source else stream.source


@step("push events of {stream.view}")
def push_events(
    settings: Settings, stream: Stream, pace: Pace, *, idle_seconds: float | None
) -> Consumed:
    """Push events until their source ends, is idle for so long, or SIGTERM comes.

    Safe to run twice and to kill: events are committed after the write, and a write of what is
    there already changes nothing.
    """
    from featurestore.catalog.catalog import load_catalog
    from featurestore.stores.open_store import open_store

    logger = get_run_logger()
    catalog = load_catalog(settings)
    view = view_of(catalog, stream.view)
    with contextlib.ExitStack() as opened:
        source = _open_source(settings, stream)
        opened.callback(source.close)
        store = None
        if stream.to != "offline":
            store = open_store(settings, catalog.project)
            opened.callback(store.close)
        consumer = Consumer(
            settings,
            view,
            source,
            schema=pushed_schema(settings, view),
            store=store,
            to=stream.to,
            pace=pace,
        )
        logger.info("events of %s go to %s, from %s", view.view, stream.to, source.name)
        stop = opened.enter_context(_until_sigterm())
        done = consumer.run(
            stop=stop,
            idle_seconds=idle_seconds,
            flushed=lambda so_far: logger.info("%s", _told(so_far)),
        )
    create_table_artifact(
        table=[{"what": name.replace("_", " "), "number": n} for name, n in vars(done).items()],
        key=f"{view.view.replace('_', '-')}-events",
        description=f"Events of {view.view} from {source.name}.",
    )
    return done


def _open_source(settings: Settings, stream: Stream) -> EventSource:
    if stream.source == STANDARD_INPUT:
        return StandardInput()
    if "://" in stream.source:
        from featurestore.push.redis_events import GROUP, RedisEvents

        group = stream.group or f"{GROUP}-{stream.view}"
        return RedisEvents(stream.source, group=group, consumer=stream.consumer)
    return FileEvents(Path(stream.source), settings.uri("event_positions", stream.view))


def _told(done: Consumed) -> str:
    return (
        f"{done.events:,} events, {done.rejected:,} of them rejected: "
        f"{done.entities_written:,} rows written online, {done.rows_added:,} added offline"
    )


@contextlib.contextmanager
def _until_sigterm() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come: the first one ends the work after the batch, not the process."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set  # only the main thread may take signals
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
