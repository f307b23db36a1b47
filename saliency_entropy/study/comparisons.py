"""How certain the AUROCs of a study are: the spread of each method, and the difference of every two methods."""

from itertools import combinations

import numpy as np
import pandas as pd

from saliency_entropy.page import wording
from saliency_entropy.page.table import Column, ShownTable, shown_table
from saliency_entropy.study.bootstrap import interval_over_images, interval_over_seeds
from saliency_entropy.study.runs import BASELINE
from saliency_entropy.study.statistics import (
    hedges_g,
    hedges_g_paired,
    holm,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
    welch_difference,
)
from saliency_entropy.study.tables import MEASURES, Measures

COMPARISON_COLUMNS = ["method", "title", "against", "against_title", "seeds", "seeds_against", "pairs"]
# The figures of a comparison paired by seed, and of one of independent seeds.
PAIRED_COLUMNS = ["difference", "low", "high", "p", "p_holm", "both_low", "both_high", "g_paired"]
INDEPENDENT_COLUMNS = [
    "welch_difference", "welch_low", "welch_high", "welch_p", "welch_p_holm", "g",
    "improvement", "improvement_low", "improvement_high",
]  # fmt: skip


def spread_table(measures: Measures, covariance: np.ndarray) -> pd.DataFrame:
    """One row per method, in numbers: the spread of :attr:`Measures.measure`.

    Args:
        measures: of the study.
        covariance: ``(R, R)`` of the runs over the test images, in the order of ``measures.runs``:
            :func:`~saliency_entropy.study.bootstrap.read_image_covariance`.

    Returns:
        ``method, title, seeds, mean, std`` (n - 1), ``median, iqm`` (interquartile mean), and 95 % intervals of the
        mean: ``seeds_low, seeds_high, images_low, images_high, both_low, both_high``. NaN where
        there is no interval.
    """
    rows = []
    for method, own in measures.runs.groupby("method", sort=False):
        values = own[measures.measure].to_numpy()
        places = own.index.to_numpy()
        block = covariance[np.ix_(places, places)]
        row: dict[str, object] = {
            "method": method,
            "title": own["title"].iloc[0],
            "seeds": len(values),
            "mean": values.mean(),
            "std": own[measures.measure].std(ddof=1),
            "median": np.median(values),
            "iqm": interquartile_mean(values),
        }
        intervals = {
            # An AUROC lies in [0, 1]; the interval of two seeds far apart need not.
            "seeds": np.clip(interval_over_seeds(values), 0, 1),
            # The variance of a mean is the mean of the covariances.
            "images": interval_over_images(float(values.mean()), float(block.mean())),
            "both": np.clip(interval_over_seeds(values, block), 0, 1),
        }
        for over, (low, high) in intervals.items():
            row |= {f"{over}_low": low, f"{over}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def comparison_table(measures: Measures, covariance: np.ndarray) -> pd.DataFrame:
    """One row for every two methods, in numbers: ``method`` less ``against``, of :attr:`Measures.measure`.

    Args:
        measures: of the study.
        covariance: as for :func:`spread_table`.

    Returns:
        :data:`COMPARISON_COLUMNS` (``seeds`` of either method, ``pairs`` in common). :data:`PAIRED_COLUMNS`, by the
        seeds in common: difference, its 95 % interval and p by Student's t, its interval over seeds and test images
        (``both``), effect size. :data:`INDEPENDENT_COLUMNS`, by all seeds of either: the same by Welch's t, effect
        size, and the probability that a seed of ``method`` is above one of ``against``. NaN where the runs do not
        allow the figure. Holm's correction is made twice: for the comparisons with cross-entropy, and for all others.
    """
    groups = {
        method: own.set_index("seed") for method, own in measures.runs.reset_index().groupby("method", sort=False)
    }
    rows = []
    for (against, other), (method, own) in combinations(groups.items(), 2):
        shared = own.index.intersection(other.index)
        values, baseline = own[measures.measure].to_numpy(), other[measures.measure].to_numpy()
        paired, paired_baseline = (runs.loc[shared, measures.measure].to_numpy() for runs in (own, other))
        difference = paired_difference(paired, paired_baseline)
        welch = welch_difference(values, baseline)
        improvement = probability_of_improvement(values, baseline)
        both = interval_over_seeds(
            paired - paired_baseline,
            _covariance_of_differences(covariance, own.loc[shared, "index"], other.loc[shared, "index"]),
        )
        names = (method, own["title"].iloc[0], against, other["title"].iloc[0], len(values), len(baseline))
        row = dict(zip(COMPARISON_COLUMNS, (*names, len(shared)), strict=True))
        for prefix, found in (("", difference), ("welch_", welch)):
            row |= {f"{prefix}difference": found.mean, f"{prefix}p": found.p}
        for prefix, found in (("", difference), ("both_", both), ("welch_", welch), ("improvement_", improvement)):
            row |= {f"{prefix}low": found.low, f"{prefix}high": found.high}
        row["g_paired"] = hedges_g_paired(paired, paired_baseline)
        row["g"] = hedges_g(values, baseline)
        row["improvement"] = improvement.probability
        rows.append(row)
    table = pd.DataFrame(rows)
    for name in ("p", "welch_p") if rows else ():
        of_family = table.groupby(table["against"] == BASELINE)[name]
        table[f"{name}_holm"] = of_family.transform(lambda p: holm(p.to_numpy()))
    return table


def shown_spread(table: pd.DataFrame, measure: str) -> ShownTable:
    """:func:`spread_table` as readers see it."""
    about_intervals = (
        "Seeds: if other seeds had been drawn (bootstrap of the seeds, widened as few seeds need it). Images: if the "
        "same runs judged other images of the same generators and sources (DeLong’s variance, real and synthetic "
        "images separately). Both: a bootstrap that draws seeds and images together."
    )
    on_images = []
    one = list(table["title"][table["seeds"] == 1])
    if one:
        on_images.append(
            f"One seed of {wording.listed(one)}: the interval over the images says nothing about another training."
        )
    perfect = list(table["title"][table["images_low"].isna() & table["mean"].isin([0, 1])])
    if perfect:
        on_images.append(
            f"“–” for {wording.listed(perfect)}: every image is ranked alike, so the images do not tell how far off "
            "others could be."
        )
    about_mean = (
        f"{MEASURES[measure]}, over the seeds. IQM: the mean of the middle half (with fewer than four seeds, of all). "
        "The intervals are of the mean."
    )
    columns = [
        Column("Method", "title"),
        Column("Seeds", "seeds"),
        Column("Mean", "mean", "number", notes=[about_mean]),
        Column("Standard deviation", "std", "number"),
        Column("Median", "median", "number"),
        Column("IQM", "iqm", "number"),
        Column("95 %, seeds", "seeds_", "interval", notes=[about_intervals]),
        Column("95 %, images", "images_", "interval", notes=on_images),
        Column("95 %, both", "both_", "interval"),
    ]
    return shown_table("spread", "Spread over seeds and test images", table, columns)


def shown_paired(table: pd.DataFrame, measure: str) -> ShownTable:
    """The comparisons by seed of :func:`comparison_table` as readers see them."""
    about_difference = (
        f"{MEASURES[measure]} of the method less that of the other, seed by seed, over the seeds that both have: mean, "
        "95 % interval by Student’s t, p of the paired t-test. Effect size: the mean difference in units of the "
        "differences’ standard deviation (d_z with Hedges’ correction), from three seeds on. Seeds and images: a "
        "bootstrap that draws seeds and test images together."
    )
    about_p = (
        "Holm’s correction is made for the comparisons with cross-entropy (as in the table of methods) and, "
        "separately, for all others. p (Holm) ≥ 0.05 does not show that methods are equal."
    )
    names = table["title"] + " and " + table["against_title"]
    unequal = (table["pairs"] > 1) & (table["pairs"] < table[["seeds", "seeds_against"]].max(axis=1))
    on_seeds = [
        f"{before} {wording.first_few(list(names[chosen]), 5, '; ')}{after}"
        for chosen, before, after in (
            (
                unequal,
                "Unequal seeds; only those in common are compared:",
                ". The table of independent seeds takes all.",
            ),
            (table["pairs"] == 0, "“–” for", ": no seed in common, so no difference."),
            (table["pairs"] == 1, "“–” for", ": one seed in common, so no interval and no p."),
        )
        if chosen.any()
    ]
    columns = [
        Column("Method", "title"),
        Column("Against", "against_title"),
        Column("Seeds in common", "pairs"),
        Column("Difference", "difference", "number", sign="+", notes=[about_difference]),
        Column("95 % interval", "", "interval", sign="+"),
        Column("p (Holm)", "p_holm", "p", notes=[about_p, *on_seeds]),
        Column("95 %, seeds and images", "both_", "interval", sign="+"),
        Column("Effect size g", "g_paired", "number", 1, "+"),
    ]
    numbers = table[COMPARISON_COLUMNS + PAIRED_COLUMNS]
    return shown_table("comparisons", "Comparisons between methods, paired by seed", numbers, columns)


def shown_independent(table: pd.DataFrame, measure: str) -> ShownTable:
    """The comparisons of independent seeds of :func:`comparison_table` as readers see them."""
    about_difference = (
        f"{MEASURES[measure]}: all seeds of either method, as independent samples. Difference of the means, 95 % "
        "interval and p by Welch’s t-test; effect size: the difference in units of the pooled standard deviation "
        "(Hedges’ g). P(better): the share of pairs of a seed of the method and one of the other in which the method’s "
        "is higher, equal ones one half, with Newcombe’s interval. Holm’s correction as above."
    )
    about_seeds = (
        "A seed sets the order of the images and the first weights for every method, so that where these matter the "
        "table paired by seed is the sharper one. One seed of a method allows a difference, but no interval."
    )
    columns = [
        Column("Method", "title"),
        Column("Against", "against_title"),
        Column("Seeds", lambda row: f"{row['seeds']} + {row['seeds_against']}"),
        Column("Difference", "welch_difference", "number", sign="+", notes=[about_difference, about_seeds]),
        Column("95 % interval", "welch_", "interval", sign="+"),
        Column("p (Holm)", "welch_p_holm", "p"),
        Column("Effect size g", "g", "number", 1, "+"),
        Column("P(better)", "improvement", "number", 2),
        Column("95 %, P(better)", "improvement_", "interval", 2),
    ]
    heading = "Comparisons between methods, seeds taken as independent"
    return shown_table("comparisons_independent", heading, table[COMPARISON_COLUMNS + INDEPENDENT_COLUMNS], columns)


def _covariance_of_differences(covariance: np.ndarray, own: pd.Series, other: pd.Series) -> np.ndarray:
    """``(P, P)`` of the P differences of the runs ``own`` and ``other``, places in ``covariance``."""
    a, b = own.to_numpy(), other.to_numpy()
    across = covariance[np.ix_(a, b)]
    return covariance[np.ix_(a, a)] + covariance[np.ix_(b, b)] - across - across.T
