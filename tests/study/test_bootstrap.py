"""DeLong's covariance by hand and against a bootstrap that ranks every resample anew; what the intervals hold."""

import numpy as np
import pandas as pd
import pytest
from benchmarks.made_up_study import scored_images, write_run, write_study
from scipy import stats
from sklearn.metrics import roc_auc_score

from saliency_entropy.study.bootstrap import (
    Interval,
    image_covariance,
    interval_over_both,
    interval_over_images,
    interval_over_seeds,
    placements,
    read_image_covariances,
)
from saliency_entropy.study.runs import read_study


def scored(runs, images=300, synthetic=0.6, spread=0.0, seed=0):
    """Scores ``(runs, images)`` that have the images in common, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) < synthetic * images
    common = random.normal(size=images)
    strength = 0.8 + spread * random.normal(size=(runs, 1))
    return common + random.normal(size=(runs, images)) + strength * labels, labels


def test_placements_by_hand():
    # Synthetic 3, 1, 1; real 2, 1: 3 is above both, 1 above none and equal to one of two.
    scores, labels = np.array([3.0, 1, 1, 2, 1]), np.array([1, 1, 1, 0, 0])
    assert placements(scores, labels) == pytest.approx([1, 0.25, 0.25, 1 / 3, 2 / 3])
    for own in (slice(3), slice(3, 5)):
        assert placements(scores, labels)[own].mean() == pytest.approx(roc_auc_score(labels, scores))


def test_covariance_by_hand():
    # One run: variance 3/16 of the synthetic images' placements over 3, 1/18 of the real ones' over 2.
    placed = np.array([[1, 0.25, 0.25, 1 / 3, 2 / 3]])
    labels = np.array([1, 1, 1, 0, 0])
    assert image_covariance(placed, labels) == pytest.approx(np.array([[3 / 16 / 3 + 1 / 18 / 2]]))
    assert np.isnan(image_covariance(placed[:, 1:4], labels[1:4])).all()


def test_covariance_against_a_bootstrap_that_ranks_anew():
    """Stratified by label, 1,000 resamples, as weights of the images; the mean of two runs and their difference."""
    scores, labels = scored(2)
    random = np.random.default_rng(1)
    found = np.empty((1000, 2))
    for resample in found:
        weights = np.empty(len(labels))
        for own in (labels, ~labels):
            weights[own] = random.multinomial(own.sum(), np.full(own.sum(), 1 / own.sum()))
        resample[:] = [roc_auc_score(labels, run, sample_weight=weights) for run in scores]
    covariance = image_covariance(np.stack([placements(run, labels) for run in scores]), labels)
    for both in (np.array([0.5, 0.5]), np.array([1, -1])):
        error = np.sqrt(both @ covariance @ both)
        assert error == pytest.approx((found @ both).std(ddof=1), rel=0.08)
    # The interval, too, is what the percentiles of the resamples say.
    auroc = roc_auc_score(labels, scores[0])
    assert interval_over_images(auroc, covariance[0, 0]) == pytest.approx(
        np.quantile(found[:, 0], [0.025, 0.975]), abs=0.006
    )


def test_interval_over_images_by_the_formula():
    # logit 0.9 = ln 9; its standard error is 0.03 / (0.9 * 0.1) = 1 / 3.
    logits = np.log(9) + np.array([-1, 1]) * 1.959964 / 3
    assert interval_over_images(0.9, 0.03**2) == pytest.approx(1 / (1 + np.exp(-logits)))


@pytest.mark.parametrize(("auroc", "variance"), [(1.0, 0.0), (1.0, 0.1), (0.7, 0.0), (0.7, np.nan), (np.nan, 0.1)])
def test_images_that_say_nothing_give_no_interval(auroc, variance):
    assert np.isnan(interval_over_images(auroc, variance)).all()


def test_interval_over_images_holds_the_true_auroc():
    """In 500 studies of 100 images whose scores differ by one standard deviation: AUROC Phi(1 / sqrt 2) = 0.760."""
    random = np.random.default_rng(3)
    labels = np.arange(100) < 40
    true = stats.norm.cdf(1 / np.sqrt(2))
    held = 0
    for _ in range(500):
        placed = placements(random.normal(size=100) + labels, labels)
        low, high = interval_over_images(placed[labels].mean(), image_covariance(placed[None], labels)[0, 0])
        held += low < true < high
    assert 0.93 <= held / 500 <= 0.97


def test_interval_over_seeds_is_the_stretched_bootstrap_of_scipy():
    values = np.random.default_rng(4).normal(0.7, 0.02, size=10)
    plain = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(5))
    stretch = np.sqrt(10 / 9) * stats.t.ppf(0.975, 9) / stats.norm.ppf(0.975)
    expected = values.mean() + stretch * (np.array(plain.confidence_interval) - values.mean())
    assert interval_over_seeds(values) == pytest.approx(expected, abs=5e-4)
    assert interval_over_seeds(values) == interval_over_seeds(values)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_below_eight_seeds_the_interval_is_students(count):
    values = np.random.default_rng(6).normal(0.7, 0.02, size=count)
    expected = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert interval_over_seeds(values) == pytest.approx(expected)


def test_the_interval_over_both_by_hand():
    # Distances below: 3 and 4, above: 5 and 12.
    assert interval_over_both(10, Interval(7, 15), Interval(6, 22)) == pytest.approx((10 - 5, 10 + 13))
    assert np.isnan(interval_over_both(10, Interval(np.nan, np.nan), Interval(6, 22))).all()


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("error", [0.0, 0.5, 2.0])
def test_interval_over_seeds_and_images_holds_the_true_mean_and_both_its_parts(seeds, error):
    """In 250 studies; ``error`` is how far the images move the mean, in standard errors over the seeds."""
    random = np.random.default_rng([seeds, int(10 * error)])
    deviation = error / np.sqrt(seeds)
    held = 0
    for _ in range(250):
        values = random.normal(size=seeds) + random.normal(scale=deviation)
        mean, half = values.mean(), stats.norm.ppf(0.975) * deviation
        parts = interval_over_seeds(values), Interval(mean - half, mean + half)
        low, high = interval_over_both(mean, *parts)
        held += low < 0 < high
        assert all(low <= part.low + 1e-12 and high >= part.high - 1e-12 for part in parts)
    assert 0.92 <= held / 250 <= 0.995


def test_seeds_that_say_nothing_give_no_interval():
    for values in ([], [0.7], [0.7, 0.7, 0.7]):
        assert np.isnan(interval_over_seeds(np.array(values))).all()


def test_images_are_drawn_from_each_generator_apart():
    """Against a bootstrap that draws within generators: one easy, one hard, and one of a single image."""
    random = np.random.default_rng(7)
    generators = np.array([""] * 80 + ["easy"] * 60 + ["hard"] * 60 + ["one"])
    labels = generators != ""
    scores = random.normal(size=201) + np.select([generators == "easy", generators == "hard"], [3.0, 0.2])
    placed = placements(scores, labels)[None]
    stratified = image_covariance(placed, labels, generators)[0, 0]
    found = np.empty(800)
    pool = np.where(generators == "one", "easy", generators)  # "easy" comes first of those of 60 images
    for draw in range(len(found)):
        rows = np.concatenate(
            [random.choice(own := np.flatnonzero(pool == name), len(own)) for name in np.unique(pool)]
        )
        found[draw] = roc_auc_score(labels[rows], scores[rows])
    assert np.sqrt(stratified) == pytest.approx(found.std(ddof=1), rel=0.1)
    # Between generators nothing is drawn, so it is less than that of all synthetic images together.
    assert stratified < 0.8 * image_covariance(placed, labels)[0, 0]
    by_hand = placed[0, :80].var(ddof=1) / 80
    for name in ("easy", "hard"):
        own = placed[0, pool == name]
        by_hand += (len(own) / 121) ** 2 * own.var(ddof=1) / len(own)
    assert stratified == pytest.approx(by_hand)


@pytest.mark.parametrize("measure", ["auroc", "auroc_unseen"])
def test_the_covariance_of_a_study_whose_runs_list_the_images_in_different_orders(tmp_path, measure):
    images = scored_images()
    write_study(tmp_path, {"cross_entropy": 2}, images=images)
    write_run(tmp_path, "droid", 0, images=images)
    study = read_study(tmp_path)
    found = read_image_covariances(study, measure)
    for score, expected in found.items():
        # By the definition: the share of real images below each synthetic one, and the other way round.
        placed, strata = [], {}
        for run in study.runs:
            scores = run.test_scores(("path", "label", "generator", "logit_real", "logit_synthetic"))
            own = (scores["label"] == "synthetic") & ((measure == "auroc") | (scores["generator"] != "stylegan2"))
            values = scores["logit_synthetic"].to_numpy(dtype=float)
            if score == "margin":
                values = values - scores["logit_real"].to_numpy(dtype=float)
            above = values[own][:, None] > values[scores["label"] == "real"]
            placed.append((above.mean(axis=1), above.mean(axis=0)))
            strata = {name: (scores["generator"][own] == name).to_numpy() for name in set(scores["generator"][own])}
        synthetic, real = (np.stack(part) for part in zip(*placed, strict=True))
        by_hand = np.cov(real) / real.shape[1]
        for kept in strata.values():
            by_hand = by_hand + kept.mean() ** 2 * np.cov(synthetic[:, kept]) / kept.sum()
        assert expected == pytest.approx(by_hand, rel=1e-4)
    path = tmp_path / "droid" / "seed0" / "scores" / "test.parquet"
    pd.read_parquet(path).sample(frac=1, random_state=0).to_parquet(path, index=False)
    again = read_image_covariances(read_study(tmp_path), measure)
    for score, expected in found.items():
        assert again[score] == pytest.approx(expected, rel=1e-6)


def test_a_test_set_of_one_class_has_no_covariance(tmp_path):
    images = scored_images()
    study = read_study(write_study(tmp_path, {"droid": 2}, images=images[images["label"] == "real"]))
    assert all(np.isnan(found).all() for found in read_image_covariances(study, "auroc").values())
