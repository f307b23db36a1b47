"""How far an AUROC would move with other seeds, with other test images, and with both.

Seeds are resampled. Images are not: weighing 700,000 ranked images anew in each of 1,000 resamples of each of 60 runs
takes ten minutes, and binned scores would lose that all runs judged the same images. DeLong's covariance of the AUROCs
says what such a bootstrap would find, exact in the limit of many resamples but for a part of 1 / (number of images),
from one sort of each run's scores. It holds for the mean and for the difference of any runs, with the images in common.
"""

from typing import NamedTuple

import numpy as np
from scipy import special, stats

from saliency_entropy.metrics import unseen_images
from saliency_entropy.study.runs import Study
from saliency_entropy.study.statistics import LEVEL, NAN, SAME

DRAWS = 10_000
NORMAL_QUANTILE = float(stats.norm.ppf((1 + LEVEL) / 2))


class Interval(NamedTuple):
    """A 95 % interval; NaN where the values allow none."""

    low: float
    high: float


NO_INTERVAL = Interval(NAN, NAN)


def placements(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What each image adds to the AUROC: for a synthetic image the share of real images that score below it, for a real
    image the share of synthetic images that score above it; equal scores count one half.

    The mean over the images of either label is the AUROC (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988).

    Args:
        scores: ``(N,)``, larger for synthetic. Only their order counts.
        labels: ``(N,)``, 0 = real, 1 = synthetic, both present.

    Returns:
        ``(N,)`` in [0, 1].
    """
    labels = labels.astype(bool)
    distinct, places = np.unique(scores, return_inverse=True)
    real = np.bincount(places[~labels], minlength=len(distinct))
    synthetic = np.bincount(places[labels], minlength=len(distinct))
    real_below = (np.cumsum(real) - real / 2) / real.sum()
    synthetic_above = 1 - (np.cumsum(synthetic) - synthetic / 2) / synthetic.sum()
    return np.where(labels, real_below[places], synthetic_above[places])


def image_covariance(placements: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """DeLong's covariance of the AUROCs of R runs over the drawing of test images, real and synthetic ones apart.

    Args:
        placements: ``(R, N)`` of :func:`placements`, the same image in the same column.
        labels: ``(N,)``, 0 = real, 1 = synthetic.

    Returns:
        ``(R, R)``; NaN with fewer than two images of either label.
    """
    total = np.zeros((len(placements), len(placements)))
    for own in (labels == 0, labels == 1):
        if own.sum() < 2:
            return np.full_like(total, NAN)
        total += np.cov(placements[:, own], dtype=np.float64).reshape(total.shape) / own.sum()
    return total


def read_image_covariance(study: Study, measure: str) -> np.ndarray:
    """:func:`image_covariance` of the test scores of a study's runs, read one after the other.

    Args:
        study: its runs scored the same images, in any order.
        measure: ``auroc``, or ``auroc_unseen`` for the generators that are not in training alone.

    Returns:
        ``(R, R)``, in the order of ``study.runs``; NaN without two test images of either label.
    """
    images = study.runs[0].test_scores(("path", "label", "generator"))
    synthetic = (images["label"] == "synthetic").to_numpy()
    kept = np.ones(len(images), dtype=bool)
    if measure == "auroc_unseen":
        kept = ~synthetic | unseen_images(images, study.train_generators)
    labels = synthetic[kept]
    if labels.all() or not labels.any():
        return np.full((len(study.runs), len(study.runs)), NAN)
    # float32: 60 runs of the paper's 700,000 images are 170 MB. A placement is a share, exact enough so.
    rows = np.empty((len(study.runs), len(labels)), dtype=np.float32)
    for row, run in zip(rows, study.runs, strict=True):
        scores = run.test_scores(("path", "logit_synthetic"))
        if not scores["path"].equals(images["path"]):
            scores = scores.set_index("path").loc[images["path"]]
        row[:] = placements(scores["logit_synthetic"].to_numpy()[kept], labels)
    return image_covariance(rows, labels)


def interval_over_images(auroc: float, variance: float) -> Interval:
    """The interval of an AUROC, or of a mean of AUROCs, if the same runs judged other test images of the same kinds.

    It is made on the scale of the logit, which keeps it in (0, 1) (Pepe, The statistical evaluation of medical tests,
    2003, 5.2).

    Args:
        auroc: in [0, 1].
        variance: over the images, from :func:`image_covariance`.

    Returns:
        NaN without variance: from an AUROC of 0 or 1 the images do not say how much larger or smaller it could be.
    """
    if not variance > 0 or not 0 < auroc < 1:
        return NO_INTERVAL
    half = NORMAL_QUANTILE * np.sqrt(variance) / (auroc * (1 - auroc))
    return Interval(*(float(special.expit(special.logit(auroc) + side * half)) for side in (-1, 1)))


def interval_over_seeds(values: np.ndarray, covariance: np.ndarray | None = None) -> Interval:
    """The interval of the mean over runs, if other seeds had been drawn; with ``covariance``, also other test images.

    The percentile bootstrap, hierarchical where there is a covariance: each of 10,000 draws takes as many seeds as
    there are, with replacement, and moves their values as one draw of images would move all of them together.

    The deviations of the seeds are stretched by sqrt(n / (n - 1)) t / z: as it stands, a bootstrap of few values is
    too narrow by just this factor (Hesterberg, The American Statistician 69, 2015, section 4.1). Without it 95 %
    intervals of three seeds hold the true mean in 75 of 100 studies, of ten seeds in 90; with it in about 94.
    What differs between seeds from image to image counts twice, once with each: an interval over both is a little
    wide rather than narrow (Owen, Annals of Applied Statistics 1, 2007).

    Args:
        values: ``(S,)``, an AUROC or a difference of two for each seed.
        covariance: ``(S, S)`` of these values over the test images.

    Returns:
        NaN for one seed, or if all values are equal: nothing then says how far away another could be.
    """
    values = np.asarray(values, dtype=float)
    count = len(values)
    if count < 2 or not np.ptp(values) > SAME:
        return NO_INTERVAL
    if covariance is not None and not np.isfinite(covariance).all():
        return NO_INTERVAL
    # Seeded: the same study has the same report.
    random = np.random.default_rng(0)
    drawn = random.integers(0, count, size=(DRAWS, count))
    stretch = np.sqrt(count / (count - 1)) * stats.t.ppf((1 + LEVEL) / 2, count - 1) / NORMAL_QUANTILE
    means = values.mean() + stretch * (values[drawn].mean(axis=1) - values.mean())
    if covariance is not None:
        # "eigh" takes a singular matrix, such as that of two equal runs.
        moved = random.multivariate_normal(np.zeros(count), covariance, DRAWS, check_valid="ignore", method="eigh")
        means += np.take_along_axis(moved, drawn, axis=1).mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
