import pyarrow as pa
import pytest

from featurestore.join.keys import EntityNumbers, RowKeys
from featurestore.join.shares import EntityShare
from headrace.errors import SchemaMismatch
from headrace.plan import JoinKey

KEYS = (JoinKey(name="a"), JoinKey(name="b", dtype="INT64"), JoinKey(name="c", dtype="INT32"))


@pytest.fixture
def three(read):
    return read(keys=KEYS)


def table(*rows):
    columns = zip(*rows, strict=True)
    kinds = (pa.string(), pa.int64(), pa.int32())
    return pa.table({k: pa.array(c, t) for k, c, t in zip("abc", columns, kinds, strict=True)})


def test_rows_and_values_of_one_entity_have_one_number(three):
    values = table(("x", 1, 1), ("y", 1, 2), ("x", 1, 1), (None, 1, 1), ("x", 2, 1))
    numbers, entity = EntityNumbers.of(values, three)
    assert entity.tolist() == [0, 1, 0, -1, 2]
    assert numbers.entities == 3
    rows = table(("x", 2, 1), ("y", 1, 2), ("y", 1, 1), ("z", 1, 1), ("x", None, 1))
    assert numbers.of_rows(RowKeys(rows)).tolist() == [2, 1, -1, -1, -1]
    assert RowKeys(rows).are_null(KEYS).tolist() == [False] * 4 + [True]


def test_integers_that_do_not_fit_the_key_are_refused(three):
    wide = pa.table({"a": ["x"], "b": [1], "c": pa.array([1 << 40])})
    with pytest.raises(SchemaMismatch, match="key c does not fit int32"):
        EntityNumbers.of(wide, three)


def test_every_row_is_in_one_share_and_so_are_the_values_of_its_entity(three):
    rows = table(*[(str(n % 7), n % 5, n % 3) for n in range(300)], (None, 1, 1))
    narrow = rows.set_column(1, "b", rows["b"].cast(pa.int32()))
    parts = [EntityShare(number=n, of=4) for n in range(4)]
    places = [part.places(RowKeys(rows), KEYS).tolist() for part in parts]
    assert sorted(n for place in places for n in place) == list(range(301))
    assert all(len(place) > 30 for place in places)
    assert places == [part.places(RowKeys(narrow), KEYS).tolist() for part in parts]


def test_a_share_beyond_the_last_is_refused():
    with pytest.raises(ValueError, match="number must be below 2, not 2"):
        EntityShare(number=2, of=2)
