"""The health of feature views: how old their newest values are, how many are missing, what moved.

A view is judged by its freshness and by two profiles: of the current window, and of the reference
window before it. Nothing here reads a store; ``tasks/feature_health.py`` hands over what it found.
"""

import math
from typing import Literal

from pydantic import AwareDatetime

from headrace.spec import DriftPolicy, Part
from headrace.window import Window
from monitoring.drift import ColumnDrift, compare_profiles
from monitoring.limits import Limits, age_in_words
from monitoring.profile import Profile

Kind = Literal["stale", "behind", "not materialized", "nulls", "drift", "unreadable"]


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
    online: Literal["there", "loading", "missing", "unknown"] = "unknown"
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
    psi: float | None = None
    """How far it moved, in nats; None: there is nothing to compare, or no measure for its type."""


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


def judge_freshness(
    view: str, freshness: Freshness, limits: Limits, *, at: AwareDatetime
) -> tuple[Finding, ...]:
    """Say whether a view is too old, in its table or in the online store.

    Args:
        view: its name.
        freshness: how far it reaches.
        limits: how old it may be.
        at: the moment that counts as now.
    """
    found = [_stale(view, freshness, limits, at), _online(view, freshness, limits, at)]
    return tuple(finding for finding in found if finding is not None)


def judge_features(
    view: str,
    dtypes: dict[str, str],
    *,
    reference: Profile | None,
    current: Profile | None,
    limits: Limits,
) -> tuple[tuple[FeatureHealth, ...], tuple[Finding, ...]]:
    """Compare a view's features in two windows.

    Args:
        view: its name.
        dtypes: Feast's type of each feature. Numbers and text have values in the profiles; of the
            other types the profiles only count what is missing.
        reference: of the window before; None: it has no rows.
        current: on the bins of the reference; None: it has no rows.
        limits: how many values may go missing, and how far they may move.
    """
    moved: dict[str, ColumnDrift] = {}
    if reference is not None and current is not None:
        policy = DriftPolicy(psi=limits.max_psi or math.inf)
        moved = {c.name: c for c in compare_profiles(reference, current, policy).columns}
    features = tuple(_feature(n, dtype, moved.get(n), current) for n, dtype in dtypes.items())
    findings = [
        finding
        for feature in features
        for finding in (_nulls(view, feature, moved, limits), _drift(view, feature, moved, limits))
        if finding is not None
    ]
    return features, tuple(findings)


def has_values(dtype: str) -> bool:
    """Whether values of a type can be compared between windows: numbers and text."""
    return dtype in ("FLOAT", "DOUBLE", "INT32", "INT64", "BOOL", "STRING")


def _feature(
    name: str, dtype: str, moved: ColumnDrift | None, current: Profile | None
) -> FeatureHealth:
    column = current.columns[name] if current is not None else None
    return FeatureHealth(
        name=name,
        dtype=dtype,
        rows=column.rows if column else 0,
        null_rate=column.missing / column.rows if column and column.rows else None,
        reference_null_rate=moved.reference_missing if moved else None,
        psi=moved.psi if moved and has_values(dtype) else None,
    )


def _stale(view: str, freshness: Freshness, limits: Limits, at: AwareDatetime) -> Finding | None:
    newest, limit = freshness.newest_event, limits.max_age_seconds
    if newest is None:
        return Finding(kind="stale", view=view, sentence=f"{view} has no values at {at:%F %R} UTC.")
    age = (at - newest).total_seconds()
    if limit is None or age <= limit:
        return None
    return Finding(
        kind="stale",
        view=view,
        sentence=f"{view}: the newest value is {age_in_words(age)} old ({newest:%F %R} UTC), the "
        f"limit is {age_in_words(limit)}. See why its table gets no new rows.",
    )


def _online(view: str, freshness: Freshness, limits: Limits, at: AwareDatetime) -> Finding | None:
    if freshness.online in ("missing", "loading"):
        told = "is not in the online store" if freshness.online == "missing" else "is half written"
        return Finding(
            kind="not materialized",
            view=view,
            sentence=f"{view} {told}. Run: python -m flows.materialize",
        )
    until, known, limit = freshness.online_until, freshness.newest_known, limits.max_age_seconds
    if until is None or known is None or limit is None or known <= until:
        return None
    if (at - until).total_seconds() <= limit:
        return None
    return Finding(
        kind="behind",
        view=view,
        sentence=f"{view}: the online store reaches until {until:%F %R} UTC, its table until "
        f"{known:%F %R} UTC. Run: python -m flows.materialize",
    )


def _nulls(
    view: str, feature: FeatureHealth, moved: dict[str, ColumnDrift], limits: Limits
) -> Finding | None:
    compared, limit = moved.get(feature.name), limits.max_null_rise
    if compared is None or limit is None:
        return None
    before, after = compared.reference_missing, compared.current_missing
    if after - before <= max(limit, _noise(compared)):
        return None
    return Finding(
        kind="nulls",
        view=view,
        feature=feature.name,
        sentence=f"{view}: {after:.1%} of {feature.name} are missing, {before:.1%} before; the "
        f"limit is a rise by {limit:.1%}. See what fills its table.",
    )


def _noise(compared: ColumnDrift) -> float:
    # Four standard errors of a difference of shares: a window of ten rows proves little.
    n, m = compared.reference_rows, compared.current_rows
    share = (compared.reference_missing * n + compared.current_missing * m) / (n + m)
    return 4 * math.sqrt(share * (1 - share) * (1 / n + 1 / m))


def _drift(
    view: str, feature: FeatureHealth, moved: dict[str, ColumnDrift], limits: Limits
) -> Finding | None:
    compared = moved.get(feature.name)
    if compared is None or limits.max_psi is None or not compared.drifted:
        return None
    if feature.psi is None:  # of such a type only the missing values moved: _nulls tells it
        return None
    return Finding(
        kind="drift",
        view=view,
        feature=feature.name,
        sentence=f"{view}: {feature.name} has moved by PSI {compared.psi:.3f} nats, the limit is "
        f"{limits.max_psi:g}. See whether the world changed, or the pipeline.",
    )
