"""Further sets of images against scikit-learn, and what is left out of them."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from benchmarks.made_up_study import scored_images, write_study
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score

from saliency_entropy.scores.one_pass import CHECKPOINT
from saliency_entropy.study.other_sets import other_sets_table
from saliency_entropy.study.report import report
from saliency_entropy.study.runs import Run, Study, read_study

METHODS = {"cross_entropy": 2, "droid": 2}


def write_set(run: Run, name: str = "mine", images: pd.DataFrame | None = None) -> Path:
    """Scores that are the test images' ones, turned round."""
    scores = run.test_scores(("path", "label", "generator", "logit_real", "logit_synthetic"))
    scores["logit_synthetic"] *= -1
    path = run.folder / "scores" / f"{name}.parquet"
    (scores if images is None else scores.merge(images[["path"]], on="path")).to_parquet(path, index=False)
    return path


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = read_study(write_study(tmp_path / "study", METHODS))
    for run in study.runs:
        write_set(run)
    return study


def test_every_set_generator_and_method(study: Study) -> None:
    table = other_sets_table(study).numbers.set_index(["generator", "method"])
    assert set(table.index) == {(g, m) for g in ("", "progan", "stylegan2", "stylegan3") for m in METHODS}
    assert set(table["seeds"]) == {2}
    for (generator, method), row in table.iterrows():
        found = []
        for run in study.of_method(method):
            scores = pd.read_parquet(run.folder / "scores" / "mine.parquet")
            own = scores[(scores["label"] == "real") | (generator == "") | (scores["generator"] == generator)]
            margin = own["logit_synthetic"].astype(float) - own["logit_real"].astype(float)
            found.append([roc_auc_score(own["label"] == "synthetic", s) for s in (own["logit_synthetic"], margin)])
            assert (row["synthetic"], row["real"]) == ((own["label"] == "synthetic").sum(), 80)
        names = ["auroc", "auroc_margin"]
        assert list(row[[f"{name}_mean" for name in names]]) == pytest.approx(list(pd.DataFrame(found).mean()))
        assert list(row[[f"{name}_std" for name in names]]) == pytest.approx(list(pd.DataFrame(found).std()), rel=1e-4)
    shown = other_sets_table(study).cells
    assert list(shown["Ranked by"]) == ["logit 1", "margin"] * 4
    assert shown.loc[1, "DROID"].startswith(f"{table.loc[('', 'droid'), 'auroc_margin_mean']:.3f} ±")
    assert other_sets_table(study).notes[1:] == []


def test_a_study_without_further_sets(tmp_path: Path) -> None:
    assert other_sets_table(read_study(write_study(tmp_path, {"droid": 1}))) is None


def test_few_images_have_no_auroc(study: Study) -> None:
    few = scored_images().iloc[::5]  # 12 of each generator, 16 real ones
    for run in study.runs:
        write_set(run, "few", few)
    sets = other_sets_table(study)
    numbers = sets.numbers[sets.numbers["set"] == "few"]
    assert len(numbers) == 4 * len(METHODS)
    assert numbers["auroc_mean"].isna().all()
    assert list(sets.cells.iloc[0]) == ["few", "(all)", "36 + 16", "logit 1", "–", "–"]
    assert "fewer than 30 synthetic or real images" in sets.notes[1]


def test_runs_that_are_left_out_are_named(study: Study) -> None:
    first, second, third, fourth = study.runs
    write_set(first).unlink()
    path = write_set(second)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({CHECKPOINT: b"of an earlier training"}), path)
    second.result["checkpoint"] = "0"
    write_set(third).write_text("PAR1")
    sets = other_sets_table(study)
    assert sets.numbers["method"].unique().tolist() == [fourth.method]
    assert [sentence.split("; ")[0].split(" (")[0] for sentence in sets.notes[1:]] == [
        f"Left out of set mine, since they have no scores/mine.parquet: {first.name}",
        f"Left out of set mine, since they were trained again after these scores were made: {second.name}",
        f"Left out of set mine, since their scores/mine.parquet cannot be used: {third.name}",
    ]


def test_scores_that_are_not_finite_are_named(study: Study) -> None:
    path = study.runs[0].folder / "scores" / "mine.parquet"
    scores = pd.read_parquet(path)
    scores.loc[scores["generator"] == "progan", "logit_synthetic"] = float("inf")
    scores.to_parquet(path)
    sets = other_sets_table(study)
    numbers = sets.numbers.set_index(["generator", "method"])["auroc_mean"]
    assert numbers[numbers.isna()].index.to_list() == [("", "cross_entropy"), ("progan", "cross_entropy")]
    assert sets.notes[2:] == ["“–” in set mine where scores are not finite, those of cross_entropy/seed0."]


def test_other_images_than_those_of_most(study: Study) -> None:
    write_set(study.runs[0], images=scored_images().iloc[1:])
    sets = other_sets_table(study)
    assert sets.notes[1].startswith(
        f"Left out of set mine, since they were scored on other images than {study.runs[1].name}: cross_entropy/seed0; "
    )
    assert sets.numbers.set_index(["generator", "method"]).at[("", "cross_entropy"), "seeds"] == 1


def test_the_report_has_them(study: Study) -> None:
    report(OmegaConf.create({"study": str(study.folder), "output": None, "gallery_images": 0}))
    page = (study.folder / "report" / "index.html").read_text()
    assert "AUROC on other images" in page
    table = pd.read_csv(study.folder / "report" / "other_sets.csv")
    assert f"{table['auroc_mean'][0]:.3f} ± {table['auroc_std'][0]:.3f}" in page
