"""The tables of spread and of comparisons, against SciPy and by hand."""

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.made_up_study import write_study
from scipy import stats

from saliency_entropy.study.bootstrap import interval_over_seeds, read_image_covariances
from saliency_entropy.study.comparisons import (
    comparison_table,
    shown_comparisons,
    shown_spread,
    spread_table,
)
from saliency_entropy.study.runs import read_study
from saliency_entropy.study.tables import by_score, measure, method_table


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Unequal seeds: cross-entropy 5, HSEB 4, DROID 1, DROID + CYBORG 5."""
    seeds = {"cross_entropy": 5, "hseb": 4, "droid": 1, "droid_cyborg": 5}
    study = read_study(write_study(tmp_path_factory.mktemp("runs") / "demo", seeds))
    measures = measure(study)
    return measures, read_image_covariances(study, measures.measure)["logit"]


def both(make, measures, covariance):
    """A table by both scores; the covariance of logit 1 stands for both."""
    return by_score(lambda own: make(own, covariance), measures)


def values(measures, method):
    return measures.runs.loc[measures.runs["method"] == method, measures.measure].to_numpy()


def of(table, *names):
    """The row of a method, or of a method and what it is compared with."""
    keys = ["method", "against"][: len(names)]
    return table.set_index(keys).loc[names[0] if len(names) == 1 else names]


def test_the_spread_of_each_method(measured):
    measures, covariance = measured
    table = spread_table(measures, covariance)
    assert list(table["method"]) == ["cross_entropy", "hseb", "droid", "droid_cyborg"]
    row, own = of(table, "hseb"), values(measures, "hseb")
    assert (row["mean"], row["std"], row["median"]) == pytest.approx((own.mean(), own.std(ddof=1), np.median(own)))
    assert row["iqm"] == pytest.approx(np.sort(own)[1:3].mean())
    assert (row["seeds_low"], row["seeds_high"]) == interval_over_seeds(own)
    # The runs of HSEB are rows 5 to 8; the variance of their mean over the images is the sum of its parts over 16.
    error = np.sqrt(covariance[5:9, 5:9].sum() / 16)
    logit = np.log(own.mean() / (1 - own.mean())) + np.array([-1.959964, 1.959964]) * error / own.mean() / (
        1 - own.mean()
    )
    assert (row["images_low"], row["images_high"]) == pytest.approx(tuple(1 / (1 + np.exp(-logit))), rel=1e-5)
    low = np.hypot(row["mean"] - row["seeds_low"], row["mean"] - row["images_low"])
    high = np.hypot(row["seeds_high"] - row["mean"], row["images_high"] - row["mean"])
    assert (row["both_low"], row["both_high"]) == pytest.approx((row["mean"] - low, row["mean"] + high))


def test_one_seed_has_an_interval_over_images_alone(measured):
    measures, covariance = measured
    table = both(spread_table, measures, covariance)
    row = of(table[table["score"] == "logit"], "droid")
    assert row[["std", "seeds_low", "both_high"]].isna().all()
    assert row["images_low"] < row["mean"] < row["images_high"]
    images = f"{row['images_low']:.3f} to {row['images_high']:.3f}"
    shown = shown_spread(table, measures.measure)
    # Two rows a method: DROID is the third.
    assert shown.cells.loc[4].to_list()[3:] == [
        f"{row['mean']:.3f}",
        "–",
        *[f"{row['mean']:.3f}"] * 2,
        "–",
        images,
        "–",
    ]
    assert shown.cells["Ranked by"].to_list() == ["logit 1", "margin"] * 4
    assert "One seed of DROID: the interval over the images says nothing about another training." in shown.notes


def test_intervals_of_two_seeds_far_apart_stay_in_the_range_of_an_auroc(measured):
    measures, _ = measured
    runs = measures.runs.iloc[:2].assign(auroc_unseen=[0.5, 0.9])
    row = spread_table(replace(measures, runs=runs), np.full((2, 2), 1e-4)).iloc[0]
    assert (row["both_low"], row["both_high"]) == (0, 1)
    assert (row["seeds_low"], row["seeds_high"]) == (0, 1)


def test_every_two_methods_are_compared_by_the_seeds_in_common(measured):
    measures, covariance = measured
    table = comparison_table(measures, covariance)
    assert list(zip(table["method"], table["against"], table["pairs"], strict=True)) == [
        ("hseb", "cross_entropy", 4),
        ("droid", "cross_entropy", 1),
        ("droid_cyborg", "cross_entropy", 5),
        ("droid", "hseb", 1),
        ("droid_cyborg", "hseb", 4),
        ("droid_cyborg", "droid", 1),
    ]
    row = of(table, "droid_cyborg", "hseb")
    own, other = values(measures, "droid_cyborg"), values(measures, "hseb")
    paired = stats.ttest_rel(own[:4], other)
    assert row["difference"] == pytest.approx((own[:4] - other).mean())
    assert (row["low"], row["high"], row["p"]) == pytest.approx((*paired.confidence_interval(), paired.pvalue))
    assert row["correlation"] == pytest.approx(stats.pearsonr(own[:4], other).statistic)
    # Cohen's d_z, times Hedges' factor gamma(3 / 2) / (sqrt(3 / 2) gamma(1)) for three degrees of freedom.
    cohen = (own[:4] - other).mean() / (own[:4] - other).std(ddof=1)
    assert row["d_z"] == pytest.approx(cohen * 0.886227 / np.sqrt(1.5), rel=1e-5)
    assert row["improvement"] == (own[:, None] > other).mean()
    # Runs 10 to 13 less runs 5 to 8: the variance of the mean over the images, beside that over the seeds.
    contrast = np.zeros(15)
    contrast[10:14], contrast[5:9] = 1 / 4, -1 / 4
    images = 1.959964 * np.sqrt(contrast @ covariance @ contrast)
    half = np.hypot(images, row["high"] - row["difference"])
    expected = row["difference"] - half, row["difference"] + half
    assert (row["both_low"], row["both_high"]) == pytest.approx(expected, rel=1e-5)


def test_holm_is_made_for_the_comparisons_that_the_questions_name_and_for_the_others(measured):
    measures, covariance = measured
    table = comparison_table(measures, covariance)
    # HSEB against cross-entropy (RQ1), DROID against HSEB (RQ3), DROID + CYBORG against DROID (RQ4).
    assert list(table["family"]) == [
        "RQ1–RQ4", "exploratory", "exploratory", "RQ1–RQ4", "exploratory", "RQ1–RQ4",
    ]  # fmt: skip
    # One seed in common allows no test, so that RQ1's stands alone, and two of the others are corrected.
    p = table["p"]
    smaller, larger = sorted([2, 4], key=lambda place: p[place])
    assert table["p_holm"][0] == pytest.approx(p[0])
    assert table["p_holm"][smaller] == pytest.approx(2 * p[smaller])
    assert table["p_holm"][larger] == pytest.approx(max(p[larger], 2 * p[smaller]))
    # The strictest step of the family: 0.05 / 2.
    deviation = (values(measures, "droid_cyborg") - values(measures, "cross_entropy")).std(ddof=1)
    limit, shift = stats.t.isf(0.0125, 4), table["detectable"][2] / deviation * np.sqrt(5)
    assert stats.nct.sf(limit, 4, shift) == pytest.approx(0.8, abs=1e-4)
    # The table of methods says the same of cross-entropy.
    methods = method_table(measures)[1:].reset_index()
    for name in ("p_holm", "family", "verdict"):
        assert methods[name].to_list() == pytest.approx(table[name][:3].to_list(), nan_ok=True)


def test_a_verdict_by_one_score_alone_is_marked(measured):
    measures, covariance = measured
    runs = measures.runs.copy()
    runs.loc[runs["method"] == "droid_cyborg", "auroc_unseen_margin"] = values(measures, "cross_entropy") + 1e-3 * (
        np.arange(5) - 2
    )
    table = both(comparison_table, replace(measures, runs=runs), covariance)
    rows = table[(table["method"] == "droid_cyborg") & (table["against"] == "cross_entropy")]
    assert list(rows["verdict"]) == ["better", "inconclusive"]
    assert rows["depends"].all()
    # With four seeds in common nothing can be said.
    rows = table[(table["method"] == "droid_cyborg") & (table["against"] == "hseb")]
    assert list(rows["verdict"]) == ["cannot be said"] * 2
    assert not rows["depends"].any()
    shown = shown_comparisons(table, measures.measure).cells
    assert list(shown["Verdict"])[4:6] == ["better (depends on the score)", "inconclusive (depends on the score)"]


def test_what_readers_see_of_the_comparisons(measured):
    measures, covariance = measured
    table = both(comparison_table, measures, covariance)
    paired = shown_comparisons(table, measures.measure)
    row = table.loc[2]
    assert paired.cells.loc[2].to_list() == [
        "DROID", "Cross-entropy", "logit 1", "exploratory", "1", f"{row['difference']:+.3f}", "–", "–",
        "cannot be said", "–", "–", "–", "–", "–", "1.00", "–",
    ]  # fmt: skip
    row = table.loc[8]
    assert paired.cells.loc[8, "95 % interval"] == f"{row['low']:+.3f} to {row['high']:+.3f}".replace("-", "−")
    for end in (
        "Unequal seeds; only those in common are compared: HSEB and Cross-entropy; DROID + CYBORG and HSEB. "
        "Hedges’ g and P(better) take all.",
        "“–” for DROID and Cross-entropy; DROID and HSEB; DROID + CYBORG and DROID: one seed in common, so no interval "
        "and no p.",
    ):
        assert end in paired.notes


def test_a_study_of_one_method_compares_nothing(measured):
    measures, covariance = measured
    alone = replace(measures, runs=measures.runs[:5])
    assert comparison_table(alone, covariance[:5, :5]).empty


def test_methods_without_a_seed_in_common_are_compared_as_independent(measured):
    measures, covariance = measured
    runs = measures.runs[:8].assign(seed=range(8))
    table = both(comparison_table, replace(measures, runs=runs), covariance[:8, :8])
    row = table.iloc[0]
    assert row["pairs"] == 0
    assert row[["difference", "p_holm", "both_low", "d_z", "detectable"]].isna().all()
    assert row[["g", "improvement_low"]].notna().all()
    assert (
        "“–” for HSEB and Cross-entropy: no seed in common, so no difference."
        in shown_comparisons(table, "auroc").notes
    )


def test_a_study_without_auroc_has_no_comparison(measured):
    measures, covariance = measured
    runs = measures.runs.assign(auroc_unseen=np.nan)
    nothing = replace(measures, runs=runs)
    numbers = comparison_table(nothing, np.full_like(covariance, np.nan)).select_dtypes("float")
    assert numbers.isna().all(axis=None)
    assert spread_table(nothing, np.full_like(covariance, np.nan)).select_dtypes("float").isna().all(axis=None)
