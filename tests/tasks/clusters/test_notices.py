"""How spot machines say that they will be taken away, from servers that answer as theirs do."""

import contextlib
import http.server
import threading

import pytest

from tasks.clusters.notices import is_given


class Metadata(http.server.BaseHTTPRequestHandler):
    """The addresses that AWS and Google answer on their machines; ``taken`` says what."""

    def do_PUT(self):
        asks_for_a_token = "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self.reply(200 if asks_for_a_token else 400, b"token-1")

    def do_GET(self):
        taken = self.server.taken
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers["X-aws-ec2-metadata-token"] != "token-1":
                self.reply(401, b"")
            else:
                self.reply(200 if taken else 404, b'{"action": "terminate"}')
        elif self.path == "/computeMetadata/v1/instance/preempted":
            known = self.headers["Metadata-Flavor"] == "Google"
            self.reply(200 if known else 403, b"TRUE\n" if taken else b"FALSE\n")
        else:
            self.reply(200 if taken else 404, b"bye")

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def metadata(*, taken):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        server.taken = taken
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("notice", ["aws {}", "gcp {}", "{}/any"])
def test_a_machine_is_asked_in_the_way_of_its_cloud(notice, taken):
    with metadata(taken=taken) as address:
        assert is_given(notice.format(address)) is taken


def test_a_machine_where_nobody_answers_stays():
    assert not any(is_given(f"{kind}http://127.0.0.1:1") for kind in ("aws ", "gcp ", ""))


def test_a_file_that_appears_is_a_notice_too(tmp_path):
    assert not is_given(str(tmp_path / "going"))
    (tmp_path / "going").touch()
    assert is_given(str(tmp_path / "going"))
