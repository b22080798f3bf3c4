import numpy as np
import pytest

from serving.runtimes import blocks

ROWS = np.random.default_rng(3).normal(size=(64, 7)).astype(np.float32)


def exact(rows):
    """Adds up in one order, whatever the number of rows."""
    total = np.zeros(len(rows), np.float32)
    for column in rows.T:
        total += column
    return total


def as_a_library_does(rows):
    """Adds up a single row from the other end."""
    return exact(rows[:, ::-1]) if len(rows) == 1 else exact(rows)


@pytest.mark.parametrize("sizes", [(256,), (256, 32), (256, 32, 4), (256, 4), (256, 32, 4, 1)])
def test_blocks_cover_every_row_once_and_are_of_no_other_size(sizes):
    for rows in range(700):
        cut = list(blocks.cut(rows, sizes))
        assert {block.size for block in cut} <= set(sizes)
        assert all(0 < block.rows <= block.size for block in cut)
        covered = [row for b in cut for row in range(b.begin, b.begin + b.rows)]
        assert covered == list(range(rows))


def test_filling_up_changes_no_answer():
    (block,) = blocks.cut(5, (256,))
    assert blocks.compute(exact, ROWS[:5], block).tobytes() == exact(ROWS[:5]).tobytes()


def test_a_size_that_adds_up_in_another_order_is_not_used():
    trial = blocks.trial_rows(ROWS)
    assert exact(trial).tobytes() != exact(trial[:, ::-1]).tobytes()
    assert blocks.agreeing_sizes(exact, trial) == (256, 32, 4, 1)
    assert blocks.agreeing_sizes(as_a_library_does, trial) == (256, 32, 4)


def test_a_model_whose_rows_look_at_each_other_is_found_out():
    trial = blocks.trial_rows(ROWS)
    assert not blocks.depends_on_neighbours(exact, trial)
    assert blocks.depends_on_neighbours(lambda rows: exact(rows - rows.mean(axis=0)), trial)
    assert blocks.depends_on_neighbours(lambda rows: exact(rows) + np.arange(len(rows)), trial)


def test_trial_rows_are_the_same_each_time_and_of_the_values_of_each_column():
    trial = blocks.trial_rows(ROWS)
    assert trial.tobytes() == blocks.trial_rows(ROWS).tobytes()
    assert all(set(trial[:, c]) <= set(ROWS[:, c]) for c in range(ROWS.shape[1]))
