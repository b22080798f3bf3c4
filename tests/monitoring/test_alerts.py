import http.server
import json
import socket
import threading
from datetime import UTC, datetime

import pytest

from headrace import storage
from monitoring.alerts import Alert, post_alerts, record_alerts

ALERT = Alert(
    raised_by="check-features",
    kind="stale",
    subject="weather",
    sentence="weather: the newest value is 8 h old.",
    at=datetime(2013, 4, 1, tzinfo=UTC),
)


@pytest.fixture
def webhook():
    """A server that keeps what it is sent, and answers with the status it is told."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    taken, status = [], [200]
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", taken, status
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_same_alerts_are_recorded_once(tmp_path):
    uri = record_alerts(str(tmp_path), [ALERT])
    assert record_alerts(str(tmp_path), [ALERT]) == uri
    assert len(storage.list_names(f"{tmp_path}/alerts")) == 1
    assert Alert.model_validate_json(storage.read_bytes(uri)) == ALERT
    assert record_alerts(str(tmp_path), []) is None


def test_a_webhook_is_told_in_words_and_in_fields(webhook):
    url, taken, _ = webhook
    assert post_alerts(url, [ALERT]) is None
    assert taken[0]["text"] == "stale: weather: the newest value is 8 h old."
    assert Alert.model_validate(taken[0]["alerts"][0]) == ALERT


def test_a_webhook_that_refuses_or_is_gone_is_told_of(webhook):
    url, _, status = webhook
    status[0] = 503
    assert post_alerts(url, [ALERT]) == "it answered 503"
    assert "cannot be reached" in post_alerts("http://127.0.0.1:9/x", [ALERT])


def test_a_webhook_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        told = post_alerts(url, [ALERT], timeout_seconds=0.2)
    assert "timed out" in told
