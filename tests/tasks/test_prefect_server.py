import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.settings import Settings
from tasks import prefect_server
from tasks.prefect_server import PrefectServerFailed


def test_without_a_server_there_is_none_to_see_or_stop(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    assert prefect_server.main(["status"]) == 0
    assert "no local Prefect server runs" in capsys.readouterr().out
    assert prefect_server.main(["down"]) == 0
    assert "no local Prefect server was running" in capsys.readouterr().out


def test_a_server_of_the_persons_own_is_used_and_none_is_started(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert prefect_server.api_url(Settings(home=tmp_path)) == "http://127.0.0.1:1/api"
    assert prefect_server.kept_server(Settings(home=tmp_path)) is None


@pytest.mark.slow
def test_one_server_is_started_for_many_and_kept_until_it_is_stopped(tmp_path):
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(3) as pool:
        kept = set(pool.map(lambda _: prefect_server.ensure_server(settings), range(3)))
    try:
        (server,) = kept
        assert prefect_server.kept_server(settings) == server
        assert server.url.startswith("http://127.0.0.1:")
    finally:
        assert prefect_server.stop(settings)
    assert prefect_server.kept_server(settings) is None
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_a_record_of_a_process_that_has_ended_is_no_server(tmp_path):
    settings = Settings(home=tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = prefect_server.Kept("http://127.0.0.1:1", ended.pid)
    prefect_server._remember(settings, kept)
    assert prefect_server.kept_server(settings) is None


def test_a_server_that_cannot_start_names_its_log(tmp_path, monkeypatch):
    settings = Settings(home=tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(PrefectServerFailed, match=r"server\.log"):
        prefect_server.ensure_server(settings)
