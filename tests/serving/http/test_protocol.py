import contextlib
import threading
import time

import msgspec
import pytest

HOST = b"Host: here\r\n"


def body_of(answer):
    return msgspec.json.decode(answer[2])


def test_a_hot_request_is_answered_before_the_framework(served, post):
    with served.client() as client:
        client.send(post("/v2/models/flights/versions/7/infer", b"hello"))
        status, headers, body = client.answer()
    assert status == 200
    assert msgspec.json.decode(body) == {
        "name": "flights",
        "version": "7",
        "length": 5,
        "body": "hello",
    }
    assert {"date", "content-length", "x-request-id", "content-type"} == set(headers)


def test_everything_else_is_the_frameworks_and_lanes_may_alternate(served, post):
    with served.client() as client:
        for _ in range(2):
            client.send(post("/infer", b"a"))
            assert body_of(client.answer())["body"] == "a"
            client.send(post("/jobs", b"abc"))
            assert client.answer()[2] == b"framework /jobs 3"
            client.send(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
            assert client.answer()[2] == b"framework /health 0"


@pytest.mark.parametrize(
    "line",
    ["Content-Encoding: gzip", "Expect: 100-continue"],
)
def test_a_hot_path_in_unusual_clothes_goes_to_the_framework(served, post, line):
    with served.client() as client:
        client.send(post("/infer", b"abc", line))
        status, _, body = client.answer()
        if status == 100:
            status, _, body = client.answer()
        assert (status, body) == (200, b"framework /infer 3")


def test_an_upgrade_to_what_is_not_spoken_here_changes_nothing(served, post):
    lines = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"
    with served.client() as client:
        client.send(post("/infer", b"abc", lines))
        assert body_of(client.answer())["body"] == "abc"
        client.send(post("/jobs", b"abc", lines))
        assert client.answer()[2] == b"framework /jobs 3"
        client.send(post("/infer", b"abc"))
        assert client.answer()[0] == 200


def test_chunks_go_to_the_framework_and_the_connection_goes_on(served, post):
    chunked = b"POST /infer HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    with served.client() as client:
        client.send(chunked, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")
        assert client.answer()[2] == b"framework /infer 5"
        client.send(post("/infer", b"a"))
        assert body_of(client.answer())["body"] == "a"


def test_what_comes_right_behind_the_last_chunk_is_not_taken_for_a_request(served, post):
    chunked = b"POST /infer HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    with served.client() as client:
        client.send(chunked + b"1\r\na\r\n0\r\n\r\n" + post("/infer", b"smuggled"))
        status, headers, body = client.answer()
        assert (status, body) == (200, b"framework /infer 1")
        assert headers["connection"] == "close"
        assert client.is_closed()
    assert served.plane.asked == 0


def test_a_request_in_any_pieces_is_the_same_request(served, post):
    whole = post("/infer", b"some body")
    for cut in range(1, len(whole)):
        with served.client() as client:
            client.send(whole[:cut], whole[cut:], pause=0.001)
            assert body_of(client.answer())["body"] == "some body"


def test_a_known_head_serves_bodies_that_come_later(served, post):
    whole = post("/infer", b"some body")
    with served.client() as client:
        for cut in (len(whole), len(whole) - 9, len(whole) - 3, 10):
            client.send(*filter(None, (whole[:cut], whole[cut:])))
            assert body_of(client.answer())["body"] == "some body"


def test_pipelined_requests_are_answered_in_order(served, post):
    paths = ["/infer", "/jobs", "/infer", "/infer", "/v2/models/m/infer", "/x", "/infer"]
    requests = [post(path, f"number {n}".encode()) for n, path in enumerate(paths)]
    with served.client() as client:
        client.send(b"".join(requests))
        answers = [client.answer()[2] for _ in paths]
    for number, (path, answer) in enumerate(zip(paths, answers, strict=True)):
        wanted = f"framework {path} 8" if path in ("/jobs", "/x") else f'"number {number}"'
        assert wanted in answer.decode()


def test_two_thousand_pipelined_requests_do_not_recurse(served, post):
    with served.client() as client:
        sending = threading.Thread(target=client.send, args=(post("/infer", b"bad") * 2000,))
        sending.start()
        statuses = {client.answer()[0] for _ in range(2000)}
        sending.join()
    assert statuses == {400}


def test_request_ids_are_the_callers_or_new(served, post):
    with served.client() as client:
        client.send(post("/infer", b"a", "X-Request-Id: mine-1"))
        assert client.answer()[1]["x-request-id"] == "mine-1"
        client.send(post("/infer", b"a", "X-Request-Id: not sane"))
        first = client.answer()[1]["x-request-id"]
        client.send(post("/infer", b"a"))
        second = client.answer()[1]["x-request-id"]
    assert len({first, second, "not sane"}) == 3


def test_an_error_leaves_the_connection_usable_and_a_fault_of_ours_is_a_500(served, post):
    with served.client() as client:
        client.send(post("/infer", b"bad"))
        assert client.answer()[0] == 400
        client.send(post("/infer", b"broken"))
        status, _, body = client.answer()
        assert (status, b"a fault" in body) == (500, False)
        client.send(post("/infer", b"good"))
        assert client.answer()[0] == 200
    assert [status for _, status, _ in served.watcher.refusals] == [400, 500]


def test_a_large_body_is_decoded_on_a_thread_and_answered(served, post):
    with served.client() as client:
        client.send(post("/infer", b"x" * 49_000))
        assert body_of(client.answer())["length"] == 49_000
        client.send(post("/infer", b"bad"))
        assert client.answer()[0] == 400


@pytest.mark.parametrize(("version", "line"), [("1.0", "X: y"), ("1.1", "Connection: close")])
def test_a_client_that_wants_the_connection_closed_gets_that(served, post, version, line):
    with served.client() as client:
        client.send(post("/infer", b"a", line, version=version))
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert client.is_closed()


REFUSED = {
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01", 400),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a tunnel": (b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "bare line feeds": (b"POST /infer HTTP/1.1\nHost: here\n\n", 400),
    "no host": (b"POST /infer HTTP/1.1\r\nContent-Length: 1\r\n\r\na", 400),
    "two hosts": (b"POST /infer HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 1\r\n\r\na", 400),
    "two lengths": (
        b"POST /infer HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na",
        400,
    ),
    "length and chunks": (
        b"POST /infer HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks and length": (
        b"POST /infer HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks that are not the last encoding": (
        b"POST /infer HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a negative length": (b"POST /infer HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
    "a length of words": (b"POST /infer HTTP/1.1\r\n" + HOST + b"Content-Length: ten\r\n\r\n", 400),
    "a length beyond 64 bits": (
        b"POST /infer HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n",
        400,
    ),
    "a space before the colon": (
        b"POST /infer HTTP/1.1\r\n" + HOST + b"Content-Length : 1\r\n\r\na",
        400,
    ),
    "a folded header": (b"POST /infer HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", 400),
    "a NUL in a header": (b"POST /infer HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n", 400),
    "malformed chunks": (
        b"POST /jobs HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        400,
    ),
    "a timeout of no meaning": (
        b"POST /infer HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nX-Request-Timeout: -1\r\n\r\na",
        400,
    ),
    "headers without end": (b"POST /infer HTTP/1.1\r\nX: " + b"y" * 3000, 431),
    "large headers": (b"POST /infer HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 3000 + b"\r\n\r\n", 431),
    "a body beyond the limit": (
        b"POST /infer HTTP/1.1\r\n" + HOST + b"Content-Length: 50001\r\n\r\n",
        413,
    ),
    "a body beyond the limit of tensors": (
        b"POST /infer HTTP/1.1\r\n"
        + HOST
        + b"Inference-Header-Content-Length: 9\r\nContent-Length: 200001\r\n\r\n",
        413,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_be_read_in_two_ways_or_is_too_much_is_refused_and_ends(served, case):
    request, status = REFUSED[case]
    with served.client() as client:
        client.send(request)
        answer = client.answer()
        assert (answer[0], answer[1]["connection"]) == (status, "close")
        assert body_of(answer)["error"]
        assert client.is_closed()
    assert served.plane.asked == 0


def test_limits_are_reached_only_beyond_them(served, post):
    with served.client() as client:
        client.send(post("/infer", b"x" * 50_000))
        assert client.answer()[0] == 200
        client.send(post("/infer", b"x" * 100_000, "Inference-Header-Content-Length: 9"))
        assert client.answer()[0] == 200


def test_a_refused_client_that_goes_on_sending_can_read_why(served, post):
    with served.client() as client:
        client.send(post("/infer", b"x" * 150_000))
        assert client.answer()[0] == 413
        client.send(b"x" * 10_000)
        assert client.is_closed()


def test_the_answer_of_a_client_that_vanished_is_dropped_and_nobody_elses(served, post):
    with served.client() as client:
        client.send(post("/infer", b"wait for me"))
        until(lambda: served.plane.held)
    until(lambda: served.plane.held[0].done is None)
    with served.client() as other:
        served.on_loop(served.plane.answer, served.plane.held[0])
        other.send(post("/infer", b"mine"))
        assert body_of(other.answer())["body"] == "mine"
    assert served.plane.dropped == 1


def test_more_connections_than_the_limit_are_told_to_try_again(served, post):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.client()) for _ in range(10)]
        for client in clients:
            client.send(post("/infer", b"a"))
            assert client.answer()[0] == 200
        with served.client() as one_more:
            status, headers, _ = one_more.answer()
            assert (status, headers["retry-after"]) == (503, "1")
            assert one_more.is_closed()
        clients[0].send(post("/infer", b"a"))
        assert clients[0].answer()[0] == 200


def test_a_slow_head_a_slow_body_and_an_idle_client_are_closed_in_time(served, post):
    with served.client() as head, served.client() as body, served.client() as idle:
        head.send(b"POST /infer HTTP/1.1\r\nHo")
        body.send(post("/infer", b"x" * 100)[:-50])
        idle.send(post("/infer", b"a"))
        assert idle.answer()[0] == 200
        time.sleep(0.05)
        served.seconds(3)
        assert (head.answer()[0], head.is_closed()) == (408, True)
        assert (body.answer()[0], body.is_closed()) == (408, True)
        idle.send(post("/infer", b"a"))
        assert idle.answer()[0] == 200
        served.seconds(6)
        assert idle.is_closed()


def test_a_slow_body_of_the_framework_is_closed_in_time(served):
    with served.client() as client:
        client.send(b"POST /jobs HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\nabc")
        time.sleep(0.05)
        served.seconds(3)
        assert (client.answer()[0], client.is_closed()) == (408, True)


def test_a_client_that_drips_is_not_kept_alive_by_its_drops(served, post):
    whole = post("/infer", b"x" * 100)
    with served.client() as client:
        for number in range(4):
            client.send(whole[number : number + 1])
            time.sleep(0.02)
            served.seconds(1)
        assert (client.answer()[0], client.is_closed()) == (408, True)


def test_an_answer_under_way_has_no_deadline_of_the_connection(served, post):
    with served.client() as client:
        client.send(post("/infer", b"wait"))
        until(lambda: served.plane.held)
        served.seconds(20)
        served.on_loop(served.plane.answer, served.plane.held[0])
        assert client.answer()[0] == 200


def test_a_client_that_reads_nothing_is_cut_off(served, post):
    def ask_for_ever(requests):
        with contextlib.suppress(OSError):
            while True:
                client.socket.sendall(requests)

    with served.client() as client:
        asking = threading.Thread(target=ask_for_ever, args=(post("/infer", b"x" * 100) * 100,))
        asking.start()
        until(lambda: any(one.flow.write_paused for one in served.state.connections))
        served.seconds(4)
        asking.join(10)
        assert not served.state.connections


def test_while_draining_every_answer_is_the_last_of_its_connection(served, post):
    with served.client() as hot, served.client() as slow:
        hot.send(post("/infer", b"a"))
        assert "connection" not in hot.answer()[1]
        slow.send(post("/jobs", b"a"))
        assert "connection" not in slow.answer()[1]
        served.on_loop(served.lane.drain)
        for client, path in ((hot, "/infer"), (slow, "/jobs")):
            client.send(post(path, b"a"))
            assert client.answer()[1]["connection"] == "close"
            assert client.is_closed()


def until(holds):
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
