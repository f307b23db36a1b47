"""How certain the AUROCs of a study are: the spread of each method, and the difference of every two methods."""

import numpy as np
import pandas as pd

from saliency_entropy.page import wording
from saliency_entropy.page.table import Column, ShownTable, shown_table
from saliency_entropy.study import bootstrap, contrasts, statistics
from saliency_entropy.study.bootstrap import NORMAL_QUANTILE, Interval, interval_over_both
from saliency_entropy.study.tables import MEASURES, RANKED_BY, VERDICT, Measures, paired_table

COMPARISON_COLUMNS = [
    "score", "method", "title", "against", "against_title", "family", "seeds", "seeds_against", "pairs",
]  # fmt: skip
FIGURES = [
    "difference", "low", "high", "p", "p_holm", "verdict", "depends", "detectable", "both_low", "both_high",
    "correlation", "d_z", "g", "improvement", "improvement_low", "improvement_high",
]  # fmt: skip


def spread_table(measures: Measures, covariance: np.ndarray) -> pd.DataFrame:
    """One row per method, in numbers: the spread of :attr:`Measures.measure`.

    Args:
        measures: of the study.
        covariance: ``(R, R)`` of the runs over the test images, in the order of ``measures.runs``, of the same score:
            :func:`~saliency_entropy.study.bootstrap.read_image_covariances`.

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
            "iqm": statistics.interquartile_mean(values),
        }
        seeds = bootstrap.interval_over_seeds(values)
        # The variance of a mean is the mean of the covariances.
        images = bootstrap.interval_over_images(float(values.mean()), float(block.mean()))
        intervals = {
            # An AUROC lies in [0, 1]; the interval of two seeds far apart need not.
            "seeds": np.clip(seeds, 0, 1),
            "images": images,
            "both": np.clip(interval_over_both(float(values.mean()), seeds, images), 0, 1),
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
        Those of :func:`~saliency_entropy.study.tables.paired_table`, and their interval over seeds and test images
        ``both_low, both_high``. Of all seeds of either method as independent samples, the effect size ``g``, and the
        probability that a seed of ``method`` is above one of ``against``: ``improvement``, with its interval
        ``_low, _high``. NaN where the runs do not allow the figure.
    """
    table = paired_table(measures)
    if table.empty:
        return table
    runs, rows = measures.runs, []
    for row in table.to_dict("records"):
        own, other = (runs["method"] == row[name] for name in ("method", "against"))
        common = runs["seed"].isin(runs["seed"][own]) & runs["seed"].isin(runs["seed"][other])
        # Of each run in the mean difference, whose variance over the images they weigh out.
        weights = ((own & common).astype(int) - (other & common)).to_numpy() / max(row["pairs"], 1)
        error = NORMAL_QUANTILE * np.sqrt(max(weights @ covariance @ weights, 0))
        images = Interval(row["difference"] - error, row["difference"] + error)
        both = interval_over_both(row["difference"], Interval(row["low"], row["high"]), images)
        values, baseline = (runs.loc[chosen, measures.measure].to_numpy() for chosen in (own, other))
        improvement = statistics.probability_of_improvement(values, baseline)
        rows.append(
            {"both_low": both.low, "both_high": both.high, "g": statistics.hedges_g(values, baseline)}
            | {"improvement": improvement.probability}
            | {"improvement_low": improvement.low, "improvement_high": improvement.high}
        )
    return table.join(pd.DataFrame(rows))


def shown_spread(table: pd.DataFrame, measure: str) -> ShownTable:
    """:func:`spread_table` by both scores as readers see it."""
    about_intervals = (
        "Seeds: if other seeds had been drawn (Student’s t; from eight seeds on a bootstrap, widened as few seeds need "
        "it). Images: if the same runs judged other images of the same generators (DeLong’s variance, by generator, "
        "real and synthetic images separately). Both: the two variances added."
    )
    on_images = []
    one = list(dict.fromkeys(table["title"][table["seeds"] == 1]))
    if one:
        on_images.append(
            f"One seed of {wording.listed(one)}: the interval over the images says nothing about another training."
        )
    perfect = list(dict.fromkeys(table["title"][table["images_low"].isna() & table["mean"].isin([0, 1])]))
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
        RANKED_BY,
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


def shown_comparisons(table: pd.DataFrame, measure: str) -> ShownTable:
    """:func:`comparison_table` by both scores as readers see it."""
    about_test = (
        "The primary test, named before any data: the paired t-test over the seeds that both methods have, of the "
        f"{MEASURES[measure]} of the method less that of the other; their mean, its 95 % interval by Student’s t, and "
        "p. Better or worse: the interval excludes 0, and p after Holm’s correction is below "
        f"{contrasts.SIGNIFICANCE}; with fewer than {contrasts.MIN_SEEDS} seeds in common, nothing can be said."
    )
    about_p = (
        "Holm’s correction is made for the comparisons that were named before any data (those of the paper’s four "
        "questions; on the decoy, of methods that use human maps against cross-entropy), and separately for all "
        "others, which are exploratory: what they show is to be confirmed by other runs. Inconclusive does not mean "
        "that methods are equal."
    )
    about_power = (
        f"Could be shown: the smallest true difference that such seeds show in {100 * contrasts.POWER:g} % of studies, "
        "at the strictest step of the correction; a smaller one this study could hardly see."
    )
    about_effects = (
        "Seeds and images: the variances of both added. Correlation of the two methods over the seeds: above 0, "
        "pairing narrows the interval; below, it widens it. d_z: the mean difference in units of the differences’ "
        "standard deviation, with Hedges’ correction. Of all seeds of either method, as independent samples: Hedges’ "
        "g, the difference of the means in units of the pooled standard deviation, and P(better), the share of pairs "
        "of a seed of either in which the method’s is higher, with Newcombe’s interval."
    )
    table_of_both, table = table, table.drop_duplicates(["method", "against"])
    names = table["title"] + " and " + table["against_title"]
    unequal = (table["pairs"] > 1) & (table["pairs"] < table[["seeds", "seeds_against"]].max(axis=1))
    on_seeds = [
        f"{before} {wording.first_few(list(names[chosen]), 5, '; ')}{after}"
        for chosen, before, after in (
            (
                unequal,
                "Unequal seeds; only those in common are compared:",
                ". Hedges’ g and P(better) take all.",
            ),
            (table["pairs"] == 0, "“–” for", ": no seed in common, so no difference."),
            (table["pairs"] == 1, "“–” for", ": one seed in common, so no interval and no p."),
        )
        if chosen.any()
    ]
    columns = [
        Column("Method", "title"),
        Column("Against", "against_title"),
        RANKED_BY,
        Column("Family", "family"),
        Column("Seeds in common", "pairs"),
        Column("Difference", "difference", "number", sign="+", notes=[about_test]),
        Column("95 % interval", "", "interval", sign="+"),
        Column("p (Holm)", "p_holm", "p", notes=[about_p, *on_seeds]),
        VERDICT,
        Column("Could be shown", "detectable", "number", notes=[about_power]),
        Column("95 %, seeds and images", "both_", "interval", sign="+"),
        Column("Correlation", "correlation", "number", 2, "+", notes=[about_effects]),
        Column("d_z", "d_z", "number", 1, "+"),
        Column("Hedges’ g", "g", "number", 1, "+"),
        Column("P(better)", "improvement", "number", 2),
        Column("95 %, P(better)", "improvement_", "interval", 2),
    ]
    numbers = table_of_both[COMPARISON_COLUMNS + FIGURES]
    return shown_table("comparisons", "Comparisons between methods, paired by seed", numbers, columns)
