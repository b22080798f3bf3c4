import hashlib
import mmap
import uuid
from pathlib import Path

import pytest

from headrace import mapped, storage


@pytest.fixture(params=["folder", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


@pytest.mark.parametrize("size", [0, 999, 1000, 5000])
def test_a_file_is_what_was_written_with_its_hash_mapped_from_some_size_on(root, monkeypatch, size):
    monkeypatch.setattr(mapped, "MAPPED_BYTES", 1000)
    written = bytes(i % 251 for i in range(size))
    storage.write_atomic(f"{root}/file", written)
    data, digest = mapped.read_data(f"{root}/file")
    assert bytes(data) == written
    assert digest == hashlib.sha256(written).hexdigest()
    assert isinstance(data, mmap.mmap) == (size >= 1000)


def test_a_map_keeps_the_file_that_another_takes_the_place_of(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "MAPPED_BYTES", 10)
    uri = str(tmp_path / "file")
    storage.write_atomic(uri, b"first" * 10)
    data, _ = mapped.read_data(uri)
    storage.write_atomic(uri, b"other" * 10)
    assert bytes(data) == b"first" * 10
    Path(uri).unlink()
    assert bytes(data) == b"first" * 10
    with pytest.raises(FileNotFoundError):
        mapped.read_data(uri)


def test_a_copy_of_a_file_from_elsewhere_has_no_name_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "MAPPED_BYTES", 10)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uri = f"memory://{uuid.uuid4().hex}/file"
    storage.write_atomic(uri, b"far away" * 10)
    data, _ = mapped.read_data(uri)
    assert bytes(data) == b"far away" * 10
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError):
        data[0] = 1
