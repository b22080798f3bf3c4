import pytest

from monitoring.errors import LimitRefused
from monitoring.limits import Limits, limits_of


def test_the_ttl_is_the_limit_of_the_age_unless_a_tag_says_otherwise():
    assert limits_of("v", {}, ttl_seconds=60.0) == Limits(max_age_seconds=60.0)
    assert limits_of("v", {"max_age": "1.5d"}, ttl_seconds=60.0).max_age_seconds == 129_600
    assert limits_of("v", {"max_age": "off"}, ttl_seconds=60.0).max_age_seconds is None
    tags = {"max_null_rise": "0.2", "max_psi": "off", "domain": "flights"}
    found = limits_of("v", tags, ttl_seconds=None)
    assert (found.max_null_rise, found.max_psi) == (0.2, None)


@pytest.mark.parametrize(
    ("tag", "value"),
    [("max_age", "6 hours"), ("max_age", "-3h"), ("max_psi", "high"), ("max_null_rise", "nan")],
)
def test_a_tag_that_is_no_limit_is_named(tag, value):
    with pytest.raises(LimitRefused, match=f"'v' has the tag {tag} = '{value}': write"):
        limits_of("v", {tag: value}, ttl_seconds=None)
