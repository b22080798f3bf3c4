"""What becomes of a row that has no value of a feature: the same in training, batch and online.

A model's spec says it by view, or by feature (``<view>.<feature>``); where nothing is said, the
model sees that the value is missing (NaN).

    missing={"weather": "last_known", "planes.seats": 150.0, "routes": "error"}
"""

from typing import Literal

from headrace.part import Part

Policy = Literal["last_known", "error"] | float
"""``last_known``: a view's value is used past its TTL, and labelled so. ``error``: the row is
refused online, rejected in a batch and left out in training. A number stands for a missing one."""


class MissingRule(Part):
    """A default, or an error, as a feature plan keeps it; ``last_known`` is part of the read."""

    view: str
    feature: str | None = None
    """None: of the view as a whole, that is if no value of it may be used."""
    default: float | None = None
    """What stands for a missing value; None: a row without one is refused."""

    @property
    def name(self) -> str:
        """As the spec names it."""
        return self.view if self.feature is None else f"{self.view}.{self.feature}"
