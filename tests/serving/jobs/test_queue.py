import heapq
import random
from collections import defaultdict

import pytest

from serving.jobs.errors import JobEnded, JobNotFound, KeyReused, QueueFull
from serving.jobs.job import PATIENCE_SECONDS, Priority, State

MODELS = ["flight_delay"]


def test_a_job_goes_from_queued_over_running_to_done(queue, submit, clock):
    submitted = submit()
    assert (submitted.state, queue.place(submitted)) == (State.QUEUED, 1)
    job = queue.begin(queue.claim(MODELS), digest="d" * 64, revision=3)
    for number in range(3):
        assert queue.store.request(job, number) == f"a{number}".encode()
        job = queue.keep(job, answer=b"answer%d" % number, predicted=9, refused=1)
    job = queue.end(job, State.DONE)
    assert (job.predicted, job.refused, job.revision) == (27, 3, 3)
    assert list(queue.store.answers(queue.get(job.id))) == [b"answer0", b"answer1", b"answer2"]
    assert queue.claim(MODELS) is None


def test_urgent_jobs_go_first_until_others_have_waited_long_enough(queue, submit, clock):
    low = submit("low", priority=Priority.LOW)
    normal = submit("normal")
    clock.sleep(59)
    urgent = submit("urgent", priority=Priority.URGENT)
    clock.sleep(2)
    late = submit("late", priority=Priority.URGENT)
    assert [queue.place(job) for job in (urgent, normal, late, low)] == [1, 2, 3, 4]
    assert [queue.claim(MODELS).id for _ in range(4)] == [urgent.id, normal.id, late.id, low.id]


def test_only_jobs_of_a_better_rank_overtake_one_that_runs(queue, submit):
    submit("normal")
    running = queue.claim(MODELS)
    low = submit("low", priority=Priority.LOW)
    assert queue.claim(MODELS, before=running.rank) is None
    urgent = submit("urgent", priority=Priority.URGENT)
    assert queue.claim(MODELS, before=running.rank).id == urgent.id
    assert queue.claim(["another"]) is None
    assert queue.claim(MODELS).id == low.id


def test_late_jobs_are_dropped_before_they_are_computed(queue, submit, clock):
    late, good = submit("late", deadline_seconds=5), submit("good")
    clock.sleep(6)
    assert queue.claim(MODELS).id == good.id
    expired = queue.get(late.id)
    assert (expired.state, expired.reason) == (
        State.EXPIRED,
        "0 of 3 parts were done at its deadline",
    )


def test_a_late_job_is_expired_to_those_who_ask_and_makes_room(queue, submit, clock):
    jobs = [submit(str(number), deadline_seconds=5) for number in range(5)]
    with pytest.raises(QueueFull):
        submit("more")
    clock.sleep(6)
    assert queue.get(jobs[0].id).state is State.EXPIRED
    queue.sweep(MODELS)
    assert submit("more").state is State.QUEUED


def test_a_dead_process_job_is_taken_over_where_it_stopped(queue, submit, clock):
    submit()
    dead = queue.begin(queue.claim(MODELS), digest="d", revision=1)
    dead = queue.keep(dead, answer=b"zero", predicted=10, refused=0)
    assert queue.claim(MODELS) is None
    clock.sleep(10.5)
    taken = queue.begin(queue.claim(MODELS), digest="d", revision=1)
    assert (taken.id, taken.parts_done, taken.predicted) == (dead.id, 1, 10)
    assert queue.keep(dead, answer=b"late", predicted=10, refused=0) is None
    assert queue.renew(dead) is None
    assert queue.end(dead, State.DONE) is None
    taken = queue.keep(taken, answer=b"one", predicted=10, refused=0)
    assert list(queue.store.answers(taken)) == [b"zero", b"one"]


def test_a_lease_that_is_renewed_does_not_end(queue, submit, clock):
    submit()
    job = queue.claim(MODELS)
    for _ in range(5):
        clock.sleep(9)
        job = queue.renew(job)
        assert queue.claim(MODELS) is None


def test_another_bundle_begins_a_job_again(queue, submit, clock):
    submit()
    job = queue.begin(queue.claim(MODELS), digest="old", revision=1)
    job = queue.keep(job, answer=b"of the old one", predicted=9, refused=1)
    clock.sleep(11)
    job = queue.begin(queue.claim(MODELS), digest="new", revision=2)
    assert (job.parts_done, job.predicted, job.refused, job.digest) == (0, 0, 0, "new")
    job = queue.keep(job, answer=b"of the new one", predicted=10, refused=0)
    assert list(queue.store.answers(job)) == [b"of the new one"]


def test_a_job_that_is_put_back_keeps_what_is_done_of_it(queue, submit):
    submit()
    job = queue.begin(queue.claim(MODELS), digest="d", revision=1)
    queue.put_back(queue.keep(job, answer=b"zero", predicted=10, refused=0))
    again = queue.begin(queue.claim(MODELS), digest="d", revision=1)
    assert (again.parts_done, again.attempts) == (1, 1)


def test_a_job_that_ends_every_server_is_given_up(queue, submit, clock):
    poison = submit()
    for _ in range(3):
        assert queue.claim(MODELS).id == poison.id
        clock.sleep(11)
    assert queue.claim(MODELS) is None
    failed = queue.get(poison.id)
    assert (failed.state, failed.reason) == (
        State.FAILED,
        "3 servers ended while they computed part 0",
    )


def test_a_change_whose_confirmation_was_lost_is_ours_when_it_is_tried_again(queue, submit):
    submit()
    job = queue.claim(MODELS)
    kept = queue.keep(job, answer=b"zero", predicted=10, refused=0)
    assert queue.keep(job, answer=b"zero", predicted=10, refused=0) == kept


def test_a_cancelled_job_is_let_go_of_at_its_next_part(queue, submit):
    waiting, running = submit("a"), submit("b")
    assert queue.cancel(waiting.id).state is State.CANCELLED
    job = queue.claim(MODELS)
    assert job.id == running.id
    queue.cancel(running.id)
    assert queue.keep(job, answer=b"late", predicted=1, refused=0) is None
    assert queue.cancel(running.id).state is State.CANCELLED  # twice is once


def test_what_has_ended_cannot_be_cancelled(queue, submit):
    submit()
    done = queue.end(queue.claim(MODELS), State.DONE)
    with pytest.raises(JobEnded, match=f"job {done.id} is done"):
        queue.cancel(done.id)


def test_the_same_key_gives_the_same_job_and_refuses_other_rows(queue, submit):
    first = submit("a", idempotency_key="k")
    assert submit("a", idempotency_key="k") == first
    with pytest.raises(KeyReused, match=f"'k' belongs to job {first.id}"):
        submit("b", idempotency_key="k")
    assert len(queue.store.page(9)) == 1


def test_a_job_is_forgotten_when_its_result_was_kept_long_enough(queue, submit, clock):
    job = queue.end(queue.claim(MODELS) if submit() else None, State.DONE)
    clock.sleep(99)
    queue.sweep(MODELS)
    assert queue.get(job.id).state is State.DONE
    clock.sleep(2)
    queue.sweep(MODELS)
    with pytest.raises(JobNotFound, match="forgotten 100 s after it ended"):
        queue.get(job.id)


class ByClassAlone:
    """The negative control: urgent before normal before low, however long they wait."""

    def __init__(self):
        self.heap = []

    def submit(self, at, priority):
        heapq.heappush(self.heap, (list(Priority).index(priority), at, priority))

    def take(self):
        _, at, priority = heapq.heappop(self.heap)
        return at, priority


class ByRank(ByClassAlone):
    """Jobs in the order of their ranks, as the stores keep them."""

    def submit(self, at, priority):
        heapq.heappush(self.heap, (at + PATIENCE_SECONDS[priority], at, priority))


def simulated(order, *, seed, hours=6, load=1.1):
    """The longest wait of each class, in seconds, where urgent work alone is ``load`` of capacity.

    One job takes 10 s; a low and a normal one come once in 20 minutes. What still waits at the end
    has waited until then.
    """
    chance, now, busy_until = random.Random(seed), 0.0, 0.0
    arrivals = [(t, Priority.URGENT) for t in _times(chance, 10 / load, hours)]
    for priority in (Priority.NORMAL, Priority.LOW):
        arrivals += [(t, priority) for t in _times(chance, 1200, hours)]
    waits = defaultdict(float)
    for at, priority in sorted(arrivals):
        while order.heap and busy_until <= at:
            now = busy_until
            submitted, kind = order.take()
            waits[kind] = max(waits[kind], now - submitted)
            busy_until = now + 10
        order.submit(at, priority)
        busy_until = max(busy_until, at)
    for _, submitted, kind in order.heap:
        waits[kind] = max(waits[kind], now - submitted)
    return waits


def _times(chance, mean, hours):
    at, times = 0.0, []
    while (at := at + chance.expovariate(1 / mean)) < hours * 3600:
        times.append(at)
    return times


@pytest.mark.parametrize("seed", range(5))
def test_no_class_starves_under_more_urgent_work_than_can_be_done(seed):
    aged, strict = simulated(ByRank(), seed=seed), simulated(ByClassAlone(), seed=seed)
    # A low job waits as an urgent one does, and its patience longer (at this load).
    assert aged[Priority.LOW] < aged[Priority.URGENT] + 1.2 * PATIENCE_SECONDS[Priority.LOW]
    assert aged[Priority.NORMAL] < aged[Priority.URGENT] + 1.2 * PATIENCE_SECONDS[Priority.NORMAL]
    assert strict[Priority.LOW] > 3 * max(3600, aged[Priority.LOW])


def test_at_a_load_that_can_be_done_urgent_work_hardly_waits():
    waits = simulated(ByRank(), seed=1, load=0.6)
    assert waits[Priority.URGENT] < 300
