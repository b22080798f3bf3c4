"""Materialise on demand in child processes, to be killed: ``python materializer.py``.

Each line of stdin is a JSON job; it is run in a fork of this process, which has imported everything
already, so that fifty kills cost seconds. Prints how the child ended.
"""

import json
import os
import signal
import sys
from datetime import datetime
from pathlib import Path

from featurestore.catalog.catalog import Catalog
from featurestore.stores import materialize as module
from featurestore.stores.redis_store import RedisStore
from featurestore.stores.resp import Connection
from featurestore.stores.sqlite_store import SqliteStore
from headrace.settings import Settings
from headrace.window import as_microseconds

CHUNK_ROWS = 200


def run(job):
    """Do what a job says; ``naive`` moves the watermark before it writes the rows."""
    RedisStore.chunk_rows = SqliteStore.chunk_rows = CHUNK_ROWS
    settings = Settings(home=Path(job["home"]), online_store=job["online_store"])
    catalog = Catalog.model_validate_json(job["catalog"])
    if job["naive"]:
        _move_watermark_first()
    redis = "://" in job["online_store"]
    if redis and job["kill_after"] is not None:
        _kill_after_sending(job["kill_after"])
    steps = None if redis else _kill_after_steps(job["kill_after"])
    until = datetime.fromisoformat(job["until"])
    module.materialize(settings, catalog, until=until, rebuild=job["rebuild"])
    if steps is not None:
        Path(f"{job['online_store']}.steps").write_text(str(len(steps)))


def _move_watermark_first():
    honest = module._write

    def naive(store, begin, window, *, log):
        until_us = as_microseconds(window.until)
        store.put_view(begin.model_copy(update={"until_us": until_us, "loading": False}))
        return honest(store, begin, window, log=log)

    module._write = naive


def _kill_after_sending(bytes_left):
    """Kill this process amid the bytes that it sends to Redis, which /proc does not count."""
    ask = Connection.ask

    def counted(self, commands, **options):
        nonlocal bytes_left
        data = commands if isinstance(commands, bytes) else b"".join(commands)
        if len(data) >= bytes_left:
            self.socket.sendall(data[:bytes_left])
            os.kill(os.getpid(), signal.SIGKILL)
        bytes_left -= len(data)
        return ask(self, data, **options)

    Connection.ask = counted


def _kill_after_steps(most):
    """Kill this process amid SQLite's work, after so many hundreds of its instructions."""
    steps, opened = [], SqliteStore.__init__

    def step():
        steps.append(None)
        if len(steps) == most:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def watched(self, *arguments):
        opened(self, *arguments)
        self._db.set_progress_handler(step, 100)

    SqliteStore.__init__ = watched
    return steps


def main():
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
