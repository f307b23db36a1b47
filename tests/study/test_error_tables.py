"""Operating points, calibration and groups against torchmetrics, NumPy and pandas."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks.made_up_study import scored_images, validation_images, write_run, write_study
from scipy import stats
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_eer,
    binary_sensitivity_at_specificity,
    multiclass_calibration_error,
)

from saliency_entropy.calibration.operating_points import rate_interval
from saliency_entropy.study import error_tables, tables
from saliency_entropy.study.runs import read_study

SEEDS = 2
UNSEEN = ("progan", "stylegan3", "rare")


def further_columns(images):
    """Sex: of both classes, here and there nothing; mask: of one class each; person: an own value each."""
    random = np.random.default_rng(0)
    return images.assign(
        sex=random.choice(["f", "m", ""], len(images)),
        mask=np.where(images["label"] == "real", "none", random.choice(["left", "right"], len(images))),
        person=np.arange(len(images)),
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    images = scored_images(real=1000)
    rare = images.iloc[:29].assign(generator="rare", path=[f"rare/{i}.png" for i in range(29)])
    return read_study(
        write_study(
            tmp_path_factory.mktemp("study"),
            dict.fromkeys(("cross_entropy", "droid"), SEEDS),
            images=further_columns(pd.concat([images, rare], ignore_index=True)),
        )
    )


@pytest.fixture(scope="module")
def measures(study):
    return tables.measure(study)


def scores_of(study, method, seed, split="test"):
    table = pd.read_parquet(study.folder / method / f"seed{seed}" / "scores" / f"{split}.parquet")
    # In float64, as the softmax of float32 logits would tie otherwise.
    return table.assign(difference=table["logit_synthetic"].astype(float) - table["logit_real"].astype(float))


def validation_threshold(study, method, seed, real_share=None):
    """By trying every score: where both errors are equal, or the lowest with no more than this share of errors."""
    val = scores_of(study, method, seed, "val")
    real, synthetic = (val["difference"][val["label"] == label].to_numpy() for label in ("real", "synthetic"))
    tried = np.sort(val["difference"].unique())[::-1]
    false = np.array([(real >= threshold).mean() for threshold in tried])
    missed = np.array([(synthetic < threshold).mean() for threshold in tried])
    if real_share is None:
        return tried[np.argmin(np.abs(false - missed))]
    return tried[false <= real_share + 1e-9].min()


def as_torchmetrics(scores, score="logit"):
    ranks = rankdata(scores[{"logit": "logit_synthetic", "margin": "difference"}[score]], "dense") / len(scores)
    return torch.from_numpy(ranks), torch.tensor((scores["label"] == "synthetic").to_numpy(dtype=int))


@pytest.mark.parametrize("score", ["logit", "margin"])
@pytest.mark.parametrize("which", ["all", "unseen"])
def test_the_figures_of_ranking(study, measures, which, score):
    table = tables.by_score(error_tables.operating_point_table, measures).set_index(["score", "method", "synthetic"])
    for method in study.methods:
        found = {"average_precision": [], "eer": [], "tpr_at_fpr_0.01": []}
        for seed in range(SEEDS):
            scores = scores_of(study, method, seed)
            if which == "unseen":
                scores = scores[(scores["label"] == "real") | scores["generator"].isin(UNSEEN)]
            ranked = as_torchmetrics(scores, score)
            found["average_precision"].append(float(binary_average_precision(*ranked)))
            found["eer"].append(float(binary_eer(*ranked)))
            # Of 1,000 real images, 1 % are 10; half an image more, since torchmetrics compares float32 shares.
            found["tpr_at_fpr_0.01"].append(float(binary_sensitivity_at_specificity(*ranked, 1 - 10.5 / 1000)[0]))
        for name, values in found.items():
            assert table.loc[(score, method, which), f"{name}_mean"] == pytest.approx(np.mean(values), abs=1e-6)
            assert table.loc[(score, method, which), f"{name}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    # A thousandth of 1,000 real images is one of them.
    assert table["tpr_at_fpr_0.001_mean"].isna().all()


def test_the_interval_of_a_rate_is_that_of_scipy(measures):
    """Of whole numbers of images; and between them that of a mean."""
    for errors, images in ((0, 40), (3, 40), (40, 40), (2, 200)):
        expected = stats.binomtest(errors, images).proportion_ci(method="exact")
        assert rate_interval(errors / images, images) == pytest.approx((expected.low, expected.high))
    low, high = rate_interval(2.5 / 40, 40)
    assert rate_interval(2 / 40, 40)[0] < low < rate_interval(3 / 40, 40)[0]
    assert rate_interval(2 / 40, 40)[1] < high < rate_interval(3 / 40, 40)[1]
    assert np.isnan(rate_interval(np.nan, 40)).all()
    row = error_tables.operating_point_table(measures).set_index(["method", "synthetic"]).loc[("droid", "unseen")]
    # 60 images of two generators, 29 of a third; 1,000 real ones.
    assert (row["images"], row["real"], row["apcer_max_images_at_val_eer_mean"]) == (149, 1000, 60)
    for figure, images in (("apcer", 149), ("apcer_max", 60), ("bpcer", 1000)):
        ends = row[f"{figure}_at_val_eer_low"], row[f"{figure}_at_val_eer_high"]
        k = row[f"{figure}_at_val_eer_mean"] * images
        assert ends == pytest.approx(
            (stats.beta.ppf(0.025, k, images - k + 1), stats.beta.isf(0.025, k + 1, images - k))
        )


def test_fewer_than_30_images_have_no_error_rate(tmp_path):
    write_run(tmp_path, "droid", 0, images=scored_images(per_generator=9, real=28))
    row = tables.measure(read_study(tmp_path)).runs.iloc[0]
    assert row[["apcer_at_val_eer", "apcer_at_val_eer_unseen", "apcer_max_at_val_eer", "bpcer_at_val_eer"]].isna().all()


@pytest.mark.parametrize(("name", "rate"), [("val_eer", None), ("val_bpcer_0.01", 0.01)])
@pytest.mark.parametrize("which", ["all", "unseen"])
def test_errors_at_thresholds_of_validation(study, measures, name, rate, which):
    table = error_tables.operating_point_table(measures).set_index(["method", "synthetic"])
    for method in study.methods:
        rows = []
        for seed in range(SEEDS):
            scores, threshold = scores_of(study, method, seed), validation_threshold(study, method, seed, rate)
            synthetic = scores[scores["label"] == "synthetic"]
            if which == "unseen":
                synthetic = synthetic[synthetic["generator"].isin(UNSEEN)]
            missed = synthetic["difference"] < threshold
            rows.append(
                {
                    "apcer": missed.mean(),
                    # The generator with 29 images is not looked at.
                    "apcer_max": missed.groupby(synthetic["generator"]).mean().drop("rare").max(),
                    "bpcer": (scores["difference"][scores["label"] == "real"] >= threshold).mean(),
                }
            )
        for figure, values in pd.DataFrame(rows).items():
            assert table.loc[(method, which), f"{figure}_at_{name}_mean"] == pytest.approx(values.mean())
            assert table.loc[(method, which), f"{figure}_at_{name}_std"] == pytest.approx(values.std())


def shown_both(measures):
    table = tables.by_score(error_tables.operating_point_table, measures)
    written = error_tables.shown_operating_points(table, measures), error_tables.shown_error_rates(table, measures)
    return table, *written


def test_the_operating_points_as_shown(measures):
    table, ranking, errors = shown_both(measures)
    shown = ranking.cells
    assert list(shown["Method"]) == ["Cross-entropy"] * 4 + ["DROID"] * 4
    assert list(shown["Synthetic images"]) == ["all", "all", "unseen generators", "unseen generators"] * 2
    assert list(shown["Ranked by"]) == ["logit 1", "margin"] * 4
    assert shown.loc[7, "EER"] == f"{table.loc[7, 'eer_mean']:.3f} ± {table.loc[7, 'eer_std']:.3f}"
    # 209 synthetic images, 149 of unseen generators, and 1,000 real ones.
    assert list(shown["AP by chance"])[:4] == [f"{209 / 1209:.3f}"] * 2 + [f"{149 / 1149:.3f}"] * 2
    ends = table.loc[7, ["tpr_at_fpr_0.01_low", "tpr_at_fpr_0.01_high"]]
    assert shown.loc[7, "95 %, 1 % FPR"] == f"{ends.iloc[0]:.3f} to {ends.iloc[1]:.3f}"
    assert (shown["TPR at 0.1 % FPR"] == "–").all()
    assert ranking.notes[1:] == [
        "“–” for TPR at 0.1 % FPR: for 10 real images beyond the threshold it needs 10,000 of them, and the test "
        "set has 1,000.",
    ]
    # The errors are judged by the margin, whatever ranks: a row for each set.
    assert list(errors.cells["Method"]) == ["Cross-entropy", "Cross-entropy", "DROID", "DROID"]
    assert list(errors.cells["Images"]) == ["209 + 1,000", "149 + 1,000"] * 2
    low, high = table.loc[6, ["bpcer_at_val_eer_low", "bpcer_at_val_eer_high"]]
    assert errors.cells.loc[3, "95 %, BPCER"] == f"{low:.3f} to {high:.3f}"
    assert errors.notes[1:] == [
        "Not considered for the worst generator, with fewer than 30 images: rare.",
        "No threshold of BPCER = 0.1 %: 0.1 % of real images needs 1,000 of them, and the validation set has 100.",
    ]


def test_a_run_without_validation_scores_does_not_make_the_validation_set_empty(measures):
    runs = measures.runs.copy()
    runs.loc[0, "val_real"] = 0
    one, none = (replace(measures, runs=table) for table in (runs, runs.assign(val_real=0)))
    notes = shown_both(measures)[2].notes
    assert shown_both(one)[2].notes == notes
    assert shown_both(none)[2].notes == notes[:-1]


def test_calibration(study, measures):
    table = error_tables.calibration_table(measures).set_index("method")
    for method in study.methods:
        own = measures.runs[measures.runs["method"] == method].set_index("seed")
        for seed in range(SEEDS):
            scores, val = (scores_of(study, method, seed, split) for split in ("test", "val"))
            logits = torch.tensor(scores[["logit_real", "logit_synthetic"]].to_numpy(dtype=float))
            labels = torch.tensor((scores["label"] == "synthetic").to_numpy(dtype=int))
            # By trying temperatures.
            margins = val["difference"] * np.where(val["label"] == "synthetic", 1, -1)
            tried = np.geomspace(0.2, 50, 5001)
            best = tried[np.argmin([np.logaddexp(0, -margins / temperature).mean() for temperature in tried])]
            assert own.loc[seed, "temperature"] == pytest.approx(best, rel=2e-3)
            for name, temperature in (("ece", 1), ("ece_scaled", own.loc[seed, "temperature"])):
                expected = multiclass_calibration_error((logits / temperature).softmax(1), labels, 2, n_bins=15)
                assert own.loc[seed, name] == pytest.approx(float(expected), abs=1e-6)
        assert table.loc[method, "ece_scaled_mean"] == pytest.approx(own["ece_scaled"].mean())
        assert table.loc[method, "temperature_std"] == pytest.approx(own["temperature"].std())
    # Perfectly calibrated: of each image, whether it is right is drawn with its own confidence.
    random, scores = np.random.default_rng(0), scores_of(study, "droid", 0)
    confidence = 1 / (1 + np.exp(-np.abs(scores["difference"].to_numpy())))
    drawn = [
        multiclass_calibration_error(
            torch.tensor(np.column_stack([1 - confidence, confidence])),
            torch.tensor((random.uniform(size=len(scores)) < confidence).astype(int)),
            2,
            n_bins=15,
        )
        for _ in range(300)
    ]
    own = measures.runs.set_index(["method", "seed"]).loc[("droid", 0)]
    assert own["ece_floor"] == pytest.approx(np.mean(drawn), rel=0.05)
    shown = error_tables.shown_calibration(error_tables.calibration_table(measures))
    assert shown.cells.loc[1, "ECE if perfect"].startswith(f"{table.loc['droid', 'ece_floor_mean']:.3f} ±")
    assert shown.cells.loc[1, "Temperature"] == (
        f"{table.loc['droid', 'temperature_mean']:.2f} ± {table.loc['droid', 'temperature_std']:.2f}"
    )
    assert len(shown.notes) == 2


def test_groups(study, measures):
    table = error_tables.group_table(measures)
    droid = table[table["method"] == "droid"].set_index(["column", "group"])
    scores = [scores_of(study, "droid", seed) for seed in range(SEEDS)]
    thresholds = [validation_threshold(study, "droid", seed) for seed in range(SEEDS)]
    synthetic = scores[0]["label"] == "synthetic"

    def expected(members, compared):
        """AUROC, APCER and BPCER; members and those compared with them are masks."""
        area = np.mean([roc_auc_score(synthetic[compared], own["logit_synthetic"][compared]) for own in scores])
        pairs = list(zip(scores, thresholds, strict=True))
        missed = np.mean([(own["difference"] < limit)[members & synthetic].mean() for own, limit in pairs])
        false = np.mean([(own["difference"] >= limit)[members & ~synthetic].mean() for own, limit in pairs])
        return [area, missed, false]

    figures = ["auroc_mean", "apcer_mean", "bpcer_mean"]
    everything = np.ones(len(synthetic), dtype=bool)
    assert list(droid.loc[("", "(all images)"), figures]) == pytest.approx(expected(everything, everything))
    for sex in ("f", "m"):
        members = scores[0]["sex"] == sex
        assert list(droid.loc[("sex", sex), figures]) == pytest.approx(expected(members, members))
        assert droid.loc[("sex", sex), "against"] == ""
    for column, group, against in (
        ("generator", "progan", "all real"),
        ("mask", "left", "all real"),
        ("mask", "none", "all synthetic"),
        ("source", "ffhq", "all synthetic"),
    ):
        members = scores[0][column] == group
        compared = members | (~synthetic if against == "all real" else synthetic)
        assert list(droid.loc[(column, group), figures]) == pytest.approx(expected(members, compared), nan_ok=True)
        assert droid.loc[(column, group), "against"] == against
    own = [roc_auc_score(synthetic[sex], one["logit_synthetic"][sex])
           for one in scores for sex in (one["sex"] == "f", one["sex"] == "m")]  # fmt: skip
    assert droid.loc[("sex", "(mean of the groups)"), "auroc_mean"] == pytest.approx(np.mean(own))
    generators = [droid.loc[("generator", name), "apcer_mean"] for name in ("progan", "stylegan2", "stylegan3")]
    assert droid.loc[("generator", "(mean of the groups)"), "apcer_mean"] == pytest.approx(np.mean(generators))
    assert droid.loc[("generator", "rare"), figures].isna().all()
    assert list(droid.index.unique("column")) == ["", "generator", "source", "sex", "mask"]


def test_the_groups_as_shown(study, measures):
    table = error_tables.group_table(measures)
    written = error_tables.shown_groups(table, measures, study.titles)
    shown = written.cells
    assert list(shown)[:4] == ["Group", "Column", "Images", "Figure"]
    shown = shown.set_index(["Column", "Group", "Figure"])
    # The AUROC of a generator is in a table of its own; a group of one class has no error of the other.
    assert ("generator", "progan", "AUROC, margin") not in shown.index
    assert ("generator", "progan", "BPCER") not in shown.index
    assert ("generator", "(mean of the groups)", "AUROC, logit 1") in shown.index
    row = table.set_index(["column", "group", "method"]).loc[("sex", "f", "droid")]
    for score, name in (("logit 1", "auroc"), ("margin", "auroc_margin")):
        cell = f"{row[f'{name}_mean']:.3f} ± {row[f'{name}_std']:.3f}"
        assert shown.loc[("sex", "f", f"AUROC, {score}"), "DROID"] == cell
    assert ("source", "ffhq", "APCER") not in shown.index
    assert ("source", "(mean of the groups)", "APCER") not in shown.index
    row = table.set_index(["column", "group", "method"]).loc[("source", "ffhq", "droid")]
    assert shown.loc[("source", "ffhq", "BPCER"), "DROID"] == f"{row['bpcer_mean']:.3f} ± {row['bpcer_std']:.3f}"
    assert shown.loc[("source", "ffhq", "BPCER"), "Images"] == "500 real"
    assert shown.loc[("generator", "rare", "APCER"), "DROID"] == "–"
    assert written.notes[1:] == [
        "“–” for rare: fewer than 30 synthetic or real images.",
        "Images with nothing in a column are in none of its groups.",
        "Not grouped by person: more than 20 different values in the test images.",
    ]


def test_a_column_that_some_runs_lack_is_named(tmp_path):
    write_run(tmp_path, "cross_entropy", 0, images=scored_images().assign(pose=["a", "b"] * 130))
    write_run(tmp_path, "droid", 0)
    study = read_study(tmp_path)
    measures = tables.measure(study)
    table = error_tables.group_table(measures)
    written = error_tables.shown_groups(table, measures, study.titles)
    shown = written.cells.set_index(["Column", "Group", "Figure"])
    assert shown.loc[("pose", "a", "APCER"), "DROID"] == "–"
    assert shown.loc[("pose", "a", "APCER"), "Cross-entropy"].startswith("0.")
    assert "Not all runs have these columns, or the same values in them: pose." in written.notes


def test_one_group_alone_has_no_mean_of_groups(tmp_path):
    """Of the people from b, too few are real for an AUROC or BPCER."""
    images = scored_images()
    images["country"] = np.where((images["label"] == "real") | (images.index % 2 == 0), "a", "b")
    images.loc[images[images["label"] == "real"].index[:29], "country"] = "b"
    write_run(tmp_path, "droid", 0, images=images)
    measures = tables.measure(read_study(tmp_path))
    row = error_tables.group_table(measures).set_index(["column", "group"]).loc[("country", "(mean of the groups)")]
    assert np.isnan(row["auroc_mean"])
    assert np.isnan(row["bpcer_mean"])
    own = measures.groups.set_index(["column", "group"]).loc["country"]
    assert row["apcer_mean"] == pytest.approx(own["apcer"].mean())
    assert list(own["bpcer"].isna()) == [False, True]


def test_groups_of_numbers(tmp_path):
    """20 and 30 years; those without an age make the column one of floats."""
    write_run(tmp_path, "droid", 0, images=scored_images().assign(age=[20, 30, np.nan, 30] * 65))
    measures = tables.measure(read_study(tmp_path))
    own = measures.groups[measures.groups["column"] == "age"]
    assert list(own["group"]) == ["20", "30"]
    assert list(own["synthetic"] + own["real"]) == [65, 130]


def test_numbers_that_differ_are_different_groups(tmp_path):
    """However long they are, and whether or not those without one make the column one of floats."""
    images = scored_images().assign(camera=[1000001, 1000002, np.nan, 1000002] * 65, gain=[0.1234567, 0.1234568] * 130)
    write_run(tmp_path, "droid", 0, images=images)
    groups = tables.measure(read_study(tmp_path)).groups.set_index("column")["group"]
    assert list(groups["camera"]) == ["1000001", "1000002"]
    assert list(groups["gain"]) == ["0.1234567", "0.1234568"]


def change_val(folder, **columns):
    path = folder / "scores" / "val.parquet"
    pd.read_parquet(path).assign(**columns).to_parquet(path)


NOTHING_FIXED = "no threshold or temperature can be fixed on validation, since"


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: (folder / "scores" / "val.parquet").unlink(),
         f"{NOTHING_FIXED} scores/val.parquet does not exist."),
        (lambda folder: change_val(folder, label="synthetic"),
         f"{NOTHING_FIXED} in scores/val.parquet no image is real."),
        (lambda folder: change_val(folder, label="real"),
         f"{NOTHING_FIXED} in scores/val.parquet no image is synthetic."),
        (lambda folder: change_val(folder, logit_real=1.0, logit_synthetic=2.0),
         f"{NOTHING_FIXED} in scores/val.parquet all scores are equal."),
        (lambda folder: change_val(folder, logit_real=[np.nan] * 3 + [np.inf] + [0.0] * 196),
         f"{NOTHING_FIXED} in scores/val.parquet 4 of 200 scores are not finite."),
    ],
    ids=["missing", "no real", "no synthetic", "constant", "not finite"],
)  # fmt: skip
def test_what_validation_does_not_allow_is_named_and_not_averaged(tmp_path, spoil, problem):
    write_study(tmp_path, {"cross_entropy": 2, "droid": 2})
    spoil(tmp_path / "droid" / "seed1")
    study = read_study(tmp_path)
    measures = tables.measure(study)
    assert measures.warnings == [f"droid/seed1: {problem}"]
    written = shown_both(measures)
    points = error_tables.operating_point_table(measures).set_index(["method", "synthetic"])
    for figure in ("apcer", "apcer_max", "bpcer"):
        assert points[f"{figure}_at_val_eer_mean"].isna().to_dict() == {
            ("cross_entropy", "all"): False,
            ("cross_entropy", "unseen"): False,
            ("droid", "all"): True,
            ("droid", "unseen"): True,
        }
    # What does not come from validation is there.
    assert points[["average_precision_mean", "eer_mean"]].notna().all(axis=None)
    calibration = error_tables.calibration_table(measures).set_index("method")
    assert calibration.loc["droid", ["temperature_mean", "ece_scaled_mean"]].isna().all()
    assert not np.isnan(calibration.loc["droid", "ece_mean"])
    groups = error_tables.group_table(measures)
    missing = "“–”: the scores of at least one run do not allow the figure; the warnings say why."
    by_group = error_tables.shown_groups(groups, measures, study.titles)
    for table in (written[2], error_tables.shown_calibration(calibration.reset_index()), by_group):
        assert table.notes[-1] == missing
    assert missing not in written[1].notes
    shown = by_group.cells.set_index(["Column", "Group", "Figure"])
    assert shown.loc[("source", "ffhq", "BPCER"), "DROID"] == "–"


def test_a_validation_split_that_is_judged_without_error_has_thresholds_but_no_temperature(tmp_path):
    folder = write_run(tmp_path, "droid", 0)
    change_val(folder, logit_real=0.0, logit_synthetic=[1.0] * 100 + [-1.0] * 100)
    measures = tables.measure(read_study(tmp_path))
    assert measures.warnings == [
        "droid/seed0: no temperature fits scores/val.parquet best: the logits of no image point to the wrong class, so "
        "that a lower one always fits better."
    ]
    assert measures.runs["apcer_at_val_eer"].notna().all()
    change_val(folder, logit_synthetic=[-1.0] * 100 + [1.0] * 100)
    assert "wrong class on average, so that a higher" in tables.measure(read_study(tmp_path)).warnings[0]


def test_a_problem_of_many_runs_is_one_sentence(tmp_path):
    write_study(tmp_path, {"cross_entropy": 1, "droid": 5})
    for seed in range(5):
        (tmp_path / "droid" / f"seed{seed}" / "scores" / "val.parquet").unlink()
    assert tables.measure(read_study(tmp_path)).warnings == [
        f"droid/seed0, droid/seed1, droid/seed2 and 2 more: {NOTHING_FIXED} scores/val.parquet does not exist."
    ]


@pytest.mark.parametrize("label", ["real", "synthetic"])
def test_a_test_set_of_one_class_has_the_errors_of_that_class(tmp_path, label):
    images = scored_images()
    study = read_study(write_study(tmp_path, {"droid": 2}, images=images[images["label"] == label]))
    measures = tables.measure(study)
    assert len(measures.warnings) == 2  # by either score
    points = error_tables.operating_point_table(measures)
    assert points[["average_precision_mean", "eer_mean", "tpr_at_fpr_0.01_mean"]].isna().all(axis=None)
    assert points["bpcer_at_val_eer_mean"].notna().all() == (label == "real")
    assert points["apcer_at_val_eer_mean"].notna().all() == (label == "synthetic")
    shown = error_tables.shown_groups(error_tables.group_table(measures), measures, study.titles).cells
    assert set(shown["Figure"]) >= {"BPCER" if label == "real" else "APCER"}


def test_enough_images_for_every_rate(tmp_path):
    write_run(
        tmp_path,
        "droid",
        0,
        images=scored_images(per_generator=30, real=10_000),
        val_images=validation_images(50, 1000),
    )
    measures = tables.measure(read_study(tmp_path))
    table = error_tables.operating_point_table(measures)
    assert table.filter(regex="_mean$").notna().all(axis=None)
    assert measures.runs["bpcer_at_val_bpcer_0.001"].iloc[0] < 0.02
    assert [len(written.notes) for written in shown_both(measures)[1:]] == [1, 1]
