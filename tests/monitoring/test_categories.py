from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from monitoring.categories import add_categories, count_categories, learn_categories

texts = st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "", "é"]), st.text(max_size=2)))


@given(texts, texts)
def test_each_category_is_counted_and_the_rest_are_others(reference, current):
    known = learn_categories(pa.array(reference, pa.string()), limit=3)
    column = count_categories(pa.array(current, pa.string()), known)
    plain = Counter(current)
    assert column.counts[:-1].tolist() == [plain[name] for name in known]
    assert column.missing == plain[None]
    assert column.rows == len(current)


@given(texts, texts)
def test_the_sum_of_two_parts_is_the_whole(first, second):
    known = learn_categories(pa.array(first, pa.string()))
    whole = count_categories(pa.array(first + second, pa.string()), known)
    parts = [count_categories(pa.array(part, pa.string()), known) for part in (first, second)]
    added = add_categories(*parts)
    assert (added.counts.tolist(), added.missing) == (whole.counts.tolist(), whole.missing)


def test_the_most_frequent_categories_are_kept_ties_by_the_alphabet():
    values = pa.array(["z", "z", "b", "a", "c", None])
    assert learn_categories(values, limit=3) == ("z", "a", "b")
