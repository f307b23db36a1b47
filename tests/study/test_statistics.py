"""Holm's correction and effect sizes by hand, intervals against SciPy's t distribution and by simulation."""

import numpy as np
import pytest
from scipy import stats

from saliency_entropy.study.statistics import (
    detectable_difference,
    hedges_g,
    hedges_g_paired,
    holm,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
)

VALUES, BASELINE = np.array([0.71, 0.74, 0.69, 0.80]), np.array([0.60, 0.66, 0.61, 0.65, 0.59])


def test_holm_by_hand():
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before it), 0.6 * 1.
    assert holm(np.array([0.02, 0.6, 0.01, 0.03])) == pytest.approx([0.06, 0.6, 0.04, 0.06])
    assert holm(np.array([0.5, 0.4])) == pytest.approx([0.8, 0.8])
    assert holm(np.array([0.9, 0.8, 0.7])) == pytest.approx([1, 1, 1])


def test_holm_counts_what_was_tested_only():
    assert holm(np.array([np.nan, 0.02, np.nan, 0.03])) == pytest.approx([np.nan, 0.04, np.nan, 0.04], nan_ok=True)
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_paired_difference_by_the_formula():
    values, baseline = np.array([0.71, 0.74, 0.69, 0.80]), np.array([0.60, 0.66, 0.61, 0.65])
    differences = np.array([0.11, 0.08, 0.08, 0.15])
    error = differences.std(ddof=1) / 2
    half = stats.t.ppf(0.975, 3) * error
    found = paired_difference(values, baseline)
    assert found.mean == pytest.approx(0.105)
    assert (found.low, found.high) == pytest.approx((0.105 - half, 0.105 + half))
    assert found.p == pytest.approx(2 * stats.t.sf(0.105 / error, 3))


@pytest.mark.parametrize(("count", "mean"), [(0, np.nan), (1, 0.25), (3, 0.25)])
def test_without_spread_there_is_no_interval(count, mean):
    found = paired_difference(np.full(count, 0.75), np.full(count, 0.5))
    assert found.mean == pytest.approx(mean, nan_ok=True)
    assert np.isnan([found.low, found.high, found.p]).all()


@pytest.mark.parametrize(
    ("values", "baseline"), [([], [0.5]), ([0.75], [0.5, 0.5]), ([0.7, 0.8], [0.5]), ([0.75] * 3, [0.5] * 2)]
)
def test_without_spread_there_is_no_effect_size(values, baseline):
    assert np.isnan(hedges_g(np.array(values), np.array(baseline)))


@pytest.mark.parametrize(("pairs", "alpha"), [(5, 0.05), (5, 0.05 / 7), (10, 0.05 / 7)])
def test_the_smallest_difference_is_found_in_80_of_100_simulated_studies(pairs, alpha):
    """Differences of standard deviation 2."""
    least = detectable_difference(2.0, pairs, alpha, 0.8)
    samples = np.random.default_rng(0).normal(least, 2, size=(20_000, pairs))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < alpha).mean() == pytest.approx(0.8, abs=0.012)


def test_the_smallest_difference_by_the_noncentral_t_distribution():
    # What G*Power gives for a paired t-test of ten pairs, alpha 0.05, power 0.80: d_z = 0.9962.
    assert detectable_difference(1.0, 10, 0.05, 0.8) == pytest.approx(0.9962, abs=1e-3)
    for pairs, alpha, power in ((3, 0.01, 0.8), (5, 0.05 / 7, 0.8), (8, 0.05, 0.5)):
        least = detectable_difference(1.0, pairs, alpha, power)
        limit, shift = stats.t.isf(alpha / 2, pairs - 1), least * np.sqrt(pairs)
        found = stats.nct.sf(limit, pairs - 1, shift) + stats.nct.cdf(-limit, pairs - 1, shift)
        assert found == pytest.approx(power, abs=1e-4)
    # Three seeds among five comparisons: below a difference of 5.7 standard deviations no outcome is significant.
    assert stats.t.isf(0.005, 2) / np.sqrt(3) == pytest.approx(5.73, abs=0.01)
    assert detectable_difference(1.0, 3, 0.01, 0.8) > 5.73


@pytest.mark.parametrize(("deviation", "pairs"), [(np.nan, 1), (0.0, 5), (np.nan, 0)])
def test_seeds_that_say_nothing_have_no_smallest_difference(deviation, pairs):
    assert np.isnan(detectable_difference(deviation, pairs, 0.05, 0.8))


def test_effect_sizes_by_hand():
    # Means 3 and 1, variances 1 and 1, freedom 4: d = 2, times gamma(2) / (sqrt 2 gamma(1.5)) = 0.7979.
    assert hedges_g(np.array([2, 3, 4.0]), np.array([0, 1, 2.0])) == pytest.approx(2 * 0.797885, rel=1e-5)
    # Differences 1, 2, 3: mean 2, deviation 1, freedom 2: times gamma(1) / gamma(0.5) = 0.5642.
    assert hedges_g_paired(np.array([1, 2, 3.0]), np.zeros(3)) == pytest.approx(2 * 0.564190, rel=1e-5)
    assert np.isnan(hedges_g_paired(np.array([1, 2.0]), np.zeros(2)))
    assert np.isnan(hedges_g_paired(np.array([1, 1, 1.0]), np.zeros(3)))


def test_effect_sizes_have_no_bias_in_small_samples():
    """Samples of three whose means are one standard deviation apart: Cohen's d would be 1.25 on average."""
    random = np.random.default_rng(0)
    samples = random.normal(size=(20_000, 2, 3)) + np.array([1, 0])[:, None]
    assert np.mean([hedges_g(*pair) for pair in samples]) == pytest.approx(1, abs=0.03)


def test_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([9, 1, 2, 3, 4, 5, 6, -50.0])) == pytest.approx((2 + 3 + 4 + 5) / 4)
    # A quarter of ten is 2.5: two are left out at either end.
    assert interquartile_mean(np.array([0, 0, 1, 2, 3, 4, 5, 6, 99, 99.0])) == pytest.approx(21 / 6)
    assert interquartile_mean(np.array([1, 2, 6.0])) == pytest.approx(3)


def test_probability_of_improvement_by_hand():
    # 0.8 and 0.6 against 0.6 and 0.5: above, above, equal, above.
    found = probability_of_improvement(np.array([0.8, 0.6]), np.array([0.6, 0.5]))
    assert found.probability == pytest.approx(3.5 / 4)
    turned = probability_of_improvement(np.array([0.6, 0.5]), np.array([0.8, 0.6]))
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))


def test_interval_of_the_probability_by_newcombes_equation():
    """The ends are the probabilities from which the observed one is 1.96 of their own standard errors away."""
    found = probability_of_improvement(VALUES, BASELINE)
    assert (found.probability, found.high) == (1, 1)
    low = found.low
    variance = low * (1 - low) * (1 + 3.5 * ((1 - low) / (2 - low) + low / (1 + low))) / 20
    assert (1 - low) / np.sqrt(variance) == pytest.approx(1.959964, rel=1e-5)
    assert 0.4 < low < 0.8


@pytest.mark.parametrize(("n", "m", "least"), [(3, 3, 0.87), (5, 3, 0.92), (10, 10, 0.92)])
@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_interval_of_the_probability_holds_the_true_one(n, m, least, distance):
    random = np.random.default_rng([n, m, int(distance)])
    true = stats.norm.cdf(distance / np.sqrt(2))
    held = 0
    for _ in range(400):
        found = probability_of_improvement(random.normal(size=n) + distance, random.normal(size=m))
        held += found.low <= true <= found.high
    assert held / 400 >= least


@pytest.mark.parametrize(("n", "m", "probability"), [(0, 3, np.nan), (1, 3, 1), (2, 1, 1)])
def test_one_value_gives_no_interval_of_the_probability(n, m, probability):
    found = probability_of_improvement(np.ones(n), np.zeros(m))
    assert found.probability == pytest.approx(probability, nan_ok=True)
    assert np.isnan([found.low, found.high]).all()
