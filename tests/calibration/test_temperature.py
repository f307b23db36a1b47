"""Calibration error and temperature: by hand, and against scikit-learn."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from saliency_entropy.calibration.temperature import BINS, expected_calibration_error, fitted_temperature


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def test_calibration_error_by_hand():
    # Confidences 0.9 and 0.9 (one right), 0.7 and 0.7 (both right): bins of their own.
    differences = np.array([logit(0.9), logit(0.1), logit(0.7), logit(0.3)])
    synthetic = np.array([True, True, True, False])
    expected = 0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.7 - 1)
    assert expected_calibration_error(differences, synthetic) == pytest.approx(expected)
    # Half the logits at temperature 2.
    assert expected_calibration_error(2 * differences, synthetic, 2.0) == pytest.approx(expected)


@pytest.mark.parametrize("spread", [1.0, 5.0, 100.0])
def test_calibration_error_against_scikit_learn(spread):
    random = np.random.default_rng(0)
    synthetic = random.integers(0, 2, 5000) == 1
    differences = spread * (random.normal(size=5000) + 2 * synthetic - 1)
    confidence = expit(np.abs(differences))
    right = (differences > 0) == synthetic
    accuracy, mean_confidence = calibration_curve(right, confidence, n_bins=BINS)
    counts = np.histogram(confidence, np.linspace(0, 1, BINS + 1))[0]
    expected = (np.abs(accuracy - mean_confidence) * counts[counts > 0]).sum() / 5000
    assert expected_calibration_error(differences, synthetic) == pytest.approx(expected, abs=1e-6)


def test_a_confidence_of_one_lies_in_the_last_bin():
    """Half at 0.95 and all right, half at 1 and none right: one bin, of accuracy 0.5."""
    differences = np.array([logit(0.95), 1e3])
    error = expected_calibration_error(differences, np.array([True, False]))
    assert error == pytest.approx((0.95 + 1) / 2 - 0.5)


def test_a_tie_is_a_verdict_of_real():
    """In one bin with an image of confidence 0.52, which is right."""
    differences = np.array([0, logit(0.52)])
    assert expected_calibration_error(differences, np.array([False, True])) == pytest.approx(1 - 0.51)
    assert expected_calibration_error(differences, np.array([True, True])) == pytest.approx(0.51 - 0.5)


def test_calibration_error_of_what_is_not_finite():
    one = np.array([True])
    assert np.isnan(expected_calibration_error(np.array([np.inf]), one))
    assert np.isnan(expected_calibration_error(np.array([1.0]), one, float("nan")))


@pytest.mark.parametrize("size", [0.01, 1.0, 500.0])
def test_temperature_by_hand(size):
    """Three of four right, all at the same distance: the best confidence is 0.75."""
    differences = size * np.array([1, 1, -1, 1.0])
    synthetic = np.array([True, True, False, False])
    assert fitted_temperature(differences, synthetic) == pytest.approx(size / np.log(3), rel=1e-4)


def test_temperature_is_the_inverse_slope_of_a_logistic_regression():
    random = np.random.default_rng(0)
    synthetic = random.integers(0, 2, 20_000) == 1
    differences = 7 * (random.normal(size=20_000) + synthetic - 0.5)
    slope = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(differences[:, None], synthetic).coef_[0, 0]
    temperature = fitted_temperature(differences, synthetic)
    assert temperature == pytest.approx(1 / slope, rel=1e-4)
    # The images it was fitted on are as sure as they are right.
    assert expected_calibration_error(differences, synthetic, temperature) < 0.02
    assert expected_calibration_error(differences, synthetic) > 0.1


@pytest.mark.parametrize(
    "differences",
    [[1, 2, -1], [1, 0, -1], [-1, -2, 1], [1, 1, 2], [0, 0, 0]],
    ids=["separated", "separated with a tie", "reversed", "wrong on average", "constant"],
)
def test_no_temperature_is_best(differences):
    assert np.isnan(fitted_temperature(np.array(differences, dtype=float), np.array([True, True, False])))
