"""Storage on S3: a real protocol server, and a proxy before it that does harm."""

import os
import subprocess
import sys
import threading
import time

import pytest

from headrace import healing, storage
from headrace.backends import s3_transfer
from headrace.errors import StorageFailed
from tests.faults.proxy import Fault

DATA = os.urandom(50_000)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(healing, "DEFAULT", healing.Patience(attempts=3, first_wait_seconds=0.001))


@pytest.fixture
def hasty(monkeypatch):
    quick = healing.Patience(
        attempts=30, seconds=30, first_wait_seconds=0.001, longest_wait_seconds=0.01
    )
    monkeypatch.setattr(healing, "DEFAULT", quick)


@pytest.fixture
def small_parts(monkeypatch):
    # S3 wants parts of 5 MiB at least, but for the last.
    monkeypatch.setattr(s3_transfer, "PART_BYTES", 5 << 20)
    monkeypatch.setattr("headrace.backends.s3.PART_BYTES", 5 << 20)


def test_what_is_written_is_read_back(s3):
    storage.write_atomic(f"{s3}/a/b.bin", b"one")
    storage.write_atomic(f"{s3}/a/b.bin", DATA)
    assert storage.read_bytes(f"{s3}/a/b.bin") == DATA
    assert storage.read_range(f"{s3}/a/b.bin", 10, 20) == DATA[10:20]
    assert storage.exists(f"{s3}/a/b.bin")
    assert storage.exists(f"{s3}/a")
    assert storage.list_names(s3) == ["a"]
    assert storage.list_names(f"{s3}/a") == ["b.bin"]
    assert storage.sha256_of(f"{s3}/a/b.bin") == storage.sha256(DATA)
    storage.remove(f"{s3}/a/b.bin")
    assert not storage.exists(f"{s3}/a/b.bin")


def test_nothing_there_is_told_from_could_not_ask(s3):
    for ask in (storage.read_bytes, storage.stamp, storage.find):
        with pytest.raises(FileNotFoundError):
            ask(f"{s3}/missing")
    assert not storage.exists(f"{s3}/missing")
    assert storage.list_names(f"{s3}/missing") == []
    assert storage.find_below(f"{s3}/missing") == []


def test_a_bucket_that_is_not_there_is_named_with_its_remedy(s3):
    gone = "s3://no-such-bucket-of-ours/x"
    for ask in (storage.read_bytes, storage.exists, storage.list_names, storage.stamp):
        with pytest.raises(StorageFailed, match=r"no bucket 'no-such-bucket-of-ours'.*Make it"):
            ask(gone)
    with pytest.raises(StorageFailed, match="no bucket"):
        storage.write_atomic(gone, b"data")


def test_no_credentials_are_told_as_such(s3, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageFailed, match=r"credentials.*Set AWS_ACCESS_KEY_ID"):
        storage.read_bytes(f"{s3}/x")


def test_a_right_that_is_missing_is_told_at_once(faulty_s3, fault_proxy):
    with fault_proxy.failing(Fault("403")):
        for ask in (storage.read_bytes, storage.exists, storage.list_names):
            with pytest.raises(StorageFailed, match=r"S3 denies it .*this right on bucket"):
                ask(f"{faulty_s3}/x")
        with pytest.raises(StorageFailed, match="cannot write"):
            storage.write_atomic(f"{faulty_s3}/x", b"data")
    assert fault_proxy.done["403"] == 4  # none was tried twice


def test_an_endpoint_that_does_not_answer_is_given_up(s3, impatient, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StorageFailed, match=r"tried 3 times.*Check the network"):
        storage.read_bytes(f"{s3}/x")


def test_globs_and_folders_list_files_with_stamps(s3):
    for name in ("d/m=1/a.parquet", "d/m=2/b.parquet", "d/m=2/c.csv", "other.parquet"):
        storage.write_atomic(f"{s3}/{name}", name.encode())
    below = storage.find_below(f"{s3}/d")
    assert [found.uri for found in below] == [
        f"{s3}/d/m=1/a.parquet",
        f"{s3}/d/m=2/b.parquet",
        f"{s3}/d/m=2/c.csv",
    ]
    matching = storage.find_matching(f"{s3}/d/m=*/*.parquet")
    assert matching == below[:2]
    assert matching[0].stamp == storage.stamp(f"{s3}/d/m=1/a.parquet")


def test_only_the_first_creation_wins(s3):
    assert storage.create_exclusive(f"{s3}/x", b"first")
    assert not storage.create_exclusive(f"{s3}/x", b"second")
    assert storage.create_exclusive(f"{s3}/x", b"first")


def test_of_many_creators_exactly_one_wins(s3):
    barrier, wins = threading.Barrier(8), []

    def create(number: int) -> None:
        barrier.wait()
        wins.append(storage.create_exclusive(f"{s3}/x", b"%d" % number))

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == [False] * 7 + [True]


def test_a_creation_whose_reply_is_lost_is_known_as_ours(faulty_s3, fault_proxy, hasty):
    with fault_proxy.failing(Fault("reply_lost", methods={"PUT"}, times=1)):
        assert storage.create_exclusive(f"{faulty_s3}/x", b"mine")
    assert fault_proxy.done["reply_lost"] == 1
    assert storage.read_bytes(f"{faulty_s3}/x") == b"mine"


def test_a_creation_that_the_store_kept_damaged_is_mended(faulty_s3, fault_proxy, hasty):
    with fault_proxy.failing(Fault("flip_up", methods={"PUT"}, times=1)):
        assert storage.create_exclusive(f"{faulty_s3}/x", DATA)
    assert storage.read_bytes(f"{faulty_s3}/x") == DATA


@pytest.mark.parametrize(
    "mode", ["503", "500", "reset", "reply_lost", "cut_body", "flip_up", "flip_down"]
)
def test_every_fault_heals_and_no_byte_is_wrong(faulty_s3, fault_proxy, hasty, mode, tmp_path):
    with fault_proxy.failing(Fault(mode, share=0.5)):
        for number in range(3):
            data = DATA[: 10_000 * (number + 1)]
            storage.write_atomic(f"{faulty_s3}/{number}", data)
            assert storage.read_bytes(f"{faulty_s3}/{number}") == data
            assert storage.create_exclusive(f"{faulty_s3}/new/{number}", data)
            with storage.local_copy(f"{faulty_s3}/new/{number}") as path:
                assert path.read_bytes() == data
    assert fault_proxy.done[mode] >= 2
    assert len(storage.list_names(f"{faulty_s3}/new")) == 3


def test_a_store_that_stays_damaged_is_given_up_not_believed(faulty_s3, fault_proxy, impatient):
    storage.write_atomic(f"{faulty_s3}/x", DATA)
    with fault_proxy.failing(Fault("flip_down", methods={"GET"})), pytest.raises(StorageFailed):
        storage.read_bytes(f"{faulty_s3}/x")


def test_a_large_file_goes_up_in_parts_and_leaves_no_upload(
    faulty_s3, fault_proxy, hasty, small_parts, tmp_path
):
    data = os.urandom(11 << 20)
    faults = fault_proxy.failing(Fault("503", share=0.3), Fault("reply_lost", share=0.3))
    with faults, storage.written_whole(f"{faulty_s3}/large") as path:
        path.write_bytes(data)
    with storage.local_copy(f"{faulty_s3}/large") as path:
        assert path.read_bytes() == data
    storage.remove_unfinished(faulty_s3)
    assert uploads(faulty_s3) == []


def test_an_exception_publishes_nothing_and_leaves_no_upload(s3, small_parts):
    with pytest.raises(ZeroDivisionError):
        write_and_fail(f"{s3}/large")
    assert storage.list_names(s3) == []
    assert uploads(s3) == []


def test_an_upload_that_cannot_be_completed_is_ended(
    faulty_s3, fault_proxy, impatient, small_parts, tmp_path
):
    (tmp_path / "large").write_bytes(os.urandom(6 << 20))
    never = Fault("503", methods={"POST"}, path="uploadId")
    with fault_proxy.failing(never), pytest.raises(StorageFailed, match="tried 3 times"):
        write_file(f"{faulty_s3}/large", tmp_path / "large")
    assert storage.list_names(faulty_s3) == []
    assert uploads(faulty_s3) == []


def test_an_upload_of_a_killed_writer_is_ended_later(s3, small_parts):
    client = boto()
    client.create_multipart_upload(Bucket=s3.removeprefix("s3://"), Key="out/part")
    assert len(uploads(s3)) == 1
    storage.remove_unfinished(f"{s3}/out")
    assert uploads(s3) == []


def test_a_stall_is_waited_out(faulty_s3, fault_proxy):
    with fault_proxy.failing(Fault("stall", seconds=0.5, times=1)):
        begun = time.monotonic()
        storage.write_atomic(f"{faulty_s3}/x", b"data")
    assert 0.5 <= time.monotonic() - begun < 5


def test_all_threads_share_one_client(s3):
    from headrace.backends import s3_client

    storage.write_atomic(f"{s3}/x", DATA)
    made = s3_client._filesystem.cache_info().misses
    threads = [threading.Thread(target=storage.read_bytes, args=(f"{s3}/x",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert s3_client._filesystem.cache_info().misses == made


FORKING = """
import os, sys
from headrace import storage

uri = sys.argv[1]
storage.write_atomic(uri, b"data")
child = os.fork()
assert storage.read_bytes(uri) == b"data"
if child:
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


def test_a_forked_child_makes_a_client_of_its_own(s3):
    done = subprocess.run(
        [sys.executable, "-c", FORKING, f"{s3}/x"], timeout=60, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_waits_grow_and_are_bounded():
    patience = healing.Patience(first_wait_seconds=0.1, longest_wait_seconds=2)
    for attempt, bound in [(0, 0.1), (1, 0.2), (4, 1.6), (9, 2)]:
        waits = [patience.wait_seconds(attempt) for _ in range(200)]
        assert 0 <= min(waits) < bound / 4
        assert bound / 2 < max(waits) <= bound


def write_and_fail(uri):
    with storage.written_whole(uri) as path:
        path.write_bytes(os.urandom(6 << 20))
        raise ZeroDivisionError


def write_file(uri, source):
    with storage.written_whole(uri) as path:
        path.write_bytes(source.read_bytes())


def boto():
    import boto3

    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"])


def uploads(uri: str) -> list:
    return boto().list_multipart_uploads(Bucket=uri.removeprefix("s3://")).get("Uploads", [])
