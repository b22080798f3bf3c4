"""Decide whether a window has drifted from the reference: from profiles, never from rows.

A column has drifted when its PSI is above two marks. ``DriftPolicy.psi`` is the effect that
matters, and keeps a million rows from alarming about a hair's breadth. The noise mark is what a
window of this size shows when nothing has changed, and keeps two hundred rows from alarming about
their number. Missing values are a bin of their own: a feature that goes missing drifts.
"""

from typing import Final

import numpy as np

from headrace.bundle import OUTPUT
from headrace.spec import DriftPolicy, Part
from monitoring.divergences import js_distance, psi, psi_noise
from monitoring.errors import EmptyWindow
from monitoring.profile import Column, Profile, check_same_edges

_NAMED: Final = 5
"""How many drifted columns a sentence names."""


class ColumnDrift(Part):
    """How far one column has moved."""

    name: str
    psi: float
    """In nats."""
    critical: float
    """The PSI that sampling noise alone exceeds with the policy's chance, over all columns."""
    js: float
    """Jensen-Shannon distance, 0 to 1."""
    reference_rows: int
    current_rows: int
    reference_missing: float
    """Share of missing values, 0 to 1."""
    current_missing: float
    drifted: bool


class DriftReport(Part):
    """What a comparison of two windows found."""

    columns: tuple[ColumnDrift, ...]
    """The furthest moved first."""
    drifted_share: float
    """Drifted columns over columns, the prediction among them."""
    drifted: bool
    policy: DriftPolicy

    @property
    def sentence(self) -> str:
        """The finding in words, with the numbers behind it."""
        drifted = [column for column in self.columns if column.drifted]
        verdict = "The window has drifted" if self.drifted else "The window has not drifted"
        named = ", ".join(f"{column.name} (PSI {column.psi:.3f})" for column in drifted[:_NAMED])
        more = f" and {len(drifted) - _NAMED} more" if len(drifted) > _NAMED else ""
        listed = f": {named}{more}" if named else ""
        return (
            f"{verdict}: {len(drifted)} of {len(self.columns)} columns moved{listed}; "
            f"alarm from a share of {self.policy.drifted_share:g}, or if the {OUTPUT} moves, "
            f"beyond PSI {self.policy.psi:g}."
        )


def compare_profiles(reference: Profile, current: Profile, policy: DriftPolicy) -> DriftReport:
    """Return how far ``current`` has moved from ``reference``.

    The window has drifted if the share of drifted columns reaches ``policy.drifted_share``, or if
    the column ``prediction`` is one of them.

    Args:
        reference: the profile of the training set.
        current: a profile counted with ``profile_like(reference, ...)``.
        policy: how far columns may move.

    Raises:
        EmptyWindow: if either profile has no rows.
        EdgesDiffer: if they have other columns or bins.
    """
    check_same_edges(reference, current)
    if not reference.rows or not current.rows:
        raise EmptyWindow(reference_rows=reference.rows, current_rows=current.rows)
    found = [
        _compare(name, column, current.columns[name], policy, columns=len(reference.columns))
        for name, column in reference.columns.items()
    ]
    share = sum(column.drifted for column in found) / len(found)
    prediction = any(column.drifted for column in found if column.name == OUTPUT)
    return DriftReport(
        columns=tuple(sorted(found, key=lambda column: (-column.psi, column.name))),
        drifted_share=share,
        drifted=prediction or share >= policy.drifted_share,
        policy=policy,
    )


def _compare(
    name: str, reference: Column, current: Column, policy: DriftPolicy, *, columns: int
) -> ColumnDrift:
    before, after = _bins(reference), _bins(current)
    moved = psi(before, after)
    # Bonferroni: the rate is the chance that any of the columns alarms, so each gets its part.
    noise = psi_noise(before, after, false_alarm_rate=policy.false_alarm_rate / columns)
    return ColumnDrift(
        name=name,
        psi=moved,
        critical=noise,
        js=js_distance(before, after),
        reference_rows=reference.rows,
        current_rows=current.rows,
        reference_missing=reference.missing / reference.rows,
        current_missing=current.missing / current.rows,
        drifted=moved > policy.psi and moved > noise,
    )


def _bins(column: Column) -> np.ndarray:
    return np.append(column.counts, column.missing)
