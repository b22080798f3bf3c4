import pytest

from headrace.errors import NameRefused
from headrace.names import checked_name


@pytest.mark.parametrize("name", ["flight_delay", "a", "v1.2-rc", "0", "x" * 64])
def test_a_plain_name_is_returned_as_it_is(name):
    assert checked_name("model", name) == name


@pytest.mark.parametrize(
    "name", ["", "..", "a..b", "../etc", "a/b", "A", "-a", ".a", "a b", "ü", "x" * 65, "a\n", None]
)
def test_a_name_that_could_leave_its_folder_is_refused(name):
    with pytest.raises(NameRefused, match="model name"):
        checked_name("model", name)
