import multiprocessing
import os
import threading
from itertools import pairwise

import numpy as np
import pytest

from serving.counters import Counters, CountersFull

NAME, TOLD = "things_total", "Things."


def totals(counters):
    """The sum of each series over all processes."""
    found = {}
    for series, values in counters.all_series():
        key = series.name, dict(series.labels).get("kind", "")
        found[key] = found.get(key, 0) + values
    return {key: value.tolist() for key, value in found.items()}


def count_and_die(folder, number):
    Counters(folder).counter(NAME, TOLD).add(number)
    os._exit(9)


def count_elsewhere(folder, number):
    counters = Counters(folder)
    counters.counter(NAME, TOLD).add(number)
    counters.gauge("waiting", "Waiting.").put(number)
    counters.close()


@pytest.fixture
def opened():
    """A factory of counters that are closed when the test is over."""
    made = []

    def open_counters(*folder):
        made.append(Counters(*folder))
        return made[-1]

    yield open_counters
    for counters in made:
        counters.close()


def elsewhere(folder, *numbers):
    """Count as processes would that ended in order."""
    for number in numbers:
        count_elsewhere(folder, number)


def test_one_process_counts_in_memory(opened):
    counters = opened()
    counters.counter(NAME, TOLD).add(2)
    counters.counter(NAME, TOLD).add(3)
    assert totals(counters) == {(NAME, ""): [5.0]}


def test_any_process_tells_the_sum_of_all(tmp_path, opened):
    first, second = opened(tmp_path), opened(tmp_path)
    first.counter(NAME, TOLD, kind="a").add(1)
    second.counter(NAME, TOLD, kind="a").add(10)
    second.counter(NAME, TOLD, kind="b").add(100)
    wanted = {(NAME, "a"): [11.0], (NAME, "b"): [100.0]}
    assert totals(first) == totals(second) == wanted


def test_what_a_process_counted_stays_when_it_ends_and_its_gauges_go(tmp_path, opened):
    own = opened(tmp_path)
    own.counter(NAME, TOLD).add(1)
    elsewhere(tmp_path, 10)
    assert totals(own) == {(NAME, ""): [11.0]}


def test_what_a_killed_process_counted_is_not_lost(tmp_path, opened):
    process = multiprocessing.get_context("spawn").Process(target=count_and_die, args=(tmp_path, 5))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    own = opened(tmp_path)
    own.counter(NAME, TOLD).add(1)
    assert totals(own)[NAME, ""] == [6.0]


def test_a_new_process_counts_on_in_the_file_of_one_that_has_ended(tmp_path, opened):
    elsewhere(tmp_path, 10, 20)
    assert len(list(tmp_path.iterdir())) == 1
    own = opened(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    own.counter(NAME, TOLD).add(1)
    assert totals(own)[NAME, ""] == [31.0]


def test_what_counts_by_itself_is_added_to_what_was_there(tmp_path, opened):
    elsewhere(tmp_path, 10)
    count = opened(tmp_path).counter(NAME, TOLD)
    count.reach(4)
    count.reach(7)
    assert totals(opened(tmp_path))[NAME, ""] == [17.0]


@pytest.mark.parametrize("numbers", [[], [0.2], [0.1, 0.5, 1.0, 3.0, 9.0, 0.5]])
def test_a_histogram_counts_as_numpy_does(numbers, opened):
    counters = opened()
    histogram = counters.histogram("seconds", "Seconds.", (0.5, 1.0, 5.0))
    histogram.add_all(numbers)
    bounds = [-np.inf, 0.5, 1.0, 5.0, np.inf]
    wanted = [sum(low < n <= high for n in numbers) for low, high in pairwise(bounds)]
    assert totals(counters)["seconds", ""] == [*wanted, pytest.approx(sum(numbers))]


def test_one_by_one_and_all_at_once_come_to_the_same(opened):
    numbers = np.random.default_rng(0).exponential(1.0, 200).tolist()
    one, other = opened(), opened()
    alone = one.histogram("seconds", "Seconds.", (0.5, 1.0, 5.0))
    for number in numbers:
        alone.add(number)
    other.histogram("seconds", "Seconds.", (0.5, 1.0, 5.0)).add_all(numbers)
    assert totals(one)["seconds", ""] == pytest.approx(totals(other)["seconds", ""])


def test_series_that_threads_begin_at_once_have_cells_of_their_own(opened):
    counters = opened()

    def begin(number):
        for place in range(50):
            counters.counter(NAME, TOLD, kind=f"{number}-{place}").add(1)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(totals(counters).values()) == [[1.0]] * 200


def test_a_label_with_endless_values_is_refused_by_name(opened):
    counters = opened()
    edges = tuple(float(n) for n in range(2_000))
    for number in range(16):
        counters.histogram("seconds", "Seconds.", edges, caller=str(number))
    with pytest.raises(CountersFull, match="seconds"):
        counters.histogram("seconds", "Seconds.", edges, caller="16")
