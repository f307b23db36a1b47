"""The robustness of a study against scikit-learn and pandas, and the figure against the table."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from benchmarks.made_up_study import scored_images, write_study
from sklearn.metrics import roc_auc_score

from saliency_entropy.scores.corruptions import STRENGTHS
from saliency_entropy.scores.one_pass import CHECKPOINT
from saliency_entropy.study import figures, sections
from saliency_entropy.study.robustness import (
    FILE,
    robustness_figure,
    robustness_table,
    shown_robustness,
)
from saliency_entropy.study.runs import read_study

VARIANTS = [("none", 0.0), *(("jpeg", q) for q in STRENGTHS["jpeg"]), *(("noise", s) for s in STRENGTHS["noise"])]
METHODS = {"cross_entropy": 3, "droid": 2}


def write_corruptions(run, variants=VARIANTS, images=None):
    """Scores that are the worse the stronger a corruption is."""
    images = scored_images() if images is None else images
    random = np.random.default_rng([len(run.method), run.seed])
    parts = []
    for place, (corruption, strength) in enumerate(variants):
        shift = 1.5 * (images["label"] == "synthetic") / (1 + place % 5)
        parts.append(
            images[["path", "label", "generator"]].assign(
                corruption=corruption,
                strength=float(strength),
                logit_real=random.normal(size=len(images)).astype(np.float32),
                logit_synthetic=(random.normal(size=len(images)) + shift).astype(np.float32),
                cam_entropy=random.uniform(1, 3, len(images)).astype(np.float32),
            )
        )
    # Image by image, as a pass leaves them.
    table = pd.concat(parts, ignore_index=True)
    table = table.iloc[np.arange(len(table)).reshape(len(variants), -1).T.ravel()]
    table.astype(dict.fromkeys(("path", "label", "generator", "corruption"), "category")).to_parquet(
        run.folder / "scores" / FILE, index=False
    )


def write(folder, images=None, **options):
    study = read_study(write_study(folder, METHODS, **options))
    for run in study.runs:
        write_corruptions(run, images=images)
    return study


def seeds_of(table):
    return table.numbers.groupby("method")["seeds"].unique().map(list).to_dict()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write(tmp_path_factory.mktemp("robustness") / "study")


@pytest.fixture(scope="module")
def table(study):
    return robustness_table(study)


def expected(study, method, corruption, strength):
    """AUROC, AUROC of unseen generators and mean entropy of each seed."""
    found = []
    for run in study.of_method(method):
        scores = pd.read_parquet(run.folder / "scores" / FILE).astype({"label": "str", "generator": "str"})
        own = scores[(scores["corruption"] == corruption) & (scores["strength"] == strength)]
        unseen = own[(own["label"] == "real") | own["generator"].isin(["progan", "stylegan3"])]
        found.append(
            [
                *(roc_auc_score(part["label"] == "synthetic", part["logit_synthetic"]) for part in (own, unseen)),
                own["cam_entropy"].mean(),
                *(
                    roc_auc_score(
                        part["label"] == "synthetic", part["logit_synthetic"].astype(float) - part["logit_real"]
                    )
                    for part in (own, unseen)
                ),
            ]
        )
    return np.array(found)


def test_every_figure(study, table):
    table = table.numbers
    assert len(table) == len(VARIANTS) * len(METHODS)
    assert list(zip(table["corruption"], table["strength"], strict=True)) == [v for v in VARIANTS for _ in METHODS]
    assert list(table["method"]) == list(METHODS) * len(VARIANTS)
    rows = table.set_index(["method", "corruption", "strength"])
    for method, seeds in METHODS.items():
        clean = expected(study, method, "none", 0.0)
        for corruption, strength in VARIANTS:
            own, row = expected(study, method, corruption, strength), rows.loc[(method, corruption, strength)]
            changes = own - clean
            assert (row["seeds"], row["images"]) == (seeds, 260)
            for name, values in (
                ("auroc", own[:, 0]), ("auroc_unseen", own[:, 1]), ("cam_entropy", own[:, 2]),
                ("auroc_change", changes[:, 0]), ("auroc_unseen_change", changes[:, 1]),
                ("auroc_margin", own[:, 3]), ("auroc_unseen_margin", own[:, 4]),
                ("auroc_unseen_margin_change", changes[:, 4]),
            ):  # fmt: skip
                assert row[f"{name}_mean"] == pytest.approx(values.mean(), abs=1e-6)
                assert row[f"{name}_std"] == pytest.approx(values.std(ddof=1), abs=1e-6)


def test_the_table_as_shown(table):
    shown = shown_robustness(table).cells
    assert list(shown) == ["Corruption", "Strength", "Ranked by", "Cross-entropy", "DROID"]
    assert shown["Ranked by"].tolist() == ["logit 1", "margin"] * 9
    assert shown["Corruption"].tolist()[::2] == ["As they are", *["JPEG compression"] * 4, *["Gaussian noise"] * 4]
    assert shown["Strength"].tolist()[::2] == [
        "", "quality 90", "quality 70", "quality 50", "quality 30",
        "8 grey levels", "11 grey levels", "18 grey levels", "26 grey levels",
    ]  # fmt: skip
    row = table.numbers.set_index(["corruption", "strength", "method"]).loc[("jpeg", 50, "droid")]
    for place, name in ((6, "auroc_unseen"), (7, "auroc_unseen_margin")):
        assert shown.loc[place, "DROID"] == f"{row[f'{name}_mean']:.3f} ± {row[f'{name}_std']:.3f}"


def test_a_study_without_such_scores(tmp_path):
    assert robustness_table(read_study(write_study(tmp_path / "study", METHODS))) is None


def test_runs_without_such_scores_are_named(tmp_path):
    study = write(tmp_path / "study")
    for run in study.of_method("cross_entropy")[1:]:
        (run.folder / "scores" / FILE).unlink()
    table = robustness_table(study)
    assert seeds_of(table) == {"cross_entropy": [1], "droid": [2]}
    assert table.numbers.loc[table.numbers["method"] == "cross_entropy", "auroc_std"].isna().all()
    notes = shown_robustness(table).notes
    assert any("Left out, " in note and "cross_entropy/seed1, cross_entropy/seed2;" in note for note in notes)
    # A line without a band.
    robustness_figure(table)


def test_scores_of_an_earlier_checkpoint_are_named_and_left_out(tmp_path):
    study = write(tmp_path / "study")
    for run, digest in zip(study.of_method("cross_entropy"), ("new", "old"), strict=False):
        path = run.folder / "scores" / FILE
        scores = pq.read_table(path)
        pq.write_table(scores.replace_schema_metadata({**scores.schema.metadata, CHECKPOINT: digest.encode()}), path)
        run.result["checkpoint"] = "new"
    table = robustness_table(study)
    assert seeds_of(table) == {"cross_entropy": [2], "droid": [2]}
    left_out = [note for note in shown_robustness(table).notes if note.startswith("Left out")]
    assert left_out == [
        "Left out, since they were trained again after these scores were made: cross_entropy/seed1; "
        "python experiments/evaluate.py with corruptions=all and overwrite=true scores them."
    ]


def test_notes(table):
    notes = shown_robustness(table).notes
    assert notes[0].startswith("AUROC of the same 260 test images, as they are and corrupted, synthetic ones of gen")
    assert not any("Left out" in note or "not finite" in note for note in notes)


def test_all_generators_in_training(tmp_path):
    """Then the AUROC of all generators is shown."""
    names = ["progan", "stylegan2", "stylegan3"]
    study = write(tmp_path / "study", result={"train_generators": names})
    table = robustness_table(study)
    assert table.numbers["auroc_unseen_mean"].isna().all()
    shown = shown_robustness(table).cells
    assert shown.loc[0, "DROID"].startswith(f"{table.numbers.loc[1, 'auroc_mean']:.3f} ±")
    assert "unseen" not in shown_robustness(table).notes[0]
    caption = sections._robustness_figures(table)[0].caption
    assert caption.startswith("AUROC of the test images as they are and at rising strengths")
    assert robustness_figure(table).get_supylabel() == "Test AUROC, all generators, by logit 1"


def test_scores_that_are_not_finite(tmp_path):
    study = write(tmp_path / "study")
    path = study.runs[0].folder / "scores" / FILE
    scores = pd.read_parquet(path)
    scores.loc[(scores["strength"] == 26) & (scores.index < 200), "logit_synthetic"] = np.nan
    scores.to_parquet(path)
    table = robustness_table(study)
    broken = table.numbers[table.numbers["auroc_mean"].isna()]
    assert broken[["corruption", "strength", "method"]].to_numpy().tolist() == [["noise", 26.0, "cross_entropy"]]
    assert "–" in shown_robustness(table).cells["Cross-entropy"].iloc[-1]
    assert shown_robustness(table).notes[-1] == f"“–” where scores are not finite, those of {study.runs[0].name}."
    robustness_figure(table)


@pytest.mark.parametrize("difference", ["images", "variants"])
def test_runs_of_different_images_or_corruptions(tmp_path, difference):
    study = write(tmp_path / "study")
    other = scored_images()
    other.loc[3, "path"] = "another.png"
    options = {"images": other} if difference == "images" else {"variants": VARIANTS[:5]}
    write_corruptions(study.runs[1], **options)
    table = robustness_table(study)
    assert seeds_of(table) == {"cross_entropy": [2], "droid": [2]}
    assert (
        "Left out, since they were scored on other images or corruptions than cross_entropy/seed0: "
        "cross_entropy/seed1; python experiments/evaluate.py with corruptions=all and overwrite=true makes them alike."
    ) in shown_robustness(table).notes


@pytest.mark.parametrize("content", ["not parquet", "other columns", "no image as it is"])
def test_a_damaged_file(tmp_path, content):
    study = write(tmp_path / "study")
    path = study.runs[1].folder / "scores" / FILE
    if content == "not parquet":
        path.write_bytes(b"PAR1 ... PAR1")
    elif content == "other columns":
        pd.DataFrame({"path": ["a"]}).to_parquet(path)
    else:
        write_corruptions(study.runs[1], variants=VARIANTS[1:])
    table = robustness_table(study)
    assert seeds_of(table) == {"cross_entropy": [2], "droid": [2]}
    (note,) = [note for note in shown_robustness(table).notes if note.startswith("Left out")]
    assert note.startswith(
        "Left out, since their scores/test+corruptions.parquet cannot be used: cross_entropy/seed1 ("
    )
    assert note.endswith("; python experiments/evaluate.py with corruptions=all and overwrite=true makes them again.")
    assert str(tmp_path) not in note


def test_a_study_of_damaged_files_alone_has_the_notes_alone(tmp_path):
    study = write(tmp_path / "study")
    for run in study.runs:
        (run.folder / "scores" / FILE).write_bytes(b"PAR1 ... PAR1")
    table = robustness_table(study)
    assert not table.has_auroc
    assert shown_robustness(table).cells.empty
    assert [note.split(":")[0] for note in shown_robustness(table).notes] == [
        "Left out, since their scores/test+corruptions.parquet cannot be used"
    ]


@pytest.mark.parametrize(
    ("images", "of"),
    [
        (scored_images(real=28), "120 synthetic images by unseen generators and 28 real ones"),
        (scored_images(per_generator=14), "28 synthetic images by unseen generators and 80 real ones"),
        (scored_images(real=0), None),
    ],
    ids=["real", "unseen", "one class"],
)
def test_few_images_have_no_auroc(tmp_path, images, of):
    study = write(tmp_path / "study", images=images)
    table = robustness_table(study)
    assert table.measure == "auroc_unseen"
    assert table.numbers["auroc_unseen_mean"].isna().all()
    assert table.numbers["cam_entropy_mean"].notna().all()
    assert not table.has_auroc
    assert (shown_robustness(table).cells[["Cross-entropy", "DROID"]] == "–").all(axis=None)
    expected = (
        f"“–”: an AUROC of {of} would say little, with fewer than 30 of either; python experiments/evaluate.py "
        "with a larger corruption_images=, or null, scores more, if there are any."
        if of
        else "“–”: the images are all real or all synthetic."
    )
    assert shown_robustness(table).notes[-1] == expected


def test_the_caption_says_of_which_images_the_figure_is(table):
    assert sections._robustness_figures(table)[0].caption.startswith(
        "AUROC of the test images, synthetic ones of unseen generators, as they are and at rising strengths"
    )


@pytest.mark.parametrize(("score", "measure"), [("logit", "auroc_unseen"), ("margin", "auroc_unseen_margin")])
def test_the_figure(table, score, measure):
    figure = robustness_figure(table, score)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["JPEG compression", "Gaussian noise"]
    styles, numbers = figures.method_styles(list(METHODS)), table.numbers
    for axes, corruption in zip(panels, ("jpeg", "noise"), strict=True):
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        assert ticks == ["as is", *(f"{strength:g}" for strength in STRENGTHS[corruption])]
        for line, method in zip(axes.lines, METHODS, strict=False):
            own = numbers[(numbers["method"] == method) & numbers["corruption"].isin(["none", corruption])]
            np.testing.assert_allclose(line.get_ydata(), own[f"{measure}_mean"])
            assert (line.get_color(), line.get_marker()) == styles[method]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Cross-entropy", "DROID"]
    assert figures.png(figure).startswith(b"\x89PNG")
    first, second = (figures.pdf(robustness_figure(table)) for _ in range(2))
    assert first.startswith(b"%PDF")
    assert first == second


def test_a_title_is_no_mathematics(tmp_path):
    study = write(tmp_path / "study", title="a $b$ \x1b[2J")
    figure = robustness_figure(robustness_table(study))
    label = figure.legends[0].get_texts()[0].get_text()
    assert label.startswith("a \\$b\\$ ?[2J")
    figures.png(figure)
