"""The contract that every job store keeps."""

import threading

import pytest

from serving.jobs.errors import JobStoreFailed, QueueFull
from serving.jobs.job import Job, Priority, Shelf, State, new_id
from serving.jobs.store import open_store

PARTS = [b"one", b"two", bytes(range(256))]


@pytest.fixture
def job(clock):
    """A factory of jobs, each submitted a second after the one before."""

    def build(**changes):
        clock.sleep(1)
        told = {
            "id": new_id(clock()),
            "model": "m",
            "priority": Priority.NORMAL,
            "rows": 3,
            "part_rows": 1,
        }
        told |= {"submitted_at": clock(), "parts": 3, "request_id": "r", "body_sha256": "0"}
        return Job(**told | changes)

    return build


def ids(jobs):
    return [job.id for job in jobs]


def test_a_job_comes_back_as_it_was_kept_with_its_parts(job_store, job):
    kept = job_store.add(job(deadline=1.5, idempotency_key="ключ:1"), PARTS, most=9)
    assert job_store.get(kept.id) == kept
    assert [job_store.request(kept, number) for number in range(3)] == PARTS


def test_what_is_not_there_is_none_or_named(job_store, job):
    assert job_store.get("0" * 32) is None
    kept = job_store.add(job(), PARTS, most=9)
    with pytest.raises(JobStoreFailed, match=f"job {kept.id} has no part 7"):
        job_store.request(kept, 7)


def test_a_change_of_an_old_version_is_refused_with_its_answer(job_store, job):
    old = job_store.add(job(), PARTS, most=9)
    new = old.with_(state=State.RUNNING, parts_done=1)
    assert job_store.replace(old, new, answer=b"first")
    assert not job_store.replace(old, old.with_(parts_done=1), answer=b"late")
    assert job_store.get(old.id) == new
    assert list(job_store.answers(new)) == [b"first"]


def test_an_answer_that_is_missing_is_an_error_and_not_a_shorter_result(job_store, job):
    kept = job_store.add(job(), PARTS, most=9)
    with pytest.raises(JobStoreFailed, match="no answer of part 0"):
        list(job_store.answers(kept.with_(parts_done=2)))


def test_shelves_are_ordered_by_score_and_apart_by_model(job_store, job):
    low, normal, urgent = (job(priority=p) for p in ("low", "normal", "urgent"))
    other = job(model="other")
    for each in (low, normal, urgent, other):
        job_store.add(each, PARTS, most=9)
    assert ids(job_store.first(Shelf.QUEUED, "m", 9)) == ids([urgent, normal, low])
    assert ids(job_store.first(Shelf.QUEUED, "m", 1)) == [urgent.id]
    assert job_store.count(Shelf.QUEUED, "m") == 3
    assert job_store.count(Shelf.QUEUED, "m", below=low.rank) == 2
    job_store.replace(urgent, urgent.with_(state=State.RUNNING, lease_until=5.25))
    assert ids(job_store.first(Shelf.QUEUED, "m", 9)) == ids([normal, low])
    assert ids(job_store.first(Shelf.RUNNING, "m", 9)) == [urgent.id]


def test_pages_go_from_the_newest_to_the_oldest_without_gaps(job_store, job):
    kept = [job_store.add(job(), PARTS, most=9) for _ in range(5)]
    first = job_store.page(2)
    second = job_store.page(2, before=first[-1].id)
    third = job_store.page(2, before=second[-1].id)
    assert ids([*first, *second, *third]) == ids(reversed(kept))


def test_a_key_belongs_to_one_job_of_a_model_until_it_is_removed(job_store, job):
    first = job_store.add(job(idempotency_key="k"), PARTS, most=9)
    assert job_store.add(job(idempotency_key="k"), [b"x"], most=0) == first
    assert job_store.add(job(idempotency_key="k", model="other"), PARTS, most=9).model == "other"
    job_store.remove(first)
    assert job_store.add(job(idempotency_key="k"), PARTS, most=9).id != first.id


def test_a_full_queue_refuses_and_says_how_many_wait(job_store, job):
    for _ in range(2):
        job_store.add(job(), PARTS, most=2)
    refused = job()
    with pytest.raises(QueueFull, match="2 jobs of 'm' are queued"):
        job_store.add(refused, PARTS, most=2)
    assert job_store.get(refused.id) is None
    job_store.add(job(model="other"), PARTS, most=2)


def test_nothing_is_left_of_a_removed_job(job_store, job):
    kept = job_store.add(job(), PARTS, most=9)
    job_store.remove(kept)
    assert job_store.get(kept.id) is None
    assert job_store.page(9) == job_store.first(Shelf.QUEUED, "m", 9) == []
    with pytest.raises(JobStoreFailed, match="no part 0"):
        job_store.request(kept, 0)


def test_of_many_who_take_one_job_at_once_one_gets_it(jobs_uri, job_store, job):
    kept = [job_store.add(job(), PARTS, most=99) for _ in range(20)]
    taken, start = [], threading.Barrier(4)

    def take(name):
        store = open_store(jobs_uri)
        start.wait()
        taken.extend(
            (each.id, name)
            for each in kept
            if store.replace(each, each.with_(state=State.RUNNING, reason=name))
        )
        store.close()

    takers = [threading.Thread(target=take, args=(str(number),)) for number in range(4)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    assert sorted(job_id for job_id, _ in taken) == sorted(ids(kept))
    assert {(j.id, j.reason) for j in job_store.first(Shelf.RUNNING, "m", 99)} == set(taken)


def test_jobs_are_there_after_the_store_was_closed(jobs_uri, job_store, job):
    kept = job_store.add(job(), PARTS, most=9)
    again = open_store(jobs_uri)
    assert again.get(kept.id) == kept
    again.close()


def test_a_place_that_cannot_be_opened_is_named_with_the_setting(tmp_path):
    (tmp_path / "file").write_text("")
    for uri in (str(tmp_path / "file" / "jobs.db"), "redis://127.0.0.1:1/0"):
        with pytest.raises(JobStoreFailed, match="HEADRACE_SERVER_JOBS_STORE"):
            open_store(uri)
