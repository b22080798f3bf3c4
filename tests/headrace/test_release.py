import contextlib
import threading
import uuid

import pytest

from headrace import release
from headrace.errors import NameRefused, ReleaseConflict, UnknownName

A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture(params=["folder", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


def move(root, champion, expected):
    return release.move_release(
        root, "delays", champion=champion, expected=expected, by="someone", reason="because"
    )


def test_an_endpoint_that_was_never_released_has_none(root):
    assert release.current_release(root, "delays") is None
    with pytest.raises(UnknownName, match="no released endpoint is named 'delays'"):
        release.require_release(root, "delays")


def test_moves_are_numbered_and_kept(root):
    move(root, A, 0)
    move(root, B, 1)
    assert release.require_release(root, "delays").champion == B
    assert [(r.revision, r.champion) for r in release.history(root, "delays")] == [(1, A), (2, B)]
    assert release.history(root, "delays")[0].reason == "because"


def test_a_move_from_an_old_revision_is_refused(root):
    move(root, A, 0)
    move(root, B, 1)
    with pytest.raises(ReleaseConflict, match="no longer at revision 1"):
        move(root, C, 1)
    with pytest.raises(ReleaseConflict):
        move(root, C, 7)
    assert release.require_release(root, "delays").champion == B


def test_a_watcher_sees_only_what_is_newer(root):
    move(root, A, 0)
    assert release.newer_release(root, "delays", 1) is None
    move(root, B, 1)
    move(root, C, 2)
    assert release.newer_release(root, "delays", 1).champion == C


def test_of_many_movers_exactly_one_wins_each_revision(tmp_path):
    root, barrier, won = str(tmp_path), threading.Barrier(8), []

    def compete(digest: str) -> None:
        for expected in range(5):
            barrier.wait()
            with contextlib.suppress(ReleaseConflict):
                won.append(move(root, digest, expected))

    threads = [threading.Thread(target=compete, args=(f"{n}" * 64,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.revision for r in won) == [1, 2, 3, 4, 5]
    assert sorted(won, key=lambda r: r.revision) == release.history(root, "delays")


def test_an_endpoint_name_cannot_leave_its_folder(tmp_path):
    with pytest.raises(NameRefused):
        release.current_release(str(tmp_path), "../delays")
