import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BodyRefused
from serving.json_body import decode

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8)
DOCUMENTS = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)


@given(DOCUMENTS, st.booleans())
def test_what_json_writes_is_read_as_json_reads_it(document, ascii_only):
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert decode(body) == json.loads(body)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_and_never_a_crash(body):
    try:
        document = decode(body)
    except BodyRefused:
        return
    assert document == json.loads(body)


@given(st.text(max_size=5), SCALARS, SCALARS, st.booleans())
def test_a_repeated_key_is_refused_wherever_it_stands(key, first, second, ascii_only):
    def text(value):
        return json.dumps(value, ensure_ascii=ascii_only)

    twice = f"{{{text(key)}: {text(first)}, {text(key)}: {text(second)}}}"
    with pytest.raises(BodyRefused, match="twice in one object"):
        decode(f'{{"rows": [1, {twice}, "x"]}}'.encode())
