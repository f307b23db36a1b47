"""Holm's correction by hand, the paired interval against SciPy's t distribution, the ROC against scikit-learn."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_curve

from saliency_entropy.study.statistics import holm, paired_difference, true_positive_rates


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
    assert found.pairs == 4
    assert found.mean == pytest.approx(0.105)
    assert (found.low, found.high) == pytest.approx((0.105 - half, 0.105 + half))
    assert found.p == pytest.approx(2 * stats.t.sf(0.105 / error, 3))


@pytest.mark.parametrize(("count", "mean"), [(0, np.nan), (1, 0.25), (3, 0.25)])
def test_without_spread_there_is_no_interval(count, mean):
    found = paired_difference(np.full(count, 0.75), np.full(count, 0.5))
    assert found.pairs == count
    assert found.mean == pytest.approx(mean, nan_ok=True)
    assert np.isnan([found.low, found.high, found.p]).all()


@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_roc_against_scikit_learn(spread):
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 500)
    scores = ((random.normal(size=500) + labels) * spread).astype(np.float32)
    scores[::7] = scores[0]
    grid = np.linspace(0, 1, 101)
    expected = np.interp(grid, *roc_curve(labels, scores, drop_intermediate=False)[:2])
    assert true_positive_rates(scores, labels, grid) == pytest.approx(expected, abs=1e-6)


def test_roc_by_hand():
    # Synthetic 3, 1; real 2, 0: up, right, up, right.
    rates = true_positive_rates(np.array([3, 1, 2, 0.0]), np.array([1, 1, 0, 0]), np.array([0, 0.25, 0.5, 1]))
    assert rates == pytest.approx([0.5, 0.5, 1, 1])
    constant = true_positive_rates(np.zeros(4), np.array([1, 1, 0, 0]), np.array([0, 0.3, 1]))
    assert constant == pytest.approx([0, 0.3, 1])
    assert np.isnan(true_positive_rates(np.zeros(3), np.ones(3), np.array([0.5]))).all()
