"""Hostile JSON through every door that takes rows: the right 4xx with a helpful body, no 5xx."""

import json
import zlib

import pytest

DOORS = ["/api/v1/infer", "/api/v1/infer/batch", "/api/v1/infer/stream", "/api/v1/explain"]
ROW = (
    b'{"origin": "JFK", "tailnum": "N123AA", "scheduled_departure": "2013-08-01T12:00:00Z", '
    b'"distance_miles": %b}'
)


def of_rows(*rows):
    return b'{"instances": [' + b",".join(rows) + b"]}"


def number(text):
    return of_rows(ROW % text)


NOT_JSON = {
    "nothing": b"",
    "white space": b" \n\t ",
    "a NUL": b"\x00",
    "a NUL behind it": number(b"1") + b"\x00",
    "a byte order mark": b"\xef\xbb\xbf" + number(b"1"),
    "UTF-16": number(b"1").decode().encode("utf-16"),
    "bad UTF-8": b'{"instances": [{"origin": "\xc3\x28"}]}',
    "an overlong NUL": b'{"instances": [{"origin": "\xc0\x80"}]}',
    "half a surrogate pair": b'{"instances": [{"origin": "\\ud800"}]}',
    "a raw control character": b'{"instances": [{"origin": "\x01"}]}',
    "a bad escape": b'{"instances": [{"origin": "\\x41"}]}',
    "cut in a string": b'{"instances": [{"origin": "JF',
    "cut in a number": b'{"features": [[1.',
    "a trailing comma": b'{"instances": [1,]}',
    "a comment": b"/* rows */ " + number(b"1"),
    "single quotes": b"{'instances': []}",
    "two documents": number(b"1") + number(b"1"),
    "NaN": number(b"NaN"),
    "Infinity": number(b"Infinity"),
    "minus Infinity": number(b"-Infinity"),
    "1e999": number(b"1e999"),
    "minus 1e999": number(b"-1e999"),
    "a number of 5,000 digits": number(b"9" * 5_000),
    "a leading zero": number(b"01"),
    "a plus sign": number(b"+1"),
    "hexadecimal": number(b"0x10"),
    "a bare point": number(b".5"),
    "10,000 lists deep": b'{"instances": [' + b"[" * 10_000,
    "9,000 objects deep": b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
    "deep and closed": b'{"features": ' + b"[" * 4_000 + b"]" * 4_000 + b"}",
    "a key twice": b'{"instances": [], "instances": [{}]}',
    "a key twice in a row": of_rows(ROW[:-1] % b"1" + b', "origin": "LGA"}'),
    "a key twice, escaped": of_rows(ROW[:-1] % b"1" + b', "\\u006frigin": "LGA"}'),
    "the same twice": of_rows(ROW[:-1] % b"1" + b', "origin": "JFK"}'),
    "gzip without saying so": zlib.compress(b"{}" * 500),
}
WRONG = {
    "null": b"null",
    "true": b"true",
    "a number": b"7",
    "text": b'"instances"',
    "a list": b"[]",
    "an empty object": b"{}",
    "no rows": of_rows(),
    "rows that are text": b'{"instances": "rows"}',
    "rows that are an object": b'{"instances": {"0": {}}}',
    "rows by a prototype": b'{"__proto__": {"instances": []}}',
    "a model that is a list": b'{"model": ["flight_delay"], "features": [[1, 2, 3, 4, 5]]}',
    "a long unknown key": b'{"' + b"k" * 15_000 + b'": 1}',
    "many unknown keys": json.dumps({f"k{n}": n for n in range(1_200)}).encode(),
}
BAD_ROWS = {
    "a row that is null": of_rows(b"null"),
    "a row that is a list": of_rows(b"[]"),
    "a boolean for a number": number(b"true"),
    "text for a number": number(b'"1"'),
    "a huge integer": number(b"1" + b"0" * 300),
    "a number beyond a float": number(b"1e300"),
    "beyond the bounds": number(b"10000.0001"),
    "a list for a key": of_rows(b'{"origin": ["JFK"], "tailnum": "N1"}'),
    "a NUL for a time": of_rows((ROW % b"1").replace(b"2013-08-01T12:00:00Z", b"\\u0000")),
    "a time of digits": of_rows((ROW % b"1").replace(b"2013-08-01T12:00:00Z", b"9" * 9_000)),
    "the year 0": of_rows((ROW % b"1").replace(b"2013", b"0000")),
    "the year 10000": of_rows((ROW % b"1").replace(b"2013", b"10000")),
    "unknown fields": of_rows(json.dumps({f"f{n}": n for n in range(1_000)}).encode()),
    "features that are a number": of_rows(b'{"features": 1e300}'),
    "a column by a prototype": of_rows(b'{"features": {"__proto__": 1}}'),
    "a long list of raw features": b'{"features": [[' + b"1," * 8_000 + b"1]]}",
    "a deep value among raw features": b'{"features": [[1,2,3,4,' + b"[" * 90 + b"]" * 90 + b"]]}",
}


@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_json_is_400(client, door):
    for name, body in NOT_JSON.items():
        response = client.post(door, content=body)
        assert response.status_code == 400, name
        assert response.json()["error"].startswith("the body is refused: "), name


@pytest.mark.parametrize("door", DOORS)
def test_json_of_another_shape_is_422(client, door):
    for name, body in WRONG.items():
        response = client.post(door, content=body)
        assert response.status_code == 422, name
        assert response.json()["problems"], name
        assert len(response.content) < 2_000, name


@pytest.mark.parametrize("door", DOORS)
def test_a_hostile_row_is_told_by_row_and_field(client, door):
    costs_itself = door.endswith(("batch", "stream"))
    for name, body in BAD_ROWS.items():
        response = client.post(door, content=body)
        assert response.status_code == (200 if costs_itself else 422), name
        assert "row 0" in response.text, name
        assert len(response.content) < 20_000, name


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("too_many", [-1, 0, 1])
def test_the_limit_of_a_body_is_exact(client, door, too_many):
    body = number(b"1") + b" " * (20_000 + too_many - len(number(b"1")))
    status = client.post(door, content=body).status_code
    assert status == (413 if too_many > 0 else 200)


def test_good_json_in_odd_clothes_is_answered(client):
    for body in (
        b"\n\t " + number(b"1") + b"\r\n",
        number(b"1e0"),
        number(b"-0.0"),
        number(b"1").replace(b"origin", b"\\u006frigin"),
        number(b"1").replace(b"JFK", "Zürich \U0001f6eb".encode()),
        number(b"1").replace(b'"JFK"', b'"\\ud83d\\udeeb"'),
        number(b"1").replace(b"JFK", b"\\u0000"),
    ):
        assert client.post(DOORS[0], content=body).status_code == 200
