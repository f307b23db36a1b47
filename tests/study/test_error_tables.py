"""Operating points, calibration and groups against torchmetrics, NumPy and pandas."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks.made_up_study import scored_images, validation_images, write_run, write_study
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_eer,
    binary_sensitivity_at_specificity,
    multiclass_calibration_error,
)

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
    images = scored_images(real=240)
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


def as_torchmetrics(scores):
    ranks = rankdata(scores["logit_synthetic"], "dense") / len(scores)
    return torch.from_numpy(ranks), torch.tensor((scores["label"] == "synthetic").to_numpy(dtype=int))


@pytest.mark.parametrize("which", ["all", "unseen"])
def test_the_figures_of_ranking(study, measures, which):
    table = error_tables.operating_point_table(measures).set_index(["method", "synthetic"])
    for method in study.methods:
        found = {"average_precision": [], "eer": [], "tpr_at_fpr_0.01": []}
        for seed in range(SEEDS):
            scores = scores_of(study, method, seed)
            if which == "unseen":
                scores = scores[(scores["label"] == "real") | scores["generator"].isin(UNSEEN)]
            ranked = as_torchmetrics(scores)
            found["average_precision"].append(float(binary_average_precision(*ranked)))
            found["eer"].append(float(binary_eer(*ranked)))
            # Of 240 real images, 1 % are 2.4.
            found["tpr_at_fpr_0.01"].append(float(binary_sensitivity_at_specificity(*ranked, 1 - 2.4 / 240)[0]))
        for name, values in found.items():
            assert table.loc[(method, which), f"{name}_mean"] == pytest.approx(np.mean(values), abs=1e-6)
            assert table.loc[(method, which), f"{name}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    # 240 real images are too few for a thousandth.
    assert table["tpr_at_fpr_0.001_mean"].isna().all()


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


def test_the_operating_points_as_shown(measures):
    table = error_tables.operating_point_table(measures)
    written = error_tables.shown_operating_points(table, measures)
    shown = written.cells
    assert list(shown["Method"]) == ["Cross-entropy", "Cross-entropy", "DROID", "DROID"]
    assert list(shown["Synthetic images"]) == ["all", "unseen generators"] * 2
    assert shown.loc[3, "EER"] == f"{table.loc[3, 'eer_mean']:.3f} ± {table.loc[3, 'eer_std']:.3f}"
    assert (shown["TPR at 0.1 % FPR"] == "–").all()
    assert written.notes[2:] == [
        "Not considered for the worst generator, with fewer than 30 images: rare.",
        "“–” for TPR at 0.1 % FPR: 0.1 % of real images needs 1,000 of them, and the test set has 240.",
        "No threshold of BPCER = 0.1 %: 0.1 % of real images needs 1,000 of them, and the validation set has 100.",
    ]
    # 209 synthetic images and 240 real ones.
    assert "chance reaches 0.465." in written.notes[0]


def test_a_run_without_validation_scores_does_not_make_the_validation_set_empty(measures):
    table = error_tables.operating_point_table(measures)
    runs = measures.runs.copy()
    runs.loc[0, "val_real"] = 0
    one, none = (replace(measures, runs=table) for table in (runs, runs.assign(val_real=0)))
    notes = error_tables.shown_operating_points(table, measures).notes
    assert error_tables.shown_operating_points(table, one).notes == notes
    assert error_tables.shown_operating_points(table, none).notes == notes[:-1]


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
    shown = error_tables.shown_calibration(error_tables.calibration_table(measures))
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
    assert ("generator", "progan", "AUROC") not in shown.index
    assert ("generator", "progan", "BPCER") not in shown.index
    assert ("generator", "(mean of the groups)", "AUROC") in shown.index
    assert ("source", "ffhq", "APCER") not in shown.index
    assert ("source", "(mean of the groups)", "APCER") not in shown.index
    row = table.set_index(["column", "group", "method"]).loc[("source", "ffhq", "droid")]
    assert shown.loc[("source", "ffhq", "BPCER"), "DROID"] == f"{row['bpcer_mean']:.3f} ± {row['bpcer_std']:.3f}"
    assert shown.loc[("source", "ffhq", "BPCER"), "Images"] == "120 real"
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
    written = error_tables.shown_groups(groups, measures, study.titles)
    for table in (
        error_tables.shown_operating_points(points.reset_index(), measures),
        error_tables.shown_calibration(calibration.reset_index()),
        written,
    ):
        assert table.notes[-1] == missing
    shown = written.cells.set_index(["Column", "Group", "Figure"])
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
    assert len(measures.warnings) == 1
    points = error_tables.operating_point_table(measures)
    assert points[["average_precision_mean", "eer_mean", "tpr_at_fpr_0.01_mean"]].isna().all(axis=None)
    assert points["bpcer_at_val_eer_mean"].notna().all() == (label == "real")
    assert points["apcer_at_val_eer_mean"].notna().all() == (label == "synthetic")
    shown = error_tables.shown_groups(error_tables.group_table(measures), measures, study.titles).cells
    assert set(shown["Figure"]) >= {"BPCER" if label == "real" else "APCER"}


def test_enough_images_for_every_rate(tmp_path):
    write_run(
        tmp_path, "droid", 0, images=scored_images(per_generator=30, real=1000), val_images=validation_images(50, 1000)
    )
    measures = tables.measure(read_study(tmp_path))
    table = error_tables.operating_point_table(measures)
    assert table.filter(regex="_mean$").notna().all(axis=None)
    assert measures.runs["bpcer_at_val_bpcer_0.001"].iloc[0] < 0.02
    assert len(error_tables.shown_operating_points(table, measures).notes) == 2
