import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featurestore.flights.trailing import events

event = st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(-50, 50))
question = st.tuples(st.integers(0, 3), st.integers(0, 80))


def columns(rows, width):
    return np.array(rows, np.int64).reshape(-1, width).T


@given(st.lists(event, max_size=40), st.lists(question, min_size=1), st.integers(1, 100))
def test_a_window_holds_the_keys_rows_after_its_start_up_to_its_end(rows, asked, length):
    keys, minutes, values = columns(rows, 3)
    window = events(keys, minutes).window(*columns(asked, 2), length=length)
    inside = [[v for k, m, v in rows if k == key and at - length < m <= at] for key, at in asked]
    assert window.count.tolist() == [len(found) for found in inside]
    assert window.sum(values).tolist() == [sum(found) for found in inside]
    means = [np.mean(found) if found else np.nan for found in inside]
    np.testing.assert_allclose(window.mean(values), means)


def test_the_order_of_rows_does_not_matter():
    keys, minutes = np.array([1, 0, 1, 0]), np.array([5, 9, 5, 2])
    values, back = np.array([1, 2, 4, 8]), slice(None, None, -1)
    forwards = events(keys, minutes).window(keys, minutes, length=9).sum(values)
    backwards = events(keys[back], minutes[back]).window(keys, minutes, length=9).sum(values[back])
    assert forwards.tolist() == backwards.tolist()
