"""A step is tried again for what may heal by itself, whoever told of it."""

import asyncio

import pytest
from prefect.states import Failed

from headrace.errors import SchemaMismatch, StorageFailed
from tasks.step import transient


def caused_by(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "heals"),
    [
        (ConnectionError("reset"), True),
        (caused_by(StorageFailed("read", "s3://b/k", "reset"), ConnectionError("reset")), True),
        (caused_by(StorageFailed("read", "/a", "denied"), PermissionError("denied")), False),
        (SchemaMismatch("rows", ["column a is missing"]), False),
        (ValueError("a mistake"), False),
    ],
)
def test_only_what_may_heal_is_tried_again(error, heals):
    assert asyncio.run(transient(None, None, Failed(data=error))) is heals
