"""The statistics of a report that no library has in this form."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torchmetrics.functional.classification import binary_roc


@dataclass(frozen=True)
class Difference:
    """A mean difference over pairs; the figures that the pairs do not allow are NaN.

    Attributes:
        pairs: their number.
        mean: of the differences.
        low, high: the 95 % interval of the mean, by Student's t.
        p: of the paired t-test, two-sided.
    """

    pairs: int
    mean: float
    low: float
    high: float
    p: float


def paired_difference(values: np.ndarray, baseline: np.ndarray) -> Difference:
    """Mean of ``values - baseline``, pair by pair.

    Args:
        values: ``(N,)``.
        baseline: ``(N,)``, in the order of ``values``.

    Returns:
        Without an interval and p from one pair, or if all pairs differ by the same: nothing then says how far
        another pair could be away.
    """
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    nan = float("nan")
    if not len(differences):
        return Difference(0, nan, nan, nan, nan)
    mean = float(differences.mean())
    if not np.ptp(differences) > 1e-12:
        return Difference(len(differences), mean, nan, nan, nan)
    test = stats.ttest_rel(values, baseline)
    interval = test.confidence_interval(0.95)
    return Difference(len(differences), mean, float(interval.low), float(interval.high), float(test.pvalue))


def holm(p: np.ndarray) -> np.ndarray:
    """p values corrected for their number by Holm's step-down method (1979).

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


def true_positive_rates(scores: np.ndarray, labels: np.ndarray, false_positive_rates: np.ndarray) -> np.ndarray:
    """The ROC curve at given false positive rates, linear between its corners.

    Args:
        scores: ``(N,)``, larger for synthetic. Only their order counts.
        labels: ``(N,)``, 0 = real, 1 = synthetic.
        false_positive_rates: ``(G,)`` in [0, 1], the share of real images called synthetic.

    Returns:
        ``(G,)`` in [0, 1], the share of synthetic images called so; NaN if there is only one class.
    """
    if labels.min() == labels.max():
        return np.full(false_positive_rates.shape, np.nan)
    # Ranks in [0, 1]: torchmetrics squashes anything else with a sigmoid, see saliency_entropy.metrics.auroc.
    ranks = np.unique(scores, return_inverse=True)[1] / max(len(scores) - 1, 1)
    false, true, _ = binary_roc(torch.from_numpy(ranks), torch.from_numpy(labels.astype(np.int64)))
    # Where the curve rises straight up, np.interp takes the upper end; torchmetrics' float32 may lie beside that place.
    real, synthetic = (labels == 0).sum(), (labels == 1).sum()
    false, true = np.round(false.numpy() * real) / real, np.round(true.numpy() * synthetic) / synthetic
    return np.interp(false_positive_rates, false, true)
