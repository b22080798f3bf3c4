"""Both online stores, by one contract: the latest row of each entity wins, whoever writes when."""

import contextlib
import random
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.errors import ViewReplaced
from featurestore.stores.open_store import open_store
from featurestore.stores.stored import Progress, StoredView, stored_view
from headrace.errors import SchemaMismatch
from headrace.plan import FeatureRead

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START_US = int((datetime(2013, 1, 1, tzinfo=UTC) - EPOCH) / timedelta(microseconds=1))
ONE_READ_FOR_ALL = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def store(any_store):
    with contextlib.closing(open_store(any_store, "tiny")) as opened:
        yield opened


@pytest.fixture
def view(read):
    return StoredView(view=stored_view(read()))


def test_an_empty_store_has_no_views(store):
    assert store.views() == {}


def test_a_record_is_read_back_as_it_was_written(store, view):
    progress = Progress(run="r", until_us=5, entities=3, keys_written=2)
    full = view.model_copy(update={"until_us": -7, "progress": progress, "replaced": ("y",)})
    assert store.put_view(full)
    assert store.views() == {"hourly": full}


@pytest.mark.parametrize(
    ("there", "new", "written"),
    [
        ({"until_us": 5}, {"until_us": 6}, True),
        ({"until_us": 5}, {"until_us": 5, "rows_read": 3}, True),
        ({"until_us": 5}, {"until_us": 4}, False),
        ({"until_us": 5}, {"until_us": None}, False),
        ({"until_us": None}, {"until_us": 0}, True),
        ({"until_us": 5}, {"until_us": 4, "generation": 2}, True),
        ({"until_us": 5, "generation": 2}, {"until_us": 6}, False),
    ],
)
def test_a_record_moves_forward_only(store, view, there, new, written):
    assert store.put_view(view.model_copy(update=there))
    assert store.put_view(view.model_copy(update=new)) is written
    left = view.model_copy(update=new if written else there)
    assert store.views()["hourly"] == left


def test_a_generation_belongs_to_the_definition_that_began_it(store, view, read, values):
    other = read(features=(FeatureRead(name="x", dtype="FLOAT"),))
    assert store.put_view(view)
    assert not store.put_view(StoredView(view=stored_view(other), until_us=9))
    with pytest.raises(ViewReplaced, match="hourly"):
        store.write(StoredView(view=stored_view(other)), values(("JFK", 0, 0, 1.0)))


def test_a_row_of_a_view_that_the_store_does_not_know_is_refused(store, view, values):
    with pytest.raises(ViewReplaced):
        store.write(view, values(("JFK", 0, 0, 1.0)))


def test_a_row_without_a_key_is_refused_and_nothing_is_written(
    store, view, values, held, any_store
):
    store.put_view(view)
    with pytest.raises(SchemaMismatch, match="key origin is null in 1 rows"):
        store.write(view, values(("JFK", 0, 0, 1.0), (None, 0, 0, 1.0)))
    assert held(any_store, view.view) == {}


def test_no_rows_change_nothing(store, view, values):
    store.put_view(view)
    assert store.write(view, values()) == 0


def test_the_record_after_the_rows_knows_how_many_changed(store, view, values):
    store.put_view(view)
    rows = values(("JFK", 0, 0, 1.0), ("LGA", 0, 0, 1.0))
    store.write(view, rows, then=lambda changed: view.model_copy(update={"keys_written": changed}))
    assert store.views()["hourly"].keys_written == 2


def oracle(batches):
    """Row by row: what a child would leave standing."""
    held = {}
    for batch in batches:
        for key, event, created, x in batch:
            if key not in held or (event, created) >= held[key][:2]:
                held[key] = (event, created, x)
    return held


# Halves of seconds: Feast's table has whole ones.
moments = st.integers(-3, 3).map(lambda n: n / 120)
rows = st.tuples(st.sampled_from("abc"), moments, moments, st.none() | st.floats(width=32))
batches = st.lists(st.lists(rows, max_size=3, unique_by=lambda row: row[0]), max_size=6)
_names = iter(range(10**9))


@ONE_READ_FOR_ALL
@given(batches=batches)
def test_whatever_the_order_the_latest_row_stands(any_store, view, values, held, batches):
    own = StoredView(view=view.view.model_copy(update={"view": f"hourly{next(_names)}"}))
    with contextlib.closing(open_store(any_store, "tiny")) as store:
        store.put_view(own)
        for batch in batches:
            store.write(own, values(*batch))
    found = held(any_store, own.view)
    assert repr({name(key): minutes(row) for key, row in sorted(found.items())}) == repr(
        {key: float_of(row) for key, row in sorted(oracle(batches).items())}
    )


def name(key):
    return key[-1:].decode()


def minutes(row):
    return ((row[0] - START_US) / 60e6, (row[1] - START_US) / 60e6, row[2])


def float_of(row):
    return (*row[:2], float("nan") if row[2] is None else row[2])


def test_writers_at_once_leave_what_the_oracle_leaves(any_store, view, values, held):
    chance = random.Random(7)
    every = [
        [
            [(f"{e:02}", chance.randint(0, 9), chance.randint(0, 9), float(e)) for e in some]
            for some in (chance.sample(range(30), 12) for _ in range(6))
        ]
        for _ in range(3)
    ]
    with contextlib.closing(open_store(any_store, "tiny")) as store:
        store.put_view(view)

    def write(batches):
        with contextlib.closing(open_store(any_store, "tiny")) as store:
            for batch in batches:
                store.write(view, values(*batch))

    threads = [threading.Thread(target=write, args=(batches,)) for batches in every]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = held(any_store, view.view)
    wanted = oracle(batch for batches in every for batch in batches)
    assert {k[-2:].decode(): minutes(row) for k, row in found.items()} == wanted
