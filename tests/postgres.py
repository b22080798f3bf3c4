"""A PostgreSQL server of the suite's own: a data folder, a free port, nobody else's database."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_NOBODY_ELSE = "postgres"  # the server refuses to run as root


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server, ``postgresql://postgres@127.0.0.1:port``."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    data = folder / "data"
    try:
        as_user = _give_to_postgres(folder)
        choices = ("-D", str(data), "-U", "postgres", "-A", "trust", "-N")
        _run(programs / "initdb", *choices, **as_user)
        port = _free_port()
        options = f"-p {port} -k {folder} -h 127.0.0.1 -c fsync=off -c max_wal_size=256MB"
        command = [str(programs / "postgres"), "-D", str(data), *options.split()]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **as_user)
        try:
            _wait(process, port, folder / "log")
            yield f"postgresql://postgres@127.0.0.1:{port}"
        finally:
            process.send_signal(2)  # fast shutdown: open sessions are ended
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database."""
    import uuid

    import psycopg

    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"{postgres_server}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _programs() -> Path:
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.skip("initdb and postgres are not installed (Debian: apt-get install postgresql)")


def _give_to_postgres(folder: Path) -> dict[str, int]:
    """What Popen needs to run a program as a user that the server accepts."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam(_NOBODY_ELSE)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid}


def _run(program: Path, *arguments: str, **as_user: int) -> None:
    done = subprocess.run(
        [str(program), *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
        **as_user,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(psycopg.OperationalError):
            url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
            psycopg.connect(url, connect_timeout=2).close()
            return
        time.sleep(0.05)
    raise TimeoutError(f"PostgreSQL does not answer after 30 seconds:\n{log.read_text()}")
