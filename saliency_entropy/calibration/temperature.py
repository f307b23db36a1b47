"""Whether a detector is right as often as it says: calibration error, and the temperature that lowers it."""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit
from torchmetrics.functional.classification import binary_calibration_error

BINS = 15
# In units of the mean size of the logits: wide enough for any network, and the likelihood is not flat at either end.
TEMPERATURE_RANGE = (1e-4, 1e4)


def expected_calibration_error(differences: np.ndarray, synthetic: np.ndarray, temperature: float = 1.0) -> float:
    """How far the softmax confidence in the predicted class is from the accuracy (Guo et al., 2017, Eq. 3).

    The mean over 15 bins of equal width in [0, 1], weighted by their numbers of images, of the distance between mean
    confidence and accuracy.

    Args:
        differences: ``(N,)``, N > 0, the logit of "synthetic" minus that of "real".
        synthetic: ``(N,)`` bool.
        temperature: what the logits are divided by.

    Returns:
        In [0, 1]; NaN if a difference or the temperature is not finite.
    """
    scaled = np.asarray(differences, dtype=np.float64) / temperature
    if not np.isfinite(scaled).all():
        return float("nan")
    # The softmax of two logits is the sigmoid of their difference. A confidence of exactly 1, which float64 has from
    # 37 on, would be a bin of its own to torchmetrics, whose bins are open at the upper end.
    confidence = np.minimum(expit(np.abs(scaled)), np.nextafter(1, 0))
    right = (scaled > 0) == synthetic
    return float(binary_calibration_error(torch.from_numpy(confidence), torch.from_numpy(right).long(), n_bins=BINS))


def calibration_floor(differences: np.ndarray) -> float:
    """About the error that a perfectly calibrated detector of these ``differences`` shows by chance; NaN if one is not
    finite. In a bin, the number of right images is off by the absolute value of a normal deviate of variance ``sum c
    (1 - c)``, over the confidences c: by ``sqrt(2 / pi)`` of its standard deviations on average."""
    if not np.isfinite(differences).all():
        return float("nan")
    confidence = np.minimum(expit(np.abs(differences)), np.nextafter(1, 0))
    variances = np.bincount((confidence * BINS).astype(int), confidence * (1 - confidence))
    return float(np.sqrt(2 / np.pi * variances).sum() / len(differences))


def fitted_temperature(differences: np.ndarray, synthetic: np.ndarray) -> float:
    """The temperature of the smallest negative log-likelihood (Guo et al., 2017, section 4.2).

    Args:
        differences: ``(N,)``, N > 0, finite: the logit of "synthetic" minus that of "real".
        synthetic: ``(N,)`` bool.

    Returns:
        Above 0. NaN if none is best: if every image lies on its own side of 0, the lower the better, and if the
        differences point to the wrong class on average, the higher the better.
    """
    margins = np.where(synthetic, differences, -np.asarray(differences, dtype=np.float64))
    if margins.min() >= 0 or margins.mean() <= 0:
        return float("nan")

    def negative_log_likelihood(log_temperature: float) -> float:
        return float(np.logaddexp(0, -margins / np.exp(log_temperature)).mean())

    # Convex in 1 / temperature, so that it has one minimum in its logarithm, too.
    bounds = np.log(TEMPERATURE_RANGE) + np.log(np.abs(margins).mean())
    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, options={"xatol": 1e-6}).x))
