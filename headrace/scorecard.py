"""What an evaluation found, in the shapes that monitoring makes and the registry judges."""

from headrace.spec import Metric, Part


class SliceScore(Part):
    """The metrics of the rows that share one value of an entity key."""

    by: str
    value: str
    rows: int
    metrics: dict[str, float]


class Scorecard(Part):
    """The metrics of a holdout, overall and by slice."""

    rows: int
    metrics: dict[str, float]
    slices: tuple[SliceScore, ...] = ()


class Comparison(Part):
    """How a challenger did against the champion on the same rows."""

    metric: Metric
    rows: int
    champion: float
    challenger: float
    gain: float
    """Positive where the challenger is better, whichever way the metric points."""
    low: float
    high: float
    """The confidence interval around the gain."""
    confidence: float
