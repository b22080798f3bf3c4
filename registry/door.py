"""The door to MLflow: the one place that opens a client and lets no exception of it out."""

import contextlib
import fcntl
import functools
import logging
import os
import socket
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from headrace import telemetry
from registry.errors import RegistryRefused, RegistryUnreachable

_SQLITE = "sqlite:///"
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306}
_ANSWER_WITHIN_SECONDS = 5.0
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "INVALID_STATE"}
NOT_FOUND = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"


@functools.lru_cache(maxsize=8)
def connect(uri: str) -> Any:
    """Return the ``MlflowClient`` of a tracking URI; one a process, for opening it costs a second.

    Raises:
        RegistryUnreachable: if it does not answer.
    """
    telemetry.turn_off()
    # Results go to stdout, so MLflow must not print addresses of runs there.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # Without these a registry that is down is asked for several minutes before that is said.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    _check_answers(uri)
    if uri.startswith(_SQLITE):
        _create_whole(_sqlite_path(uri))
    return _open(uri)


def _open(uri: str) -> Any:
    from mlflow import MlflowClient

    with asking(uri), _quiet(), warnings.catch_warnings():
        # MLflow 3.17.2 maps its tables with a loader that SQLAlchemy 2.1 has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_registered_models(max_results=1)  # opens, and migrates, the registry's tables
    return client


def _create_whole(path: Path) -> None:
    """Make a new database under another name, then give it its own: whole, or not at all.

    A process killed among MLflow's migrations leaves tables that no later migration gets past.
    """
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_size:
            return
        unfinished = Path(f"{path}.unfinished")
        unfinished.unlink(missing_ok=True)
        _open(f"{_SQLITE}{unfinished}")
        unfinished.replace(path)


@contextlib.contextmanager
def asking(uri: str) -> Iterator[None]:
    """Turn what MLflow raises inside the block into errors of this room.

    Raises:
        RegistryRefused: if it will not take what it was given.
        RegistryUnreachable: for everything else.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        if error.error_code in _REFUSALS:
            raise RegistryRefused(error.message) from error
        raise RegistryUnreachable(uri, _first_line(error)) from error
    except SQLAlchemyError as error:
        raise RegistryUnreachable(uri, _first_line(error)) from error


@contextlib.contextmanager
def allowing(code: str) -> Iterator[None]:
    """Pass over the one MLflow error ``code`` (``NOT_FOUND`` or ``EXISTS``) inside the block."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != code:
            raise


def artifact_location(uri: str) -> str | None:
    """Where runs keep files: beside a SQLite file, else where the server says."""
    return str(_sqlite_path(uri).parent / "mlruns") if uri.startswith(_SQLITE) else None


def _check_answers(uri: str) -> None:
    """Ask once, quickly: MLflow would try a database ten times over two minutes."""
    parts = urlsplit(uri)
    kind = parts.scheme.partition("+")[0]
    try:
        if uri.startswith(_SQLITE):
            _sqlite_path(uri).parent.mkdir(parents=True, exist_ok=True)
            if _sqlite_path(uri).exists():
                with contextlib.closing(sqlite3.connect(_sqlite_path(uri))) as database:
                    database.execute("PRAGMA schema_version")
        elif kind in _DATABASE_PORTS:
            address = (parts.hostname or "localhost", parts.port or _DATABASE_PORTS[kind])
            socket.create_connection(address, _ANSWER_WITHIN_SECONDS).close()
    except (OSError, sqlite3.Error) as error:
        raise RegistryUnreachable(uri, error) from error


def _sqlite_path(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hundred lines that a new database's migrations log off the screen."""
    loggers = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "alembic")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
