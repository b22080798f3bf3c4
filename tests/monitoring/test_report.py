import re

import numpy as np
import pyarrow as pa
import pytest

from headrace.spec import DriftPolicy
from monitoring.errors import ColumnsMissing, EmptyWindow, NothingToDraw
from monitoring.report import _sample, render_report


def test_a_report_shows_each_column_and_loads_nothing_from_a_network(window):
    reference, current = (pa.table(window(300, seed=seed)) for seed in (0, 1))
    gone = pa.nulls(300, pa.float64())
    html = render_report(
        reference.append_column("gone", gone),
        current.append_column("gone", gone),
        policy=DriftPolicy(drifted_share=0.37),
    )
    page = html.decode()
    assert all(name in page for name in reference.column_names)
    assert "Dataset drift detection threshold is 0.37" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?https?:", page)


def test_the_sample_is_the_same_for_a_seed_and_never_larger_than_asked():
    table = pa.table({"row": np.arange(1000)})
    sample = _sample(table, 100, 7)["row"].to_pylist()
    assert sample == _sample(table, 100, 7)["row"].to_pylist() == sorted(set(sample))
    assert len(sample) == 100
    assert _sample(table, 5000, 7) == table


def test_infinite_values_are_not_drawn():
    table = pa.table({"delay": [1.0, np.inf, -np.inf, None]})
    assert _sample(table, 10, 0)["delay"].to_pylist() == [1.0, None, None, None]


def test_windows_that_cannot_be_drawn_are_refused():
    table = pa.table({"delay": [1.0]})
    with pytest.raises(EmptyWindow):
        render_report(table, table.slice(1))
    with pytest.raises(ColumnsMissing, match="delay"):
        render_report(table, table.rename_columns(["other"]))
    with pytest.raises(NothingToDraw):
        render_report(table, pa.table({"delay": pa.nulls(1, pa.float64())}))
