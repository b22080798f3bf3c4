"""Nothing that serving reads can run code: no pickle is opened, whatever lies in a bundle."""

import json
import os
import pickle  # noqa: TID251  (to make what must never be opened)
import re
import signal
import subprocess
import sys

import httpx
import pytest

from headrace import bundle, release
from headrace.errors import BundleRefused
from headrace.window import Window

_AUDITED = """
import json, sys
counts = {"pickle.find_class": 0, "marshal.loads": 0, "exec": 0}
def importing(frame):
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False
def watch(event, arguments):
    if event == "pickle.find_class" or (event in counts and not importing(sys._getframe(1))):
        counts[event] += 1
sys.addaudithook(watch)
code = 0
"""
_SERVE = """
from serving.__main__ import main
code = main(["--port", "0"])
"""
_OPEN_A_PICKLE = """
import fractions, pickle
pickle.loads(pickle.dumps(fractions.Fraction(1, 3)))
exec("1 + 1")
"""
_TELL = """
print(json.dumps(counts))
raise SystemExit(code)
"""


class _Touch:
    """What a pickle would do to whoever opens it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def champion(world):
    root = world.settings.uri("bundles")
    return bundle.read_bundle(
        root, release.require_release(world.settings.storage_uri, "flight_delay").champion
    )


@pytest.fixture
def poisoned(world, champion, tmp_path):
    """Put a pickle in the place of one file, with every hash right, and release the bundle."""
    canary = tmp_path / "canary"

    def poison(name):
        files = champion.files | {name: pickle.dumps(_Touch(canary))}
        digest = bundle.write_bundle(world.settings.uri("bundles"), champion.manifest, files)
        root = world.settings.storage_uri
        release.move_release(
            root, "flight_delay", champion=digest, expected=1, by="mallory", reason="poison"
        )
        return digest, canary

    return poison


def test_the_pickle_would_touch_the_canary_if_anybody_opened_it(tmp_path):
    pickle.loads(pickle.dumps(_Touch(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", [bundle.model_file("xgboost"), bundle.GOLDEN])
def test_a_pickle_for_a_model_or_its_golden_rows_is_refused_and_not_opened(world, poisoned, name):
    from serving.predictor import load_predictor

    digest, canary = poisoned(name)
    with pytest.raises(BundleRefused, match=digest[:12]):
        load_predictor(world.settings.uri("bundles"), digest)
    assert world.run("batch_predict", "--model", "flight_delay") == 1
    assert not canary.exists()


def test_a_pickle_for_a_reference_profile_is_refused_and_not_opened(world, poisoned, capfd):
    digest, canary = poisoned(bundle.REFERENCE)
    assert world.run("check_drift", "--model", "flight_delay") == 1
    said = capfd.readouterr().err
    assert f"bundle {digest[:12]} is refused: {bundle.REFERENCE}" in said
    assert "Traceback" not in said
    assert not canary.exists()


def test_a_pickle_for_a_model_card_is_text_that_nobody_runs(world, poisoned):
    from serving.predictor import load_predictor

    digest, canary = poisoned(bundle.CARD)
    load_predictor(world.settings.uri("bundles"), digest)
    assert not canary.exists()


def audited(world, *parts):
    """Start Python under an audit hook that counts what could run code from data."""
    return subprocess.Popen(
        [sys.executable, "-c", "".join([_AUDITED, *parts, _TELL])],
        env=os.environ | {"HEADRACE_HOME": str(world.home)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_server_that_starts_answers_and_ends_opens_no_pickle(world):
    from tasks.sample import request_rows

    window = Window(since="2013-03-01T00:00:00Z", until="2013-03-02T00:00:00Z")
    rows = request_rows(world.settings, "flight_delay", window, rows=20)
    with audited(world, _SERVE) as server:
        url = re.search(r"http://[\d.:]+", server.stdout.readline())[0]
        answer = httpx.post(f"{url}/api/v1/infer", json={"instances": rows})
        assert answer.status_code == 200
        assert len(answer.json()["predictions"]) == 20
        server.send_signal(signal.SIGTERM)
        counts = json.loads(server.stdout.read().splitlines()[-1])
        assert server.wait(20) == 0
    assert counts == {"pickle.find_class": 0, "marshal.loads": 0, "exec": 0}


def test_the_audit_hook_would_have_counted(world):
    with audited(world, _OPEN_A_PICKLE) as process:
        counts = json.loads(process.stdout.read().splitlines()[-1])
    assert counts["pickle.find_class"] >= 1
    assert counts["exec"] >= 1
