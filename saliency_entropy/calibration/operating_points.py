"""Error rates of a detector, and the thresholds at which it is judged.

In the terms of ISO/IEC 30107-3, a synthetic image is an attack presentation and a real one is bona fide: APCER is the
share of synthetic images taken for real, BPCER the share of real images called synthetic.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import auc, average_precision_score, roc_curve

NAN = float("nan")
LEVEL = 0.95  # of confidence intervals
JOINT = (1 + LEVEL) / 2  # of each of two intervals that hold together at LEVEL


@dataclass(frozen=True, eq=False)
class RocCurve:
    """Every point of a ROC curve; equal scores are one point.

    Attributes:
        thresholds: ``(P,)``, falling, the first infinite. An image is called synthetic from the threshold on.
        false_positive_rates: ``(P,)`` in [0, 1], rising: the share of real images called synthetic, which is BPCER.
        true_positive_rates: ``(P,)`` in [0, 1], rising: the share of synthetic images called so, which is 1 - APCER.
        real, synthetic: numbers of images.
    """

    thresholds: np.ndarray
    false_positive_rates: np.ndarray
    true_positive_rates: np.ndarray
    real: int
    synthetic: int

    @property
    def auroc(self) -> float:
        """The area below, in [0, 1]; NaN if there is only one class."""
        return float(auc(self.false_positive_rates, self.true_positive_rates))

    @property
    def equal_error_rate(self) -> float:
        """The mean of both error rates where they differ least, in [0, 1]; NaN if there is only one class."""
        point = self._equal_error_point
        return float(self.false_positive_rates[point] + 1 - self.true_positive_rates[point]) / 2

    @property
    def equal_error_threshold(self) -> float:
        """The highest threshold at which both error rates differ least; NaN if there is only one class."""
        return float(self.thresholds[self._equal_error_point]) if self._has_both_classes else NAN

    def threshold(self, false_positive_rate: float) -> float:
        """The lowest threshold that calls no larger share of the real images synthetic.

        Infinite if too many real images share even the highest score. NaN if the rate is less than one real image, so
        that these images cannot tell it from 0, or if there is only one class.
        """
        point = self._last_point(false_positive_rate)
        return NAN if point is None else float(self.thresholds[point])

    def true_positive_rate(self, false_positive_rate: float) -> float:
        """The share of synthetic images called so at :meth:`threshold`, in [0, 1]; NaN where that is NaN."""
        point = self._last_point(false_positive_rate)
        return NAN if point is None else float(self.true_positive_rates[point])

    def true_positive_interval(self, false_positive_rate: float) -> tuple[float, float]:
        """The 95 % interval of :meth:`true_positive_rate` if other images were judged, the threshold included: the
        ends, each of 97.5 %, at those of the false positive rate; NaN where that is NaN."""
        point = self._last_point(false_positive_rate)
        if point is None:
            return NAN, NAN
        rates = self.interpolated(np.array(rate_interval(self.false_positive_rates[point], self.real, JOINT)))
        return rate_interval(rates[0], self.synthetic, JOINT)[0], rate_interval(rates[1], self.synthetic, JOINT)[1]

    def interpolated(self, false_positive_rates: np.ndarray) -> np.ndarray:
        """``(G,)``, the true positive rates at these false positive rates, linear between the points; NaN if there is
        only one class."""
        if not self._has_both_classes:
            return np.full(false_positive_rates.shape, NAN)
        # Where the curve rises straight up, this takes the upper end, even if rounding put the rate just before it.
        return np.interp(false_positive_rates + 1e-12, self.false_positive_rates, self.true_positive_rates)

    @property
    def _has_both_classes(self) -> bool:
        return not np.isnan(self.false_positive_rates[-1] + self.true_positive_rates[-1])

    @property
    def _equal_error_point(self) -> int:
        differences = np.abs(self.false_positive_rates - (1 - self.true_positive_rates))
        # Rounded, so that the last bits of the rates do not choose among thresholds of equally unequal errors.
        return int(np.argmin(np.round(differences, 12)))

    def _last_point(self, false_positive_rate: float) -> int | None:
        if not self._has_both_classes or not resolves(self.real, false_positive_rate):
            return None
        # Counts, not shares: 0.07 * 100 is more than 7.
        false = np.round(self.false_positive_rates * self.real)
        return int(np.searchsorted(false, round(false_positive_rate * self.real, 6), side="right")) - 1


def roc(scores: np.ndarray, synthetic: np.ndarray) -> RocCurve:
    """The ROC curve of finite scores, by scikit-learn.

    Args:
        scores: ``(N,)``, N > 0, larger for synthetic; only their order counts. Faster if they are sorted.
        synthetic: ``(N,)`` bool.
    """
    with warnings.catch_warnings():
        # It warns of a single class; the rate of the other class is then NaN, as it should be.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        # Points that a drawing would not need are thresholds, too.
        false, true, thresholds = roc_curve(synthetic, scores, pos_label=True, drop_intermediate=False)
    return RocCurve(thresholds, false, true, int((~synthetic).sum()), int(synthetic.sum()))


def average_precision(scores: np.ndarray, synthetic: np.ndarray) -> float:
    """Area below the precision-recall curve of the synthetic images, as a sum of steps.

    It depends on the share of synthetic images, which is what a constant score reaches.

    Args:
        scores: ``(N,)``, N > 0, finite, larger for synthetic. Only their order counts.
        synthetic: ``(N,)`` bool.

    Returns:
        In [0, 1]; NaN if there is only one class.
    """
    if synthetic.all() or not synthetic.any():
        return NAN
    return float(average_precision_score(synthetic, scores))


def apcer(synthetic_scores: np.ndarray, threshold: float, least: int = 1) -> float:
    """The share of these synthetic images below the threshold, in [0, 1]; NaN without threshold or ``least`` images."""
    return _share(synthetic_scores < threshold, threshold, least)


def bpcer(real_scores: np.ndarray, threshold: float, least: int = 1) -> float:
    """The share of these real images from the threshold on, in [0, 1]; NaN without threshold or ``least`` images."""
    return _share(real_scores >= threshold, threshold, least)


def rate_interval(rate: float, images: float, level: float = LEVEL) -> tuple[float, float]:
    """The interval of an error rate if other images were judged: Clopper and Pearson's (Biometrika 26, 1934), which
    holds the true rate at least as often as ``level``. The rate may be a mean over runs that judged the same
    ``images``, and so no whole number of them; NaN without a rate."""
    errors = rate * images
    # At 0 and 1 themselves the beta distribution has no such quantile.
    low = stats.beta.ppf((1 - level) / 2, errors, images - errors + 1) if errors > 0 else rate
    high = stats.beta.ppf((1 + level) / 2, errors + 1, images - errors) if errors < images else rate
    return float(low), float(high)


def resolves(images: int, rate: float, errors: int = 1) -> bool:
    """Whether this error rate is ``errors`` of so many images, or more."""
    return round(images * rate, 6) >= errors


def score_problem(scores: np.ndarray, synthetic: np.ndarray) -> str | None:
    """Why no threshold can be read from these scores, as a clause; None if one can.

    Args:
        scores: ``(N,)``.
        synthetic: ``(N,)`` bool.
    """
    broken = len(scores) - int(np.isfinite(scores).sum())
    if broken:
        return f"{broken} of {len(scores)} scores are not finite"
    if synthetic.all():
        return "no image is real"
    if not synthetic.any():
        return "no image is synthetic"
    if scores.min() == scores.max():
        return "all scores are equal"
    return None


def _share(errors: np.ndarray, threshold: float, least: int) -> float:
    return NAN if np.isnan(threshold) or len(errors) < least else float(np.mean(errors))
