"""JSON in, strictly: what it says must be clear, finite and said once.

msgspec refuses NaN, numbers beyond a double, bad UTF-8 and trailing text. It keeps the last of two
equal keys, as most decoders do; here a repeated key is refused, because the caller meant one of the
two values and nobody can know which.
"""

import json
from typing import Any

import msgspec

from serving.errors import BodyRefused

_PLAIN = {int, float, bool, type(None)}


def decode(body: bytes) -> Any:
    """Return what the JSON in ``body`` says.

    Raises:
        BodyRefused: if it is not JSON, nested too deeply, or says a key twice in one object.
    """
    try:
        value = msgspec.json.decode(body)
        if b"\\" in body or body.count(b'"') != 2 * _strings(value):
            # Slow, and taken only by bodies with escapes or with a repeated key: it names the key.
            json.loads(body, object_pairs_hook=_unique)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BodyRefused(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise BodyRefused("it is nested too deeply") from error
    return value


encode = msgspec.json.encode


def _strings(value: Any) -> int:
    """How many strings, keys included, the JSON of ``value`` holds: two quotes each."""
    if isinstance(value, str):
        return 1
    if isinstance(value, dict):
        return len(value) + sum(map(_strings, value.values()))
    if isinstance(value, list):
        return 0 if _PLAIN.issuperset(map(type, value)) else sum(map(_strings, value))
    return 0


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BodyRefused(f"key {twice!r} is there twice in one object; write it once")
    return found
