"""How far an AUROC would move with other seeds, with other test images, and with both.

Images are not resampled: weighing 700,000 ranked images anew in each of 1,000 resamples of each of 60 runs takes ten
minutes, and binned scores would lose that all runs judged the same images. DeLong's covariance of the AUROCs
says what such a bootstrap would find, exact in the limit of many resamples but for a part of 1 / (number of images),
from one sort of each run's scores. It holds for the mean and for the difference of any runs, with the images in common.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from saliency_entropy.metrics import unseen_images
from saliency_entropy.run.ranking import RANKINGS, ranking_scores
from saliency_entropy.study.runs import Study
from saliency_entropy.study.statistics import LEVEL, NAN, SAME

DRAWS = 10_000
MIN_BOOTSTRAP = 8  # seeds
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


def image_covariance(placements: np.ndarray, labels: np.ndarray, generators: np.ndarray | None = None) -> np.ndarray:
    """DeLong's covariance of the AUROCs of R runs over the drawing of test images, real and synthetic ones apart.

    Args:
        placements: ``(R, N)`` of :func:`placements`, the same image in the same column.
        labels: ``(N,)``, 0 = real, 1 = synthetic.
        generators: ``(N,)``; if given, the images of each are drawn apart; those of a single image with the most
            frequent one.

    Returns:
        ``(R, R)``; NaN with fewer than two images of either label.
    """
    total = np.zeros((len(placements), len(placements)))
    for own in (labels == 0, labels == 1):
        if own.sum() < 2:
            return np.full_like(total, NAN)
        strata = np.zeros(own.sum(), dtype=int) if generators is None else pd.factorize(generators[own])[0]
        counts = np.bincount(strata)
        strata = np.where(counts[strata] < 2, counts.argmax(), strata)
        for stratum in np.unique(strata):
            kept = np.flatnonzero(own)[strata == stratum]
            # The mean is that of the strata, weighted by their images.
            weight = len(kept) / own.sum() ** 2
            total += weight * np.cov(placements[:, kept], dtype=np.float64).reshape(total.shape)
    return total


def read_image_covariances(study: Study, measure: str) -> dict[str, np.ndarray]:
    """:func:`image_covariance` of the test scores of a study's runs, read one after the other.

    Args:
        study: its runs scored the same images, in any order.
        measure: ``auroc``, or ``auroc_unseen`` for the unseen generators alone.

    Returns:
        Score -> ``(R, R)``, in the order of ``study.runs``; NaN without two test images of either label.
    """
    images = study.runs[0].test_scores(("path", "label", "generator"))
    synthetic = (images["label"] == "synthetic").to_numpy()
    kept = np.ones(len(images), dtype=bool)
    if measure == "auroc_unseen":
        kept = ~synthetic | unseen_images(images, study.train_generators, study.relatives)
    labels = synthetic[kept]
    if labels.all() or not labels.any():
        return dict.fromkeys(RANKINGS, np.full((len(study.runs), len(study.runs)), NAN))
    # float32: 60 runs of the paper's 700,000 images are 340 MB. A placement is a share, exact enough so.
    rows = {score: np.empty((len(study.runs), len(labels)), dtype=np.float32) for score in RANKINGS}
    for place, run in enumerate(study.runs):
        table = run.test_scores(("path", "logit_real", "logit_synthetic"))
        if not table["path"].equals(images["path"]):
            table = table.set_index("path").loc[images["path"]]
        for score, values in ranking_scores(table).items():
            rows[score][place] = placements(values[kept], labels)
    generators = images["generator"].to_numpy()[kept]
    return {score: image_covariance(own, labels, generators) for score, own in rows.items()}


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


def interval_over_seeds(values: np.ndarray) -> Interval:
    """The interval of the mean over runs, if other seeds had been drawn.

    Student's t below eight seeds, of which a bootstrap has too few different resamples (three have 10); from eight on
    the percentile bootstrap, whose deviations are stretched by sqrt(n / (n - 1)) t / z: as it stands, a bootstrap of
    few values is too narrow by just this factor (Hesterberg, The American Statistician 69, 2015, section 4.1).

    Args:
        values: ``(S,)``, an AUROC or a difference of two for each seed.

    Returns:
        NaN for one seed, or if all values are equal: nothing then says how far away another could be.
    """
    values = np.asarray(values, dtype=float)
    count = len(values)
    if count < 2 or not np.ptp(values) > SAME:
        return NO_INTERVAL
    quantile = stats.t.ppf((1 + LEVEL) / 2, count - 1)
    if count < MIN_BOOTSTRAP:
        half = quantile * values.std(ddof=1) / np.sqrt(count)
        return Interval(float(values.mean() - half), float(values.mean() + half))
    # Seeded: the same study has the same report.
    drawn = np.random.default_rng(0).integers(0, count, size=(DRAWS, count))
    stretch = np.sqrt(count / (count - 1)) * quantile / NORMAL_QUANTILE
    means = values.mean() + stretch * (values[drawn].mean(axis=1) - values.mean())
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def interval_over_both(mean: float, seeds: Interval, images: Interval) -> Interval:
    """The interval of a mean if other seeds and other images had been drawn: the variances added, at either end, as
    the squares of its distances from the ends of both (Zou and Donner, Statistics in Medicine 27, 2008).

    It is never narrower than either, and a little wide: what differs between seeds from image to image counts twice
    (Owen, Annals of Applied Statistics 1, 2007).
    """
    half_low, half_high = (np.hypot(seeds[end] - mean, images[end] - mean) for end in (0, 1))
    return Interval(float(mean - half_low), float(mean + half_high))
