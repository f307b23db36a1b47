"""The statistics of a report that no library has in this form."""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from saliency_entropy.calibration.operating_points import LEVEL, NAN

# Values nearer to each other than this differ by rounding only.
SAME = 1e-12


@dataclass(frozen=True)
class Difference:
    """A difference of two means; a figure that the values do not allow is NaN.

    Attributes:
        mean: the difference.
        low, high: its 95 % interval, by Student's t.
        p: of the t-test, two-sided.
    """

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Improvement:
    """The probability that a value of one sample is above one of another, and its 95 % interval, all in [0, 1]."""

    probability: float
    low: float
    high: float


def paired_difference(values: np.ndarray, baseline: np.ndarray) -> Difference:
    """Mean of ``values - baseline``, pair by pair.

    Args:
        values: ``(N,)``.
        baseline: ``(N,)``, in the order of ``values``.

    Returns:
        Without an interval and p if there is one pair, or if all pairs differ by the same: nothing then says how far
        away another pair could be. NaN without a pair.
    """
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    if not len(differences):
        return Difference(NAN, NAN, NAN, NAN)
    if not np.ptp(differences) > SAME:
        return Difference(float(differences.mean()), NAN, NAN, NAN)
    found = stats.ttest_rel(values, baseline)
    interval = found.confidence_interval(LEVEL)
    return Difference(float(differences.mean()), float(interval.low), float(interval.high), float(found.pvalue))


def hedges_g(values: np.ndarray, baseline: np.ndarray) -> float:
    """The difference of two independent means in units of their pooled standard deviation: Cohen's d, freed from its
    bias in small samples (Hedges, 1981).

    Args:
        values: ``(N,)``.
        baseline: ``(M,)``.

    Returns:
        NaN with fewer than two values in a sample, or without any spread.
    """
    values, baseline = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    if min(len(values), len(baseline)) < 2 or not max(np.ptp(values), np.ptp(baseline)) > SAME:
        return NAN
    freedom = len(values) + len(baseline) - 2
    squares = ((values - values.mean()) ** 2).sum() + ((baseline - baseline.mean()) ** 2).sum()
    return float((values.mean() - baseline.mean()) / np.sqrt(squares / freedom) * _small_sample(freedom))


def hedges_g_paired(values: np.ndarray, baseline: np.ndarray) -> float:
    """The mean of paired differences in units of their own standard deviation (Cohen's d_z), freed from its bias in
    small samples as :func:`hedges_g` is.

    Args:
        values: ``(N,)``.
        baseline: ``(N,)``, in the order of ``values``.

    Returns:
        NaN with fewer than three pairs, for which the correction is not defined, or if all pairs differ by the same.
    """
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    if len(differences) < 3 or not np.ptp(differences) > SAME:
        return NAN
    return float(differences.mean() / differences.std(ddof=1) * _small_sample(len(differences) - 1))


def detectable_difference(deviation: float, pairs: int, alpha: float, power: float) -> float:
    """The smallest true mean of paired differences that a two-sided t-test of level ``alpha`` finds in this share of
    studies: its statistic has a noncentral t distribution, of noncentrality ``sqrt(pairs) mean / deviation``.

    ``deviation`` is the differences' standard deviation. NaN with fewer than two pairs, or without any spread."""
    if pairs < 2 or not deviation > SAME:
        return NAN
    limit = stats.t.ppf(1 - alpha / 2, pairs - 1)
    # A rejection on the wrong side is not worth counting where the power is high.
    found = optimize.brentq(lambda shift: stats.nct.sf(limit, pairs - 1, shift) - power, 0, 4 * limit + 10)
    return float(found * deviation / np.sqrt(pairs))


def probability_of_improvement(values: np.ndarray, baseline: np.ndarray) -> Improvement:
    """P(a value of ``values`` > a value of ``baseline``), equal values counting one half: the share of all N x M pairs
    (Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice, 2021).

    The interval is Newcombe's (Statistics in Medicine 25, 2006, part 2, method 5). Unlike a bootstrap it stays honest
    where every value of one sample is above all of the other: with three seeds each that happens by chance in one
    study of ten, and the bootstrap would say "1, from 1 to 1". It holds the true value in about 95 of 100 studies, of
    three seeds in 90.

    Args:
        values: ``(N,)``.
        baseline: ``(M,)``, independent of ``values``.

    Returns:
        Without an interval if a sample holds one value, or NaN.
    """
    n, m = len(values), len(baseline)
    if not min(n, m):
        return Improvement(NAN, NAN, NAN)
    probability = float(stats.mannwhitneyu(values, baseline, method="asymptotic").statistic / (n * m))
    if min(n, m) < 2 or np.isnan(probability):
        return Improvement(probability, NAN, NAN)

    def excess(true: float) -> float:
        """The squared distance of ``probability`` from ``true`` in standard errors, less the largest that chance
        allows."""
        pairs_of_a_value = (1 - true) / (2 - true) + true / (1 + true)
        variance = true * (1 - true) * (1 + ((n + m) / 2 - 1) * pairs_of_a_value) / (n * m)
        return (probability - true) ** 2 / variance - stats.norm.ppf((1 + LEVEL) / 2) ** 2

    # At 0 and 1 themselves there is no variance to divide by.
    lowest, highest = 1e-9, 1 - 1e-9
    low = optimize.brentq(excess, lowest, min(probability, highest)) if probability > 0 else 0.0
    high = optimize.brentq(excess, max(probability, lowest), highest) if probability < 1 else 1.0
    return Improvement(probability, float(low), float(high))


def interquartile_mean(values: np.ndarray) -> float:
    """The mean of ``(N,)`` values without the lowest and the highest quarter. The quarters are rounded down to whole
    values, so that none of fewer than four is left out."""
    return float(stats.trim_mean(values, 0.25))


def holm(p: np.ndarray) -> np.ndarray:
    """p values, corrected for their number by Holm's step-down method (1979).

    The k-th smallest of m is multiplied by m - k + 1, at most 1, and is at least as large as the one before it.

    Args:
        p: ``(M,)`` in [0, 1]; NaN counts as not tested.

    Returns:
        ``(M,)``, NaN where ``p`` is.
    """
    p = np.asarray(p, dtype=float)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested])]
    corrected = np.full(p.shape, np.nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return corrected


def _small_sample(freedom: int) -> float:
    """Hedges' exact factor for a standard deviation of this many degrees of freedom, below 1."""
    half = freedom / 2
    return float(np.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / np.sqrt(half))
