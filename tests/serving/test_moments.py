import pytest

from serving import moments
from serving.moments import Moments


def test_a_column_holds_moments_in_utc():
    texts = ["2013-08-01T12:00:00Z", "2013-08-01T08:00:00.25-04:00", "2013-08-01T12:00:00Z"]
    column = Moments().column(texts)
    assert column.dtype == "datetime64[us]"
    assert column.astype(str).tolist() == [
        "2013-08-01T12:00:00.000000",
        "2013-08-01T12:00:00.250000",
        "2013-08-01T12:00:00.000000",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("noon", "Invalid isoformat"),
        ("", "Invalid isoformat"),
        ("2013-08-01T12:00:00", "has no zone"),
        ("0001-01-01T00:00:00+14:00", "outside the years"),
    ],
)
def test_what_is_no_moment_is_refused_however_often_it_is_sent(text, told):
    column = Moments()
    for _ in range(2):
        with pytest.raises(ValueError, match=told):
            column.column(["2013-08-01T12:00:00Z", text])


def test_few_texts_are_kept_and_no_long_ones(monkeypatch):
    monkeypatch.setattr(moments, "_MOST_KEPT", 3)
    column = Moments()
    column.column([f"2013-08-01T12:00:{second:02d}Z" for second in range(60)])
    column.column(["2013-08-01T12:00:00." + "5" * 1000 + "Z"])
    assert len(column._kept) <= 3
    assert max(map(len, column._kept)) <= 40
