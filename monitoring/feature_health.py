"""The health of feature views: how old their newest values are, how many are missing, what moved.

A view is judged by its freshness and by profiles: of the current window, and of the windows of the
same length before it, which are the reference. Those also show how much a feature moves when
nothing is wrong: one week of weather is never like the month before, and only a week that lies
further out than any of the past ones is worth a person's time. Nothing here reads a store;
``tasks/feature_health.py`` hands over what it found.
"""

import functools
import math
from collections.abc import Mapping, Sequence

from pydantic import AwareDatetime

from headrace.spec import DriftPolicy
from monitoring.drift import ColumnDrift, compare_profiles
from monitoring.feature_report import FeatureHealth, Finding, Freshness
from monitoring.limits import Limits, age_in_words
from monitoring.profile import Profile, merge

UNUSUAL = 2.0
"""A feature has moved if it lies so many times further out than any past window did.

On 44 weeks of the sample's 28 features, against the 8 weeks before each: with the PSI limit alone
something moved in every week (458 times), with this in 14 weeks (54 times).
"""


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
    dtypes: Mapping[str, str],
    *,
    past: Sequence[Profile],
    current: Profile | None,
    limits: Limits,
) -> tuple[tuple[FeatureHealth, ...], tuple[Finding, ...]]:
    """Compare a view's features with what they were.

    Args:
        view: its name.
        dtypes: Feast's type of each feature. Numbers and text have values in the profiles; of the
            other types the profiles only count what is missing.
        past: of the reference windows that have rows, all on the same bins.
        current: on those bins too; None: it has no rows.
        limits: how many values may go missing, and how far they may move.
    """
    moved: dict[str, ColumnDrift] = {}
    if past and current is not None:
        moved = _moves(functools.reduce(merge, past), current, limits)
    usual = _usual_moves(past, limits)
    features = tuple(
        _feature(name, dtype, moved.get(name), current).model_copy(
            update={
                "highest_null_rate": _highest_null_rate(name, past),
                "usual_psi": usual.get(name) if has_values(dtype) else None,
            }
        )
        for name, dtype in dtypes.items()
    )
    findings = [
        finding
        for feature in features
        for finding in (_nulls(view, feature, moved, limits), _drift(view, feature, moved, limits))
        if finding is not None
    ]
    return features, tuple(findings)


def _moves(reference: Profile, current: Profile, limits: Limits) -> dict[str, ColumnDrift]:
    policy = DriftPolicy(psi=limits.max_psi or math.inf)
    return {column.name: column for column in compare_profiles(reference, current, policy).columns}


def _usual_moves(past: Sequence[Profile], limits: Limits) -> dict[str, float]:
    """How far each feature's furthest past window lies from the other past windows."""
    usual: dict[str, float] = {}
    for i, one in enumerate(past if len(past) > 1 else ()):
        others = functools.reduce(merge, [*past[:i], *past[i + 1 :]])
        for name, column in _moves(others, one, limits).items():
            usual[name] = max(usual.get(name, 0.0), column.psi)
    return usual


def _highest_null_rate(name: str, past: Sequence[Profile]) -> float | None:
    columns = [profile.columns[name] for profile in past]
    return max((column.missing / column.rows for column in columns), default=None)


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
    before, after = feature.highest_null_rate or 0.0, compared.current_missing
    if after - before <= max(limit, _noise(compared)):
        return None
    return Finding(
        kind="nulls",
        view=view,
        feature=feature.name,
        sentence=f"{view}: {after:.1%} of {feature.name} are missing, at most {before:.1%} in "
        f"the windows before; the limit is a rise by {limit:.1%}. See what fills its table.",
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
    usual = feature.usual_psi or 0.0
    if feature.psi <= UNUSUAL * usual:
        return None
    return Finding(
        kind="drift",
        view=view,
        feature=feature.name,
        sentence=f"{view}: {feature.name} has moved by PSI {compared.psi:.3f} nats; the limit "
        f"is {limits.max_psi:g}, and no window before lay further out than {usual:.3f}. See "
        "whether the world changed, or the pipeline.",
    )
