import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.settings import Settings
from tasks import background, prefect_server
from tasks.background import Kept
from tasks.prefect_server import PrefectServerFailed


def remember(settings, kept):
    (settings.home / "prefect").mkdir(parents=True)
    background.record(settings.home / "prefect", "server", kept)


def test_without_a_server_there_is_none_to_see_or_stop(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert prefect_server.main(["status"]) == 0
    assert "no local Prefect server runs" in capsys.readouterr().out
    assert prefect_server.main(["down"]) == 0
    assert "no local Prefect server was running" in capsys.readouterr().out


def test_a_server_of_the_persons_own_is_used_and_none_is_started(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert prefect_server.api_url(Settings(home=tmp_path)) == "http://127.0.0.1:1/api"
    assert prefect_server.kept_server(Settings(home=tmp_path)) is None


@pytest.mark.slow
def test_one_server_is_started_for_many_and_again_after_it_was_killed(tmp_path):
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(3) as pool:
        kept = set(pool.map(lambda _: prefect_server.ensure_server(settings), range(3)))
    try:
        (server,) = kept
        assert prefect_server.kept_server(settings) == server
        os.killpg(server.pid, signal.SIGKILL)
        again = prefect_server.ensure_server(settings)
        assert prefect_server.kept_server(settings) == again
        assert again.pid != server.pid
    finally:
        assert prefect_server.stop(settings)
    assert prefect_server.kept_server(settings) is None
    assert not {server.pid, again.pid} & background._processes().keys()


def test_the_last_address_is_taken_again_where_it_is_free():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert prefect_server._free_port(port) != port
    assert prefect_server._free_port(port) == port


def test_a_record_of_a_process_that_has_ended_is_no_server(tmp_path):
    settings = Settings(home=tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    remember(settings, Kept("http://127.0.0.1:1", ended.pid))
    assert prefect_server.kept_server(settings) is None


def test_a_process_that_took_the_servers_id_is_no_server_and_is_left_alone(tmp_path):
    settings = Settings(home=tmp_path)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        remember(settings, Kept("http://127.0.0.1:1", stranger.pid))
        assert prefect_server.kept_server(settings) is None
        assert not prefect_server.stop(settings)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_of_another_home_is_not_taken_for_ours(tmp_path, prefect_api):
    url = prefect_api.removesuffix("/api")
    assert not prefect_server._answers(url, Settings(home=tmp_path))


def test_a_taken_port_is_left_to_its_owner():
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        taken = owner.getsockname()[1]
        assert prefect_server._free_port(taken) != taken
    assert prefect_server._free_port(taken) == taken


def test_a_server_that_cannot_start_names_its_log(tmp_path, monkeypatch):
    settings = Settings(home=tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(PrefectServerFailed, match=r"server\.log"):
        prefect_server.ensure_server(settings)


def test_a_server_of_the_persons_own_that_does_not_answer_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert prefect_server.main(["status"]) == 1
    assert "no Prefect server answers at 'http://127.0.0.1:1/api'" in capsys.readouterr().err
