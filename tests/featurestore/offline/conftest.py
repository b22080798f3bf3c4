"""What the tests of offline tables share."""

import contextlib

import fsspec
import pytest


@pytest.fixture(params=["folder", "memory://"])
def root(request, tmp_path):
    """Where offline tables lie: a folder, and a place that only fsspec knows."""
    if request.param == "folder":
        yield str(tmp_path / "offline")
        return
    yield "memory://offline"
    with contextlib.suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm("/offline", recursive=True)
