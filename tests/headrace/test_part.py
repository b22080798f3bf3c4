from functools import cached_property

from headrace.part import Part


class Sum(Part):
    left: int
    right: int

    @cached_property
    def total(self):
        return self.left + self.right


def test_what_was_worked_out_does_not_outlive_the_fields_it_came_from():
    first = Sum(left=1, right=2)
    assert first.total == 3
    assert first.model_copy(update={"right": 5}).total == 6
    assert first.model_copy() == first
    assert first.total == 3
