"""The figures of the tables against NumPy, SciPy and scikit-learn, and their notes."""

import numpy as np
import pandas as pd
import pytest
from benchmarks.made_up_study import scored_images, write_run, write_study
from scipy import stats
from sklearn.metrics import roc_auc_score

from saliency_entropy.study import tables
from saliency_entropy.study.run_figures import common_mode_ratio
from saliency_entropy.study.runs import read_study

SEEDS = 3


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    images = scored_images()
    images["compare_with"] = images["generator"].map({"progan": "ffhq", "stylegan3": "ffhq+celeba-hq"}).fillna("")
    rare = images.iloc[:29].assign(generator="rare", path=[f"rare/{i}.png" for i in range(29)], compare_with="")
    return read_study(
        write_study(tmp_path_factory.mktemp("study"), images=pd.concat([images, rare], ignore_index=True))
    )


@pytest.fixture(scope="module")
def measures(study):
    return tables.measure(study)


def scores_of(study, method, seed):
    return pd.read_parquet(study.folder / method / f"seed{seed}" / "scores" / "test.parquet")


def shown_methods(measures):
    return tables.shown_methods(tables.by_score(tables.method_table, measures), measures)


def sklearn_auroc(scores, generators=None, sources=None, score=None):
    real = scores["label"] == "real"
    kept = (real & (scores["source"].isin(sources) if sources else True)) | (
        ~real & (scores["generator"].isin(generators) if generators else True)
    )
    score = scores["logit_synthetic"] if score is None else score
    return roc_auc_score(scores["label"][kept] == "synthetic", score[kept])


def test_the_figures_of_each_run(study, measures):
    assert measures.measure == "auroc_unseen"
    assert len(measures.runs) == 18
    for row in measures.runs.to_dict("records"):
        scores = scores_of(study, row["method"], row["seed"])
        softmax = 1 / (1 + np.exp(scores["logit_real"].astype(float) - scores["logit_synthetic"].astype(float)))
        judged = np.where(softmax > 0.5, "synthetic", "real")
        assert row["auroc"] == pytest.approx(sklearn_auroc(scores), abs=1e-6)
        assert row["auroc_unseen"] == pytest.approx(sklearn_auroc(scores, ["progan", "stylegan3", "rare"]), abs=1e-6)
        # The generator with 29 images has no AUROC of its own.
        own = [sklearn_auroc(scores, [generator]) for generator in ("progan", "stylegan3")]
        assert row["auroc_unseen_macro"] == pytest.approx(np.mean(own), abs=1e-6)
        own.append(sklearn_auroc(scores, ["stylegan2"]))
        assert row["auroc_macro"] == pytest.approx(np.mean(own), abs=1e-6)
        # The margin ranks as the softmax does.
        assert row["auroc_margin"] == pytest.approx(sklearn_auroc(scores, score=softmax), abs=1e-6)
        unseen = ["progan", "stylegan3", "rare"]
        assert row["auroc_unseen_margin"] == pytest.approx(sklearn_auroc(scores, unseen, score=softmax), abs=1e-6)
        assert row["accuracy"] == pytest.approx((judged == scores["label"]).mean())
        assert row["cam_entropy"] == pytest.approx(scores["cam_entropy"].astype(float).mean(), abs=1e-5)


def test_the_mean_of_both_logits_over_half_the_margin_by_hand():
    """Means 2, 1, 2 and 1, of variance 1/4; half the margin 2, 1, 0 and -1, of variance 5/4."""
    table = pd.DataFrame({"logit_real": [0.0, 0, 2, 2], "logit_synthetic": [4.0, 2, 2, 0]})
    assert common_mode_ratio(table) == pytest.approx(0.2)
    assert np.isnan(common_mode_ratio(table.assign(logit_synthetic=table["logit_real"])))


def test_the_measures_by_margin_are_those_of_the_margin(study, measures):
    by_margin = measures.by("margin")
    assert by_margin.score == "margin"
    assert by_margin.runs["auroc_unseen"].equals(measures.runs["auroc_unseen_margin"])
    assert by_margin.runs["eer_unseen"].equals(measures.runs["eer_unseen_margin"])
    assert by_margin.generators["auroc"].equals(measures.generators["auroc_margin"])
    assert (measures.runs["auroc"] - by_margin.runs["auroc"]).abs().max() > 0.01
    for column in ("accuracy", "apcer_at_val_eer", "ece", "cam_entropy"):
        assert by_margin.runs[column].equals(measures.runs[column])
    # The area below the mean ROC curve is the mean AUROC, but for the grid.
    area = np.trapezoid(by_margin.roc["droid"].mean(axis=0), tables.FALSE_POSITIVE_RATES)
    own = by_margin.runs.loc[by_margin.runs["method"] == "droid", "auroc_unseen"]
    assert area == pytest.approx(own.mean(), abs=5e-3)


def test_the_table_of_methods(study, measures):
    table = tables.method_table(measures).set_index("method")
    assert list(table.index) == ["cross_entropy", "cyborg", "hseb", "fmmmse", "droid", "droid_cyborg"]
    unseen = {
        method: np.array(
            [sklearn_auroc(scores_of(study, method, seed), ["progan", "stylegan3", "rare"]) for seed in range(SEEDS)]
        )
        for method in table.index
    }
    p = {}
    for method, values in unseen.items():
        row = table.loc[method]
        assert row["seeds"] == SEEDS
        assert row["auroc_unseen_mean"] == pytest.approx(values.mean(), abs=1e-6)
        assert row["auroc_unseen_std"] == pytest.approx(values.std(ddof=1), abs=1e-6)
        areas = [np.exp(scores_of(study, method, seed)["cam_entropy"].astype(float).mean()) for seed in range(SEEDS)]
        assert row["focus_area_mean"] == pytest.approx(np.mean(areas), rel=1e-5)
        assert row["focus_area_std"] == pytest.approx(np.std(areas, ddof=1), rel=1e-4)
        if method == "cross_entropy":
            continue
        differences = values - unseen["cross_entropy"]
        half = stats.t.ppf(0.975, SEEDS - 1) * differences.std(ddof=1) / np.sqrt(SEEDS)
        assert row["difference"] == pytest.approx(differences.mean(), abs=1e-6)
        assert row["difference_low"] == pytest.approx(differences.mean() - half, abs=1e-5)
        assert row["difference_high"] == pytest.approx(differences.mean() + half, abs=1e-5)
        p[method] = stats.ttest_rel(values, unseen["cross_entropy"]).pvalue
        assert row["p"] == pytest.approx(p[method], rel=1e-3)
    for (first, other), family in (("hseb", "fmmmse"), "RQ1–RQ4"), (("cyborg", "droid"), "exploratory"):
        assert list(table.loc[[first, other], "family"]) == [family] * 2
    # Three seeds are too few for a verdict.
    assert set(table["verdict"][1:]) == {"cannot be said"}
    assert table.loc["cross_entropy", ["difference", "p", "p_holm"]].isna().all()


def test_the_table_of_generators(study, measures):
    table = tables.generator_table(measures)
    rows = table[["generator", "seen", "against", "synthetic", "real"]].itertuples(index=False, name=None)
    assert set(rows) == {
        ("progan", "no", "", 60, 80),
        ("progan", "no", "ffhq", 60, 40),
        ("rare", "no", "", 29, 80),
        ("stylegan2", "yes", "", 60, 80),
        ("stylegan3", "no", "", 60, 80),
        ("stylegan3", "no", "celeba-hq+ffhq", 60, 80),
    }
    for against, sources in (("", None), ("ffhq", ["ffhq"])):
        values = [sklearn_auroc(scores_of(study, "droid", seed), ["progan"], sources) for seed in range(SEEDS)]
        keys = ["generator", "against", "method"]
        row = table.set_index(keys).loc[("progan", against, "droid")]
        assert row["auroc_mean"] == pytest.approx(np.mean(values), abs=1e-6)
        assert row["auroc_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    assert table[table["generator"] == "rare"]["auroc_mean"].isna().all()
    shown = tables.shown_generators(table, study.titles).cells
    assert list(shown.loc[shown["Generator"] == "rare", "DROID"]) == ["–"] * 2
    row = table.set_index(["generator", "against", "method"]).loc[("progan", "", "droid")]
    own = shown[(shown["Generator"] == "progan") & (shown["Against real"] == "all")]
    assert list(own["Ranked by"]) == ["logit 1", "margin"]
    assert [cell[:5] for cell in own["DROID"]] == [f"{row['auroc_mean']:.3f}", f"{row['auroc_margin_mean']:.3f}"]
    assert (
        "“–” for rare: fewer than 30 synthetic or real test images."
        in tables.shown_generators(table, study.titles).notes
    )
    assert (
        "Unseen, mean of generators: the mean of these generators’ own AUROCs, however many images each has, without "
        "rare (fewer than 30 synthetic or real images)."
    ) in shown_methods(measures).notes


def test_few_suited_real_images_are_told_from_few_images(tmp_path):
    images = scored_images()
    few = images.index[images["source"] == "ffhq"][:29]
    images.loc[few, "source"] = "rare-source"
    images["compare_with"] = images["generator"].map({"progan": "rare-source"}).fillna("")
    study = read_study(write_study(tmp_path, {"droid": 1}, images=images))
    notes = tables.shown_generators(tables.generator_table(tables.measure(study)), study.titles).notes
    assert "“–” for progan against rare-source: fewer than 30 synthetic or real test images." in notes


def test_methods_whose_manifests_compare_with_other_real_images(tmp_path):
    images = scored_images()
    suited = [images["generator"].map({"progan": source}).fillna("") for source in ("ffhq", "celeba-hq")]
    for seed in range(2):
        write_run(tmp_path, "cross_entropy", seed, images=images.assign(compare_with=suited[0]))
    write_run(tmp_path, "droid", 0, images=images.assign(compare_with=suited[1]))
    study = read_study(tmp_path)
    measures = tables.measure(study)
    assert measures.warnings == [
        "The test images of droid/seed0 have other values in the columns source or compare_with than those of the "
        "other 2 runs: AUROCs of a generator against different real images stand in rows of their own, and are not to "
        "be compared."
    ]
    table = tables.generator_table(measures)
    written = tables.shown_generators(table, study.titles)
    shown = written.cells.set_index(["Ranked by", "Generator", "Against real"]).loc["logit 1"]
    assert shown.loc[("progan", "ffhq"), "DROID"] == shown.loc[("progan", "celeba-hq"), "Cross-entropy"] == "–"
    assert "±" in shown.loc[("progan", "ffhq"), "Cross-entropy"]
    assert "“–” also where a method’s runs were not compared with these real images." in written.notes


def test_with_equal_counts_the_pooled_auroc_is_the_mean_over_generators(tmp_path):
    measures = tables.measure(read_study(write_study(tmp_path, {"droid": 1})))
    own = measures.generators["auroc"]
    assert len(own) == 3
    assert measures.runs["auroc"].iloc[0] == pytest.approx(own.mean(), abs=1e-6)


def test_without_unseen_generators_all_are_compared(tmp_path):
    write_study(tmp_path, {"cross_entropy": 2, "droid": 2})
    trained = ["progan", "stylegan2", "stylegan3"]
    for method in ("cross_entropy", "droid"):
        for seed in (7, 8):
            write_run(tmp_path / "all", method, seed, result={"train_generators": trained})
    measures = tables.measure(read_study(tmp_path / "all"))
    table = tables.by_score(tables.method_table, measures)
    assert measures.measure == "auroc"
    assert table["auroc_unseen_mean"].isna().all()
    assert not table["p"].isna().all()
    assert "AUROC unseen" not in tables.shown_methods(table, measures).cells
    assert any(
        "No test image is known to be by a generator" in note for note in tables.shown_methods(table, measures).notes
    )


def test_one_seed_has_no_spread_and_no_interval(tmp_path):
    measures = tables.measure(read_study(write_study(tmp_path, {"cross_entropy": 1, "droid": 1})))
    table = tables.by_score(tables.method_table, measures)
    assert table[["auroc_std", "p", "p_holm", "difference_low"]].isna().all(axis=None)
    shown = tables.shown_methods(table, measures).cells.set_index(["Method", "Ranked by"]).xs("margin", level=1)
    assert shown.loc["DROID", "95 % interval"] == shown.loc["DROID", "p (Holm)"] == "–"
    assert "±" not in shown.loc["DROID", "AUROC"]
    assert shown.loc["DROID", "Difference"].startswith("+0.")
    assert (
        "“–” for DROID: one seed in common with cross-entropy, so no interval and no p."
        in tables.shown_methods(table, measures).notes
    )


def test_differences_are_over_the_seeds_in_common(tmp_path):
    write_study(tmp_path, {"cross_entropy": 2, "droid": 4})
    write_run(tmp_path, "hseb", 9)
    measures = tables.measure(read_study(tmp_path))
    table = tables.method_table(measures).set_index("method")
    runs = measures.runs.set_index(["method", "seed"])["auroc_unseen"]
    expected = np.mean([runs["droid", seed] - runs["cross_entropy", seed] for seed in (0, 1)])
    assert table.loc["droid", "difference"] == pytest.approx(expected)
    assert list(table["pairs"]) == [0, 0, 2]
    notes = shown_methods(measures).notes
    assert "DROID: the difference is over 2 of its 4 seeds." in notes
    assert "“–” for HSEB: no seed in common with cross-entropy, so no difference." in notes


def test_without_cross_entropy_there_is_no_difference(tmp_path):
    measures = tables.measure(read_study(write_study(tmp_path, {"droid": 2, "hseb": 2})))
    assert tables.method_table(measures)["difference"].isna().all()
    assert "Differences need cross-entropy runs, and this study has none: “–”." in shown_methods(measures).notes


def test_a_constant_score_is_worth_one_half(tmp_path):
    write_study(tmp_path, {"cross_entropy": 2, "droid": 2})
    for method in ("cross_entropy", "droid"):
        for seed in (0, 1):
            path = tmp_path / method / f"seed{seed}" / "scores" / "test.parquet"
            level = {"cross_entropy": 1.0, "droid": 3.0}[method] + seed  # no run is a copy of another
            pd.read_parquet(path).assign(logit_real=level, logit_synthetic=level).to_parquet(path)
    measures = tables.measure(read_study(tmp_path))
    table = tables.method_table(measures)
    assert (table["auroc_mean"] == 0.5).all()
    assert measures.roc["droid"] == pytest.approx(np.tile(tables.FALSE_POSITIVE_RATES, (2, 1)), abs=1e-6)
    assert "“–” for DROID: every seed differs by the same, which allows no t-test." in shown_methods(measures).notes
    # The results were written from other scores.
    assert len(measures.warnings) == 6
    assert measures.warnings[0].startswith(
        "cross_entropy/seed0: scores/test.parquet gives AUROC 0.5000, result.json says"
    )
    assert measures.warnings[4:] == [
        f"Every run: no average precision, EER or true positive rate by {score}, since in scores/test.parquet all "
        "scores are equal."
        for score in ("logit 1", "margin")
    ]


def test_sources_that_no_real_image_has_are_named(tmp_path):
    write_run(tmp_path, "droid", 0, images=scored_images().assign(compare_with="celeba"))
    assert tables.measure(read_study(tmp_path)).warnings == [
        "Column compare_with names celeba, but no real test image has such a source."
    ]


def test_a_test_set_of_one_class_has_no_auroc(tmp_path):
    images = scored_images()
    write_study(tmp_path, {"cross_entropy": 2, "droid": 2}, images=images[images["label"] == "real"])
    measures = tables.measure(read_study(tmp_path))
    assert measures.warnings == [
        f"Every run: no average precision, EER or true positive rate by {score}, since in scores/test.parquet no "
        "image is synthetic."
        for score in ("logit 1", "margin")
    ]
    shown = shown_methods(measures).cells
    assert (shown["AUROC"] == "–").all()


def test_a_relative_of_a_training_generator_is_neither_seen_nor_unseen(tmp_path):
    images = scored_images()
    for seed in range(2):
        write_run(tmp_path, "droid", seed, images=images, result={"relatives": ["stylegan3"]})
    study = read_study(tmp_path)
    measures = tables.measure(study)
    for row in measures.runs.to_dict("records"):
        scores = scores_of(study, "droid", row["seed"])
        assert row["auroc_unseen"] == pytest.approx(sklearn_auroc(scores, ["progan"]), abs=1e-6)
        assert row["auroc"] == pytest.approx(sklearn_auroc(scores), abs=1e-6)
        assert row["test_unseen"] == 60
    seen = tables.generator_table(measures).set_index("generator")["seen"].to_dict()
    assert seen == {"progan": "no", "stylegan2": "yes", "stylegan3": "relative"}
    assert any(
        "not in training, nor relatives of one that is, against" in note for note in shown_methods(measures).notes
    )
    written = tables.shown_generators(tables.generator_table(measures), study.titles)
    assert "Relative: of the family of a generator in training, and so neither seen nor unseen." in written.notes


def test_a_run_whose_column_holds_lists_is_named(tmp_path):
    images = scored_images()
    images["pose"] = np.where(np.arange(len(images)) % 2, "frontal", "turned")
    write_study(tmp_path, {"droid": 2}, images=images)
    path = tmp_path / "droid" / "seed1" / "scores" / "test.parquet"
    pd.read_parquet(path).assign(pose=[[1]] * len(images)).to_parquet(path)
    measures = tables.measure(read_study(tmp_path))
    assert measures.warnings == [
        "droid/seed1: scores/test.parquet has no column of values pose; the tables of these groups are without this "
        "run."
    ]
    assert set(measures.groups.loc[measures.groups["column"] == "pose", "seed"]) == {0}
