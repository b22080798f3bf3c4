"""``FeatureReport``: what a check of the feature views found, as it is kept and shown."""

from typing import Literal

from pydantic import AwareDatetime

from headrace.spec import Part
from headrace.window import Window
from monitoring.limits import Limits

Kind = Literal["stale", "behind", "not materialized", "nulls", "drift", "unreadable"]

OnlineState = Literal["there", "loading", "missing", "unknown"]


class Finding(Part):
    """Something that a person should look at."""

    kind: Kind
    view: str
    feature: str | None = None
    sentence: str
    """What was found, with the numbers, and what to do."""


class Freshness(Part):
    """How far a view reaches in both stores; None: it has no rows, or nobody could tell."""

    newest_event: AwareDatetime | None = None
    """The latest moment at which a value of the offline table was true."""
    newest_known: AwareDatetime | None = None
    """The latest moment at which one was written."""
    online: OnlineState = "unknown"
    """Whether the online store holds the view; ``unknown`` for stores without Headrace's record."""
    online_until: AwareDatetime | None = None
    """The watermark: everything known by then is in the online store."""


class FeatureHealth(Part):
    """One feature in the current and in the reference window."""

    name: str
    dtype: str
    rows: int
    null_rate: float | None
    """Share of missing values, 0 to 1; None: there are no rows."""
    reference_null_rate: float | None = None
    """Of all reference windows together."""
    highest_null_rate: float | None = None
    """Of any one of them."""
    psi: float | None = None
    """How far it moved, in nats; None: there is nothing to compare, or no measure for its type."""
    usual_psi: float | None = None
    """How far the furthest of the reference windows lies from the others; None: there is one."""


class ViewHealth(Part):
    """One view."""

    view: str
    freshness: Freshness
    age_seconds: float | None
    """Of the newest value offline."""
    limits: Limits
    features: tuple[FeatureHealth, ...] = ()


class FeatureReport(Part):
    """The health of every view at one moment."""

    at: AwareDatetime
    current: Window
    reference: Window
    views: tuple[ViewHealth, ...]
    findings: tuple[Finding, ...]

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if not self.findings:
            return f"All {len(self.views)} feature views are healthy."
        sick = {finding.view for finding in self.findings}
        return f"{len(self.findings)} findings in {len(sick)} of {len(self.views)} feature views."
