"""S1: whatever is sent, the answer is the caller's fault (4xx), and nobody beside it notices."""

import contextlib
import json
import socket
from pathlib import Path

import httpx
import pytest

from tests.faults.load import Load, request, serving
from tests.faults.serving_home import KEYED, RAW, V2, write_home

LIMIT = 100_000
DOORS = (
    "/api/v1/infer",
    "/api/v1/infer/batch",
    "/api/v1/infer/stream",
    "/api/v1/explain",
    "/api/v1/jobs",
    V2,
    V2.replace("/infer", "/explain"),
)
GOOD = json.loads(KEYED)["instances"][0]


def keyed(**changes):
    return json.dumps({"instances": [GOOD | changes]}).encode()


def said(text):
    """The row with ``text`` where a number should be, as it would be sent by who writes no JSON."""
    return KEYED.replace(b"730", text)


def tensor(text):
    return RAW.replace(b"730.0", text)


def both(text):
    return (said(text), tensor(text))


HOSTILE = {
    "nothing": (b"",),
    "space": (b" \n\t ",),
    "NUL": (b"\0", KEYED + b"\0", KEYED.replace(b"JFK", b"J\0K")),
    "a byte": (b"{", b"[", b'"', b"}", b"\xff"),
    "another document": (b"null", b"true", b"7", b'"text"', b"[]", b"{}", b"[[]]"),
    "cut off": (KEYED[:-1], KEYED[:30], RAW[:-3]),
    "more behind it": (KEYED + b"{}", RAW + b"]"),
    "bad UTF-8": (KEYED.replace(b"JFK", b"\xff\xfe"), KEYED.replace(b"JFK", b"\xed\xa0\x80")),
    "UTF-16": (KEYED.decode().encode("utf-16"),),
    "not finite": (*both(b"NaN"), *both(b"Infinity"), *both(b"-Infinity"), *both(b"1e999")),
    "beyond a float": (*both(b"1e300"), *both(b"-1e39")),
    "five thousand digits": both(b"9" * 5_000),
    "hexadecimal": both(b"0x10"),
    "a leading zero": both(b"007"),
    "a bool for a number": both(b"true"),
    "text for a number": both(b'"1"'),
    "a list for a number": both(b"[1]"),
    "an object for a number": both(b'{"a":1}'),
    "a repeated key": (
        KEYED.replace(b'"origin":"JFK"', b'"origin":"JFK","origin":"LGA"'),
        b'{"instances":[],"instances":[]}',
        b'{"inputs":[],"inputs":[]}',
    ),
    "a key repeated in other letters": (
        KEYED.replace(b'"origin":"JFK"', b'"origin":"JFK","\\u006frigin":"LGA"'),
    ),
    "deep": (b"[" * 100_000, b'{"instances":' * 7_000, KEYED.replace(b"730", b"[" * 50_000)),
    "an unknown field": (keyed(__class__="x"), b'{"instance_s":[]}', b'{"inputs":[{"nam":"x"}]}'),
    "no rows": (b'{"instances":[]}', b'{"inputs":[]}'),
    "rows of another kind": (b'{"instances":[1]}', b'{"instances":[[]]}', b'{"instances":{}}'),
    "a wrong time": (keyed(scheduled_departure="now"), keyed(scheduled_departure=1e400)),
    "a shape that lies": (
        RAW.replace(b"[1,3]", b"[3,1]"),
        RAW.replace(b"[1,3]", b"[1,-3]"),
        RAW.replace(b"[1,3]", b"[9223372036854775807,3]"),
        RAW.replace(b"[1,3]", b"[1.0,3]"),
        RAW.replace(b"[1,3]", b"[]"),
    ),
    "a datatype that is none": (RAW.replace(b"FP32", b"FP33"), RAW.replace(b'"FP32"', b"null")),
    "a byte beyond the limit": (b" " * (LIMIT + 1),),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_home(home)
    with serving(
        home, max_body_bytes=LIMIT, max_binary_bytes=LIMIT, jobs_max_body_bytes=LIMIT
    ) as server:
        yield server


@pytest.fixture
def client(server):
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
        yield client


def cases():
    for door in DOORS:
        for name, bodies in HOSTILE.items():
            for number, body in enumerate(bodies):
                yield f"{door} {name} {number}", door, body


def failed_rows(response):
    """Batch and stream tell of a bad row where its prediction would stand, a job in its result."""
    if response.request.url.path == "/api/v1/jobs":
        return response.status_code == 202
    return response.status_code == 200 and b'"error"' in response.content


def test_every_hostile_body_is_the_callers_fault_and_costs_nobody_else(server, client, scorecard):
    wrong = []
    with Load(server.port, connections=4) as beside:
        for name, door, body in cases():
            response = client.post(door, content=body)
            refused = 400 <= response.status_code < 500 and response.json()["error"]
            if not refused and not failed_rows(response):
                wrong.append((name, response.status_code, response.text[:200]))
    count = len(list(cases()))
    figure = f"{count} hostile bodies: {len(wrong)} not refused; beside them {beside.outcomes}"
    scorecard("S1", passed=not wrong and not beside.failed, figure=figure, seed=0)
    assert (wrong, beside.failed) == ([], {})
    assert count >= 200


def test_a_body_of_just_the_limit_is_read(client):
    body = KEYED + b" " * (LIMIT - len(KEYED))
    assert client.post("/api/v1/infer", content=body).status_code == 200


@pytest.mark.parametrize("door", ["/api/v1/infer", V2])
def test_a_body_in_chunks_of_a_byte_is_a_body(client, door):
    body = RAW if door == V2 else KEYED
    chunks = (body[at : at + 1] for at in range(len(body)))
    assert client.post(door, content=chunks).status_code == 200


def test_a_compressed_body_is_not_unpacked(client):
    for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip"):
        response = client.post(
            "/api/v1/infer", content=b"x", headers={"Content-Encoding": encoding}
        )
        assert (response.status_code, response.headers["accept-encoding"]) == (415, "identity")


def test_a_length_that_lies_costs_only_its_own_connection(server, client):
    short, long = request()[:-5], request() + b"GARBAGE that is no request\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as liar:
        liar.sendall(short)
        assert client.post(V2, content=RAW).status_code == 200
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as liar:
        liar.sendall(long)
        heard = b""
        while more := liar.recv(65_536):
            heard += more
    assert heard.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 400" in heard
    assert client.post(V2, content=RAW).status_code == 200


def resident_bytes(server):
    status = Path(f"/proc/{server.pid}/status").read_text().split()
    return int(status[status.index("VmRSS:") + 1]) * 1024


def upload(server, size):
    """Send ``size`` bytes in chunks and never look; how far the server grew, and its last word."""
    before, most = resident_bytes(server), 0
    chunk = b"%x\r\n" % 1_000_000 + b"x" * 1_000_000 + b"\r\n"
    heard = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(
            request(b"", "/api/v1/infer").replace(
                b"Content-Length: 0", b"Transfer-Encoding: chunked"
            )
        )
        with contextlib.suppress(OSError):
            for _ in range(size // 1_000_000):
                client.sendall(chunk)
                most = max(most, resident_bytes(server))
        with contextlib.suppress(OSError):
            heard = client.recv(65_536)
    return most - before, heard


def test_an_endless_upload_is_refused_and_takes_no_memory(server):
    grown, heard = upload(server, 100_000_000)
    assert grown < 20_000_000
    assert heard == b"" or heard.startswith(b"HTTP/1.1 413")
