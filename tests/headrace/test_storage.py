import threading
import uuid

import pytest

from headrace import storage
from headrace.errors import StorageFailed


@pytest.fixture(params=["folder", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


def test_what_is_written_is_read_back(root):
    storage.write_atomic(f"{root}/a/b.bin", b"one")
    storage.write_atomic(f"{root}/a/b.bin", b"two")
    assert storage.read_bytes(f"{root}/a/b.bin") == b"two"
    assert storage.exists(f"{root}/a/b.bin")
    assert storage.list_names(f"{root}/a") == ["b.bin"]


def test_nothing_there_is_told_from_could_not_ask(root):
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{root}/missing")
    assert not storage.exists(f"{root}/missing")
    assert storage.list_names(f"{root}/missing") == []


def test_only_the_first_creation_wins(root):
    assert storage.create_exclusive(f"{root}/x", b"first")
    assert not storage.create_exclusive(f"{root}/x", b"second")
    assert storage.read_bytes(f"{root}/x") == b"first"


def test_creating_the_same_bytes_again_is_no_conflict(root):
    assert storage.create_exclusive(f"{root}/x", b"same")
    assert storage.create_exclusive(f"{root}/x", b"same")


def test_of_many_creators_exactly_one_wins(tmp_path):
    barrier, wins = threading.Barrier(8), []

    def create(number: int) -> None:
        barrier.wait()
        wins.append(storage.create_exclusive(str(tmp_path / "x"), b"%d" % number))

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == [False] * 7 + [True]


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFailed, match="in the way"):
        storage.write_atomic(str(tmp_path / "file" / "x"), b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_is_not_listed(tmp_path):
    (tmp_path / ".writing-abc").write_text("half")
    assert storage.list_names(str(tmp_path)) == []


def test_a_path_below_a_file_could_not_be_asked_which_is_not_the_same_as_not_there(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFailed, match=r"cannot look for .*file/below: Not a directory"):
        storage.exists(str(tmp_path / "file" / "below"))
