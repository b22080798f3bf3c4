"""How far two counts over the same bins lie apart: PSI, its sampling noise, and JS distance."""

import numpy as np


def psi(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the population stability index of two counts.

    ``sum((q - p) * ln(q / p))`` over the bins, where p and q are the shares of the reference and
    of the current rows; the symmetric Kullback-Leibler divergence of Jeffreys. Bins that are empty
    on both sides are left out; each other gets half a row more on either side. That keeps an empty
    bin finite, and sampling noise near its theory: with half a row in the empty bins only, windows
    of 200 rows in 20 bins passed the mark of ``psi_noise`` four times as often as stated.

    Args:
        reference: int, shape (bins,).
        current: int, shape (bins,); the same bins.

    Returns:
        The index in nats: 0.0 for equal shares, no upper bound.

    Source: Lewis, "An Introduction to Credit Scoring" (1994), also for the usual marks 0.10 and
    0.25, which are a rule of thumb; Jeffreys, "An invariant form for the prior probability in
    estimation problems" (1946).

    >>> psi(np.array([10, 30]), np.array([10, 30]))
    0.0
    """
    used = (reference > 0) | (current > 0)
    p = _smoothed_shares(reference[used])
    q = _smoothed_shares(current[used])
    return float(np.sum((q - p) * np.log(q / p)))


def psi_noise(reference: np.ndarray, current: np.ndarray, *, false_alarm_rate: float) -> float:
    """Return the PSI that equal populations exceed with about the chance ``false_alarm_rate``.

    With n and m rows in B bins, PSI of samples of one population is about ``(1/n + 1/m)`` times a
    chi-squared variable of ``B - 1`` degrees of freedom, so a window of a few hundred rows has a
    large PSI for no reason but its size.

    Args:
        reference: int, shape (bins,); at least one row.
        current: int, shape (bins,); at least one row.
        false_alarm_rate: between 0 and 1.

    Source: Yurdakul and Naranjo, "Statistical properties of the population stability index",
    Journal of Risk Model Validation 14 (2020).
    """
    from scipy.special import chdtri

    freedom = int(((reference > 0) | (current > 0)).sum()) - 1
    if freedom == 0:
        return 0.0
    return float((1 / reference.sum() + 1 / current.sum()) * chdtri(freedom, false_alarm_rate))


def js_distance(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the Jensen-Shannon distance of two counts over the same bins, from 0 to 1.

    The square root of the Jensen-Shannon divergence in bits: 0 for equal shares, 1 where no bin
    has rows of both. Needs no smoothing.

    Source: Lin, "Divergence measures based on the Shannon entropy" (1991); that its root is a
    metric: Endres and Schindelin, "A new metric for probability distributions" (2003).

    >>> js_distance(np.array([1, 0]), np.array([0, 1]))
    1.0
    """
    p, q = reference / reference.sum(), current / current.sum()
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return float(np.sqrt(np.clip(divergence, 0.0, 1.0)))  # rounding may leave -1e-17


def _smoothed_shares(counts: np.ndarray) -> np.ndarray:
    rows = counts + 0.5
    shares: np.ndarray = rows / rows.sum()
    return shares


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    held = p > 0
    return float(np.sum(p[held] * np.log2(p[held] / q[held])))
