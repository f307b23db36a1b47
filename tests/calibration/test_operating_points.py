"""ROC points, thresholds and error rates: by hand, and against torchmetrics."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.stats import rankdata
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_eer,
    binary_roc,
    binary_sensitivity_at_specificity,
)

from saliency_entropy.calibration.operating_points import apcer, average_precision, bpcer, resolves, roc, score_problem

# Falling, S synthetic and R real:  9 S, 8 S, 7 R and S, 6 R, 5 S, 4 R, 3 R
SCORES = np.array([9, 8, 7, 7, 6, 5, 4, 3], dtype=np.float32)
SYNTHETIC = np.array([1, 1, 0, 1, 0, 1, 0, 0], dtype=bool)


def as_torchmetrics(scores: np.ndarray, synthetic: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Ranks in [0, 1], which torchmetrics does not squash into ties."""
    return torch.from_numpy(rankdata(scores, "dense") / len(scores)), torch.from_numpy(synthetic).long()


@pytest.fixture(params=[1.0, 1e4], ids=["small", "saturating a sigmoid"])
def many(request) -> tuple[np.ndarray, np.ndarray]:
    """3,000 scores, a tenth of them tied in groups; not sorted."""
    random = np.random.default_rng(0)
    synthetic = random.integers(0, 3, 3000) > 0
    scores = ((random.normal(size=3000) + synthetic) * request.param).astype(np.float32)
    scores[:300] = scores[random.integers(0, 20, 300)]
    return scores, synthetic


def test_the_curve_by_hand():
    curve = roc(SCORES, SYNTHETIC)
    assert curve.thresholds.tolist() == [np.inf, 9, 8, 7, 6, 5, 4, 3]
    assert curve.false_positive_rates.tolist() == [0, 0, 0, 0.25, 0.5, 0.5, 0.75, 1]
    assert curve.true_positive_rates.tolist() == [0, 0.25, 0.5, 0.75, 0.75, 1, 1, 1]
    # Of 16 pairs: 4 + 4 + (3 + a tie) + 2.
    assert curve.auroc == pytest.approx(13.5 / 16)
    # From 7 on, one of four is wrong in either class.
    assert curve.equal_error_rate == 0.25
    assert curve.equal_error_threshold == 7
    assert curve.threshold(0.25) == 7
    assert curve.true_positive_rate(0.25) == 0.75
    # The tie at 7 comes whole or not at all; at one half, the lower of two thresholds.
    assert curve.threshold(0.49) == 7
    assert curve.threshold(0.5) == 5
    assert curve.true_positive_rate(0.5) == 1
    assert average_precision(SCORES, SYNTHETIC) == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)


def test_of_thresholds_of_equally_unequal_errors_the_highest():
    """At 4 the rates are 1/2 and 2/3, at 3 they are 1/2 and 1/3: in floating point, the last bits would choose 3."""
    curve = roc(np.array([5, 4, 3, 2, 1.0]), np.array([True, False, True, True, False]))
    assert curve.equal_error_threshold == 4
    assert curve.equal_error_rate == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_interpolation_is_linear_and_takes_the_upper_end_of_a_rise():
    curve = roc(np.array([3, 1, 2, 0.0]), np.array([True, True, False, False]))
    assert curve.interpolated(np.array([0, 0.25, 0.5, 1])) == pytest.approx([0.5, 0.5, 1, 1])
    # At 0.3 - 0.1, a rounding below the rise at 0.2.
    steps = roc(np.array([3, 2, 1, 0, 0, 0, 0.0]), np.array([False, True, True, False, False, False, False]))
    assert steps.interpolated(np.array([0.3 - 0.1])) == pytest.approx([1])
    tied = roc(np.zeros(4), np.array([True, True, False, False]))
    assert tied.interpolated(np.array([0, 0.3, 1])) == pytest.approx([0, 0.3, 1])


def test_figures_against_torchmetrics(many):
    curve, (ranks, labels) = roc(*many), as_torchmetrics(*many)
    assert curve.auroc == pytest.approx(float(binary_auroc(ranks, labels)), abs=1e-6)
    assert average_precision(*many) == pytest.approx(float(binary_average_precision(ranks, labels)), abs=1e-6)
    assert curve.equal_error_rate == pytest.approx(float(binary_eer(ranks, labels)), abs=1e-6)
    # Half an image above the rate: torchmetrics compares float32 shares with it.
    for rate in (0.01, 0.1):
        images = int(rate * curve.real)
        expected, _ = binary_sensitivity_at_specificity(ranks, labels, 1 - (images + 0.5) / curve.real)
        assert curve.true_positive_rate(rate) == pytest.approx(float(expected), abs=1e-6)
    grid = np.linspace(0, 1, 101)
    false, true, _ = binary_roc(ranks, labels)
    assert curve.interpolated(grid) == pytest.approx(np.interp(grid, false, true), abs=2e-3)


def test_sorted_scores_give_the_same_curve(many):
    scores, synthetic = many
    order = np.argsort(-scores)
    curve, other = roc(scores, synthetic), roc(scores[order], synthetic[order])
    assert np.array_equal(curve.thresholds, other.thresholds)
    assert np.array_equal(curve.true_positive_rates, other.true_positive_rates)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.25])
def test_a_threshold_keeps_its_promise_and_the_next_lower_does_not(many, rate):
    scores, synthetic = many
    curve = roc(scores, synthetic)
    threshold = curve.threshold(rate)
    assert bpcer(scores[~synthetic], threshold) <= rate
    lower = scores[scores < threshold].max()
    assert bpcer(scores[~synthetic], lower) > rate
    assert apcer(scores[synthetic], threshold) == pytest.approx(1 - curve.true_positive_rate(rate))


def test_both_errors_at_the_threshold_of_equal_errors(many):
    scores, synthetic = many
    curve = roc(scores, synthetic)
    errors = (
        apcer(scores[synthetic], curve.equal_error_threshold),
        bpcer(scores[~synthetic], curve.equal_error_threshold),
    )
    assert np.mean(errors) == pytest.approx(curve.equal_error_rate)
    for other in np.unique(scores):
        assert abs(errors[0] - errors[1]) <= abs(apcer(scores[synthetic], other) - bpcer(scores[~synthetic], other))


def test_error_rates_by_hand():
    # A score at the threshold is called synthetic.
    assert apcer(np.array([1, 2, 3, 4.0]), 3) == 0.5
    assert bpcer(np.array([1, 2, 3, 4.0]), 3) == 0.5
    assert apcer(np.array([1.0]), np.inf) == 1
    assert bpcer(np.array([1.0]), np.inf) == 0
    for rate in (apcer, bpcer):
        assert np.isnan(rate(np.array([]), 0.0))
        assert np.isnan(rate(np.array([1.0]), np.nan))


@pytest.mark.parametrize(("real", "rate", "enough"), [(99, 0.01, False), (100, 0.01, True), (1000, 0.001, True)])
def test_a_rate_needs_images_enough_to_be_told_from_none(real, rate, enough):
    synthetic = np.arange(real + 5) < 5
    scores = np.arange(real + 5, dtype=float)
    curve = roc(scores, synthetic)
    assert resolves(real, rate) == enough
    assert np.isnan(curve.threshold(rate)) == np.isnan(curve.true_positive_rate(rate)) == (not enough)


def test_the_interval_of_a_true_positive_rate_holds_the_true_one():
    """In 300 studies of 300 real images (three of which set the threshold) and 200 synthetic ones, two standard
    deviations apart: at 1 % of false positives the true rate is Phi(2 + Phi^-1(0.01)) = 0.372."""
    random, synthetic = np.random.default_rng(0), np.arange(500) < 200
    true = stats.norm.cdf(2 + stats.norm.ppf(0.01))
    held = 0
    for _ in range(300):
        low, high = roc(random.normal(size=500) + 2 * synthetic, synthetic).true_positive_interval(0.01)
        held += low <= true <= high
    assert held / 300 >= 0.95
    curve = roc(random.normal(size=500) + 2 * synthetic, synthetic)
    low, high = curve.true_positive_interval(0.01)
    # A binomial interval at the threshold as it stands would be narrower.
    ends = stats.binomtest(round(200 * curve.true_positive_rate(0.01)), 200).proportion_ci(method="exact")
    assert low < ends.low < ends.high < high
    assert np.isnan(curve.true_positive_interval(0.001)).all()


@pytest.mark.parametrize("count", [7, 29, 57])
def test_a_share_of_whole_images_is_not_lost_to_rounding(count):
    """0.07 * 100, 0.29 * 100 and 0.57 * 100 are not whole in floating point."""
    scores = np.arange(101.0, 0, -1)
    curve = roc(scores, scores == 1)
    assert (curve.false_positive_rates <= count / 100).sum() - 1 == count
    assert curve.threshold(count / 100) == 101 - count + 1


def test_the_highest_score_may_be_of_too_many_real_images():
    synthetic = np.arange(200) < 100
    curve = roc(np.zeros(200), synthetic)
    assert curve.threshold(0.01) == np.inf
    assert curve.true_positive_rate(0.01) == 0
    assert curve.equal_error_rate == curve.auroc == 0.5


@pytest.mark.parametrize("synthetic", [np.ones(3, dtype=bool), np.zeros(3, dtype=bool)])
@pytest.mark.filterwarnings("error")
def test_one_class_has_no_figure(synthetic):
    scores = np.array([1.0, 2, 3])
    curve = roc(scores, synthetic)
    figures = [curve.auroc, curve.equal_error_rate, curve.equal_error_threshold, average_precision(scores, synthetic)]
    figures += [curve.threshold(0.5), curve.true_positive_rate(0.5), *curve.interpolated(np.array([0, 0.5]))]
    assert np.isnan(figures).all()


@pytest.mark.parametrize(
    ("scores", "synthetic", "problem"),
    [
        ([1, 2, 3], [0, 1, 1], None),
        ([1, np.nan, np.inf], [0, 1, 1], "2 of 3 scores are not finite"),
        ([1, 2, 3], [1, 1, 1], "no image is real"),
        ([1, 2, 3], [0, 0, 0], "no image is synthetic"),
        ([2, 2, 2], [0, 1, 1], "all scores are equal"),
    ],
)
def test_scores_that_allow_no_threshold_are_told_why(scores, synthetic, problem):
    assert score_problem(np.array(scores, dtype=float), np.array(synthetic, dtype=bool)) == problem
