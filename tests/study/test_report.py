"""The headline, the page and the files of a report."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks.made_up_study import scored_images, write_maps, write_run, write_study
from omegaconf import OmegaConf

from saliency_entropy.errors import UserError
from saliency_entropy.page.table import ShownTable
from saliency_entropy.scores.corruptions import STRENGTHS
from saliency_entropy.study import reproduction
from saliency_entropy.study.contrasts import verdict
from saliency_entropy.study.report import _ranges, all_warnings, by_reason, headline, how_it_was_made, printed, report
from saliency_entropy.study.runs import LeftOut, read_study
from saliency_entropy.study.sections import CHAPTERS, chapters
from saliency_entropy.study.tables import measure

TABLES = [
    "calibration", "comparisons", "error_rates", "generators", "groups", "methods",
    "operating_points", "spread",
]  # fmt: skip
FILES = sorted(
    [f"{name}.{kind}" for name in TABLES for kind in ("csv", "md", "tex")] + ["index.html", "questions.md", "runs.csv"]
)
FIGURES = [
    "auroc_against_cam_entropy", "auroc_by_method", "cam_entropy_by_epoch", "common_mode", "performance_profile", "roc",
]  # fmt: skip
NAN = float("nan")


def write_report(study, output=None, gallery_images=48):
    output = None if output is None else str(output)
    report(OmegaConf.create({"study": str(study), "output": output, "gallery_images": gallery_images}))
    return Path(output or study / "report")


def methods(*rows, margin=()):
    """The mean AUROC of each method by logit 1, and by ``margin`` if it is another."""
    names = ["method", "title", "seeds", "auroc_unseen_mean"]
    table = pd.DataFrame([dict(zip(names, row, strict=True)) for row in rows])
    other = table.assign(auroc_unseen_mean=list(margin) or table["auroc_unseen_mean"])
    return pd.concat([table.assign(score="logit"), other.assign(score="margin")])


def compared(*figures, seeds=5, both_low=0.01, margin=None):
    """DROID against cross-entropy: the number of pairs, the difference, its interval, p, and that over images; by both
    scores, or by ``margin`` other ones."""
    names = ("pairs", "difference", "low", "high", "p_holm")
    rows = []
    for score, own in (("logit", figures), ("margin", figures if margin is None else margin)):
        row = {"method": "droid", "title": "DROID", "against": "cross_entropy", "against_title": "Cross-entropy"}
        row |= {"seeds": seeds, "seeds_against": 5, "both_low": both_low, "both_high": 0.4, "family": "exploratory"}
        row |= dict(zip(names, own, strict=True)) | {"score": score, "detectable": 0.25}
        rows.append(row | {"verdict": verdict(row)})
    return pd.DataFrame(rows)


BASELINE = ("cross_entropy", "Cross-entropy", 5, 0.5)
DROID = ("droid", "DROID", 5, 0.7)
FIRST = "DROID has the highest mean AUROC on unseen generators, 0.700 by logit 1 and 0.700 by margin. "
AGAINST = "DROID against cross-entropy (exploratory), over 5 seeds: "
BETTER = "(95 % interval +0.100 to +0.300; p = 0.010 after Holm’s correction): better"
OPEN = "(95 % interval −0.100 to +0.500; p = 0.200 after Holm’s correction): inconclusive"
POWER = "(power of 80 % from a difference of 0.250 on)"


@pytest.mark.parametrize(
    ("table", "comparisons", "sentence"),
    [
        (
            methods(BASELINE, DROID),
            compared(5, 0.2, 0.1, 0.3, 0.01),
            f"DROID is better than cross-entropy by both scores. {FIRST}{AGAINST}by logit 1 +0.200 {BETTER}; by "
            f"margin +0.200 {BETTER}.",
        ),
        (
            methods(BASELINE, DROID),
            compared(5, 0.2, -0.1, 0.5, 0.2),
            f"Against cross-entropy, inconclusive: DROID. {FIRST}{AGAINST}by logit 1 +0.200 {OPEN} "
            f"{POWER}; by margin +0.200 {OPEN} {POWER}.",
        ),
        (
            methods(BASELINE, DROID),
            compared(5, 0.2, 0.1, 0.3, 0.01, margin=(5, 0.2, -0.1, 0.5, 0.2)),
            "Against cross-entropy, depends on the score: DROID (better by logit 1, inconclusive by margin). "
            f"{FIRST}{AGAINST}by logit 1 +0.200 {BETTER}; by margin +0.200 {OPEN} {POWER}. The "
            "verdict depends on the score.",
        ),
        (
            methods(BASELINE, DROID, margin=(0.8, 0.7)),
            compared(5, 0.2, 0.1, 0.3, 0.01, margin=(5, -0.1, -0.2, -0.05, 0.01)),
            "Against cross-entropy, depends on the score: DROID (better by logit 1, worse by margin). Which method has "
            "the highest mean AUROC on unseen generators depends on the score: DROID (0.700 by logit 1) or "
            "Cross-entropy (0.800 by margin).",
        ),
        (
            methods(BASELINE, ("droid", "DROID", 5, 0.4)),
            compared(5, -0.1, -0.2, -0.05, 0.01),
            "DROID is worse than cross-entropy by both scores. Cross-entropy has the highest mean AUROC on unseen "
            "generators, 0.500 by logit 1 and 0.500 by margin.",
        ),
        (
            methods(("hseb", "HSEB", 5, 0.5), DROID),
            compared(5, 0.2, 0.1, 0.3, 0.01).assign(against="hseb"),
            f"{FIRST}Whether it is better than cross-entropy cannot be said: the study has no run of it.",
        ),
        (
            methods(BASELINE, DROID),
            compared(0, NAN, NAN, NAN, NAN),
            "Nothing can be said of DROID against cross-entropy. A verdict needs 5 seeds in common that do not all "
            f"differ by the same. {FIRST}DROID against cross-entropy: no seed in common.",
        ),
        (
            methods(("cross_entropy", "Cross-entropy", 4, 0.5), ("droid", "DROID", 4, 0.7)),
            compared(4, 0.2, 0.1, 0.3, 0.01, seeds=4),
            "Nothing can be said of DROID against cross-entropy. A verdict needs 5 seeds in common that do not all "
            f"differ by the same. {FIRST}DROID against cross-entropy (exploratory), over the 4 seeds in common "
            f"of 4 and 5: by logit 1 +0.200 {BETTER}; by margin +0.200 {BETTER}.".replace(": better", "")
            + " With fewer than 5 seeds in common, nothing can be said.",
        ),
        (
            methods(BASELINE, DROID, ("hseb", "HSEB", 5, 0.7004)),
            compared(5, 0.2, 0.1, 0.3, 0.01),
            "DROID is better than cross-entropy by both scores. DROID and HSEB share the highest mean AUROC on unseen "
            "generators, 0.700 by logit 1 and 0.700 by margin.",
        ),
        (
            methods(("droid", "DROID", 1, 0.7)),
            pd.DataFrame(),
            "DROID reaches a mean AUROC on unseen generators of 0.700 by logit 1 and 0.700 by margin over 1 seed; "
            "there is no other method beside it.",
        ),
        (
            methods(("droid", "DROID", 1, NAN)),
            pd.DataFrame(),
            "The test images are all real or all synthetic, so there is no AUROC.",
        ),
    ],
)
def test_the_headline_claims_what_is_shown(table, comparisons, sentence):
    assert headline(table, "auroc_unseen", comparisons) == sentence


def test_the_headline_holds_for_other_images_only_where_that_is_shown():
    figures = (5, 0.2, 0.1, 0.3, 0.01)
    table = methods(BASELINE, DROID)
    assert headline(table, "auroc_unseen", compared(*figures)).endswith("correction): better.")
    assert headline(table, "auroc_unseen", compared(*figures, both_low=-0.01)).endswith(
        "That holds for these test images; over other images, too, DROID is not shown to be better than cross-entropy "
        "(95 % interval over seeds and images −0.010 to +0.400 by logit 1 and −0.010 to +0.400 by margin)."
    )


def test_the_highest_mean_may_be_below_cross_entropy_on_the_seeds_in_common():
    table = methods(BASELINE, ("droid", "DROID", 12, 0.7))
    found = headline(table, "auroc_unseen", compared(5, -0.098, -0.105, -0.09, 0.001, seeds=12, both_low=-0.2))
    assert found.startswith("DROID is worse than cross-entropy by both scores.")
    assert "over the 5 seeds in common of 12 and 5: by logit 1 −0.098 (95 % interval −0.105 to −0.090" in found
    # "Worse" has the caveat that "better" has.
    assert "DROID is not shown to be worse than cross-entropy (95 % interval over seeds and images −0.200" in found
    assert found.endswith(
        "On the seeds in common it is below cross-entropy: its higher mean comes from the other seeds."
    )


def test_too_few_images_to_compare_methods_by(tmp_path):
    """Of unseen generators there are 2 x 10, and fewer than 30 are no ground to stand on."""
    study = write_study(tmp_path / "demo", {"cross_entropy": 3, "hseb": 3}, images=scored_images(per_generator=10))
    page = (write_report(study) / "index.html").read_text()
    why = "there are only 20 synthetic images (test images, the synthetic ones of unseen generators; 30 of either are"
    assert f'<p class="headline">Nothing can be said about which method is better: {why}' in page
    assert f"Methods are not compared: {why}" in page
    assert page.count(f"Nothing can be said: {why}") == 1  # of RQ1; for the others methods are missing
    assert "Not answered: RQ2, RQ3 and RQ4, for want of finished runs of CYBORG, FMMMSE, DROID and" in page
    assert "It cannot be said whether HSEB is better than cross-entropy." in page


def test_a_study_that_answers_no_question_begins_with_its_comparisons_and_where_it_looks(tmp_path):
    config = {
        "data": {"name": "decoy"},
        "loss": {"terms": {"x": {"_target_": "saliency_entropy.losses.HumanSaliency"}}},
    }
    images = scored_images().assign(mark=["yes", "no"] * 130)
    study = write_study(tmp_path / "demo", {"cross_entropy": 5, "cyborg": 5}, images=images, config=config)
    write_maps(study, rows=range(0, 260, 5), images=images)
    output = write_report(study)
    page = (output / "index.html").read_text()
    for words in (
        "CYBORG against cross-entropy, over 5 seeds: by logit 1",
        "; by margin +",
        "Differences in mean AUROC on unseen generators. A positive control",
    ):
        assert page.index('class="headline"') < page.index(words) < page.index('id="cams_by_method"')
    assert page.index('id="cams_by_method"') < page.index('class="warnings"')
    assert page.count('id="cams_by_method"') == 1
    assert "Test images with the mark, with the" in page
    assert "the decoy does not answer them." in page
    assert "RQ1:" not in page
    assert "CYBORG against cross-entropy, over 5 seeds" in (output / "questions.md").read_text()
    without = (write_report(study, tmp_path / "without", gallery_images=0) / "index.html").read_text()
    assert without.index('id="mean_cam_by_method"') < without.index('class="warnings"')


def test_left_out_runs_are_said_at_the_top(tmp_path, caplog):
    study = write_study(tmp_path / "demo", {"cross_entropy": 2, "droid": 2})
    (study / "hseb" / "seed0").mkdir(parents=True)
    page = (write_report(study) / "index.html").read_text()
    assert "1 run of 5 is left out, and in no table or figure: hseb/seed0." in page.split("<nav")[0]
    assert '<a href="#left-out">' in page
    result = json.loads((study / "droid" / "seed1" / "result.json").read_text())
    (study / "droid" / "seed1" / "result.json").write_text(json.dumps(result | {"method": "\x1b[2J"}))
    write_report(study)
    assert "2 runs of 5 are left out, and in no table or figure: droid/seed1 and hseb/seed0." in caplog.text
    assert "\x1b" not in caplog.text


def test_the_name_of_a_run_that_was_never_begun_is_text(tmp_path, caplog):
    study = write_study(tmp_path / "demo", {"cross_entropy": 2})
    sweeper = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "params": None}
    given = ["method=cross_entropy,'<b>\x1b[2J</b>'", "seed=0"]
    OmegaConf.save({"hydra": {"sweeper": sweeper, "overrides": {"task": given}}}, study / "multirun.yaml")
    page = (write_report(study) / "index.html").read_text()
    assert "1 run of 3 is left out" in page
    assert "<b>" not in page
    assert "left out: <b>" in caplog.text
    assert "\x1b" not in caplog.text


def test_the_seeds_of_a_method_that_are_left_out_for_one_reason_are_one_line():
    reasons = {"droid/seed2": "not begun", "droid/seed0": "diverged", "droid/seed1": "not begun"}
    reasons |= {"droid/seed4": "not begun", "hseb/seed0": "not begun", "droid/seed1-copy": "not begun"}
    assert [(runs.name, runs.reason) for runs in by_reason([LeftOut(*run) for run in reasons.items()])] == [
        ("droid/seed1–2, 4", "not begun"),
        ("droid/seed0", "diverged"),
        ("hseb/seed0", "not begun"),
        ("droid/seed1-copy", "not begun"),
    ]


def test_seeds_in_words():
    assert _ranges([0, 1, 2, 5, 7, 8]) == "0–2, 5, 7–8"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A reported study with an unfinished run."""
    study = write_study(tmp_path_factory.mktemp("runs") / "demo", {"cross_entropy": 3, "droid": 2})
    (study / "hseb" / "seed0").mkdir(parents=True)
    return write_report(study)


@pytest.fixture(scope="module")
def page(demo):
    return (demo / "index.html").read_text()


def test_everything_is_written(demo, page):
    assert sorted(path.name for path in demo.iterdir() if path.is_file()) == FILES
    assert sorted(path.name for path in (demo / "figures").iterdir()) == sorted(
        f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")
    )
    for name in FIGURES:
        assert (demo / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (demo / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    runs = pd.read_csv(demo / "runs.csv")
    table = pd.read_csv(demo / "methods.csv").set_index(["score", "method"]).loc["logit"]
    own = runs.loc[runs["method"] == "droid", "auroc"]
    assert table.loc["droid", "auroc_mean"] == pytest.approx(own.mean())
    assert table.loc["droid", "auroc_std"] == pytest.approx(np.std(own, ddof=1))
    mean = f"{own.mean():.3f} ± {own.std():.3f}"
    assert mean in page
    assert mean in (demo / "methods.md").read_text()
    assert mean.replace("±", r"$\pm$") in (demo / "methods.tex").read_text()
    assert "hseb/seed0: no result, no epoch done" in page
    compared = pd.read_csv(demo / "comparisons.csv").iloc[0]
    shared = runs[(runs["seed"] < 2)].pivot(index="seed", columns="method", values="auroc_unseen")
    assert compared["difference"] == pytest.approx((shared["droid"] - shared["cross_entropy"]).mean())
    assert f"<td>{compared['difference']:+.3f}</td>" in page
    assert f"{compared['difference']:+.3f}" in (demo / "comparisons.tex").read_text()
    for name in ("methods", "spread", "comparisons", "operating_points"):
        assert set(pd.read_csv(demo / f"{name}.csv")["score"]) == {"logit", "margin"}


def test_questions_without_their_methods_are_one_line_and_the_comparisons_lead(demo, page):
    text = (demo / "questions.md").read_text()
    left = "Not answered: RQ1, RQ2, RQ3 and RQ4, for want of finished runs of CYBORG, HSEB, FMMMSE and DROID + CYBORG."
    compared = "DROID against cross-entropy (exploratory), over the 2 seeds in common of 2 and 3: by logit 1"
    for words in (left, compared):
        assert words in page
        assert words in text.replace("\\", "")


def test_another_study_than_the_papers_is_not_set_beside_it(demo, page):
    assert "These figures are not comparable with the paper’s: data.name is not und_cyborg" in page
    assert not (demo / "reproduction.csv").exists()


def test_a_study_as_the_papers_is_set_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduction, "departures", lambda study, measures: [])
    output = write_report(write_study(tmp_path / "demo", {"cross_entropy": 2}))
    assert "AUROC: Cross-entropy" in (output / "reproduction.md").read_text()
    assert '<th scope="row">AUROC: Cross-entropy</th>' in (output / "index.html").read_text()


def test_the_page_is_self_contained(page):
    assert not re.search(r"https?://|url\(|@import|<iframe|\bfetch\(|XMLHttpRequest", page)
    assert re.findall(r"<link [^>]*>", page) == ['<link rel="icon" href="data:,">']
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)"', page))
    assert "prefers-color-scheme: dark" in page


def test_the_policy_allows_the_pages_own_style_and_script_alone(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("img-src") == "data:"
    for kind in ("style", "script"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, flags=re.DOTALL)
        assert (
            rules.pop(f"{kind}-src") == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        )
    assert rules == {"base-uri": "'none'", "form-action": "'none'"}
    assert not re.search(r"<[^>]* (on\w+|style)=", page)


def test_every_link_leads_to_a_section_or_a_file_of_the_report(demo, page):
    links = re.findall(r'<a href="([^"]*)"', page)
    anchors = [link.removeprefix("#") for link in links if link.startswith("#")]
    files = [link for link in links if not link.startswith("#")]
    assert set(anchors) <= set(re.findall(r' id="([^"]*)"', page))
    assert set(anchors) >= {"methods", "generators", "roc", "gallery", "made"}
    written = {str(path.relative_to(demo)) for path in demo.rglob("*") if path.is_file()} - {"index.html"}
    assert set(files) == written


def test_the_runs_are_in_the_page_for_each_choice_of_generators(demo, page):
    found = re.search(r'<script type="application/json" id="choices">(.*?)</script>', page)[1]
    choice = json.loads(found)
    assert [method["title"] for method in choice["methods"]] == ["Cross-entropy", "DROID"]
    assert [entry["name"] for entry in choice["choices"]][:5] == [
        "all generators, by logit 1", "unseen generators, by logit 1", "progan, unseen, by logit 1",
        "stylegan2, in training, by logit 1", "stylegan3, unseen, by logit 1",
    ]  # fmt: skip
    runs = pd.read_csv(demo / "runs.csv")
    for entry, column in zip(choice["choices"], ("auroc", "auroc_unseen"), strict=False):
        for values, box, method in zip(entry["auroc"], entry["boxes"], ("cross_entropy", "droid"), strict=True):
            own = runs[runs["method"] == method]
            assert [seed for seed, _ in values] == list(own["seed"])
            assert [value for _, value in values] == pytest.approx(list(own[column]), abs=6e-5)
            quartiles = own[column].quantile([0.25, 0.5, 0.75])
            assert [box[name] for name in ("q1", "med", "q3")] == pytest.approx(list(quartiles), abs=6e-5)
            assert box["std"] == pytest.approx(own[column].std(), abs=6e-5)
    images = {entry["name"]: entry["images"] for entry in choice["choices"]}
    assert images["all generators, by margin"] == "180 synthetic and 80 real test images."
    assert images["unseen generators, by margin"] == "120 synthetic and 80 real test images."
    generators = pd.read_csv(demo / "generators.csv").set_index(["generator", "method"])
    droid = [value for _, value in choice["choices"][2]["auroc"][1]]
    assert np.mean(droid) == pytest.approx(generators.loc[("progan", "droid"), "auroc_mean"], abs=6e-5)


def test_a_generator_of_few_images_has_no_auroc_to_choose(tmp_path):
    images = scored_images()
    images = images[~((images["generator"] == "progan") & (images.index % 60 >= 29))]
    page = (write_report(write_study(tmp_path / "demo", {"droid": 1}, images=images)) / "index.html").read_text()
    choices = json.loads(re.search(r'id="choices">(.*?)</script>', page)[1])["choices"]
    assert (choices[2]["auroc"], choices[2]["boxes"]) == ([[]], [None])
    assert choices[0]["boxes"][0]["std"] is None  # of one run
    assert choices[2]["images"] == "29 synthetic and 80 real test images. No AUROC with fewer than 30 of either."


@pytest.fixture(scope="module")
def study_with_maps(tmp_path_factory):
    """A study with maps, reported with 20 test images."""
    study = write_study(tmp_path_factory.mktemp("runs") / "demo", {"cross_entropy": 1, "droid": 2})
    write_maps(study, rows=range(0, 260, 5))
    write_report(study, gallery_images=20)
    return study


def test_the_gallery_holds_each_photograph_once(study_with_maps):
    page = (study_with_maps / "report" / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == page.count('<li class="card"') == 20
    assert page.count('alt="CAM of DROID"') == 20
    assert 0 < page.count('alt="human map"') < 20


def test_where_the_methods_look(study_with_maps):
    output = study_with_maps / "report"
    page = (output / "index.html").read_text()
    for name in ("focus", "run_agreement", "human_agreement"):
        assert f'<section id="{name}">' in page
        assert (output / f"{name}.csv").exists()
    for name in ("cams_by_method", "cams_by_generator", "maps_by_entropy", "mean_cam_by_method"):
        assert f'<figure id="{name}">' in page
        assert (output / "figures" / f"{name}.pdf").exists()


def test_a_report_without_photographs_deletes_those_of_an_earlier_one(study_with_maps, tmp_path):
    output = shutil.copytree(study_with_maps / "report", tmp_path / "report")
    # And of one that was killed.
    left = [output / ".index.html.0123abcd.part", output / "figures" / ".cams_by_method.png.0123abcd.part"]
    for part in left:
        part.touch()
    write_report(study_with_maps, output, gallery_images=0)
    assert not any(part.exists() for part in left)
    page = (output / "index.html").read_text()
    assert "data:image/jpeg" not in page
    assert 'id="gallery"' not in page
    assert sorted(path.stem for path in (output / "figures").glob("*.png")) == sorted(
        [*FIGURES, "maps_by_entropy", "mean_cam_by_method"]
    )


def test_what_another_report_left_in_the_folder_is_gone(tmp_path):
    write_study(tmp_path / "demo", {"cross_entropy": 2})
    output = tmp_path / "report"
    (output / "figures").mkdir(parents=True)
    stale = ["comparisons.csv", "overview_auroc.md", "settings.tex", "figures/auroc_unseen_by_axis.png"]
    own = ["mine.csv", "figures/mine.png", "comparisons.txt"]
    for name in (*stale, *own):
        (output / name).write_text("of another study")
    write_report(tmp_path / "demo", output)
    assert not any((output / name).exists() for name in stale)
    assert all((output / name).exists() for name in own)
    assert (output / "methods.csv").exists()


def test_each_part_of_the_page_is_in_one_chapter(page):
    names = [name for chapter in CHAPTERS.values() for name in chapter]
    assert len(set(names)) == len(names)
    # In this order, and every link of the navigation leads somewhere.
    anchors = re.findall(r'<a href="#([\w-]+)"', page)
    assert anchors[:3] == ["questions", "results", "methods"]
    assert sorted(anchors, key=lambda name: page.index(f'id="{name}"')) == anchors
    shown = [name for name in names if name in anchors]
    assert shown == [name for name in anchors if name in names]
    assert {*TABLES, *FIGURES} <= {*shown}
    with pytest.raises(LookupError, match="in no chapter of the page: mine"):
        chapters([ShownTable("mine", "Mine", pd.DataFrame(), pd.DataFrame(), [])], [])


def test_corrupted_images(tmp_path):
    study = write_study(tmp_path / "demo", {"droid": 1})
    scores = pd.read_parquet(study / "droid" / "seed0" / "scores" / "test.parquet")
    variants = [("none", 0.0), *(("jpeg", float(quality)) for quality in STRENGTHS["jpeg"])]
    pd.concat([scores.assign(corruption=name, strength=strength) for name, strength in variants]).to_parquet(
        study / "droid" / "seed0" / "scores" / "test+corruptions.parquet"
    )
    output = write_report(study)
    page = (output / "index.html").read_text()
    table = pd.read_csv(output / "robustness.csv")
    assert list(table["corruption"]) == ["none"] + ["jpeg"] * len(STRENGTHS["jpeg"])
    assert '<section id="robustness">' in page
    assert f"<td>{table['auroc_unseen_mean'].iloc[1]:.3f}</td>" in page
    for name in ("auroc_by_corruption", "auroc_by_corruption_margin"):
        assert f'<figure id="{name}">' in page
        assert (output / "figures" / f"{name}.pdf").exists()


def test_what_the_weight_alone_does_and_the_epochs_are_in_the_page(tmp_path):
    write_study(tmp_path / "demo", {"cross_entropy": 5}, result={"best_epoch": 2})
    write_study(tmp_path / "demo", {"cross_entropy_half": 5}, strength=0.9, result={"best_epoch": 3})
    output = write_report(tmp_path / "demo")
    page = (output / "index.html").read_text()
    line = "What the weight alone does: cross-entropy at 0.5, as in the other methods. cross_entropy_half against"
    assert line in page.replace("\u00a0", " ")
    assert "What the weight alone does" in (output / "questions.md").read_text()
    assert "which is scored, in 5 of 5 runs of cross_entropy_half: longer training" in page.partition("</header>")[0]
    assert '<section id="epochs">' in page
    assert list(pd.read_csv(output / "epochs.csv")["which"]) == ["scored", "last"] * 2


def test_without_maps_the_page_says_which_command_makes_them(page):
    assert "python experiments/focus.py study=STUDY makes them" in page


def test_how_it_was_made(page):
    made = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert made == {
        "Study": "demo",
        "Finished runs": "5",
        "Seeds": "Cross-entropy: 0–2; DROID: 0–1",
        "Data": "faces",
        "Trained on": "srefi, stylegan2",
        "Backbone": "tiny",
        "Image size": "112 pixels",
        "CAM": "49 cells",
        "Protocol": "paper",
        "Epochs": "4; the one of the highest validation accuracy is scored",
        "Time of the runs": "5 min",
        "Finished": "2026-11-24T06:00:00+00:00",
        "Versions": "torch 2.14.1, timm 1.0.31",
        "Git commit": "0123456789abcdef0123456789abcdef01234567",
    }


def test_the_network_that_was_trained_is_named(tmp_path):
    write_run(tmp_path, "droid", 0, config={"backbone": {"name": "tiny", "timm_name": "resnet18"}})
    assert how_it_was_made(read_study(tmp_path))["Backbone"] == "tiny (resnet18)"


def test_drawn_faces_template_maps_and_differing_runs_are_said_at_the_top(tmp_path, page, caplog):
    at_the_top = page.split('<ul class="warnings">')[1].split("</ul>")[0]
    assert re.findall("<li>(.*?)</li>", at_the_top) == [
        "1 run of 6 is left out, and in no table or figure: hseb/seed0. The reasons stand at the end."
    ]
    assert "emplate maps" not in page
    data = {"data": {"name": "builtin", "template_maps": True}}
    write_study(tmp_path, {"cross_entropy": 2}, config=data)
    write_run(tmp_path, "droid", 0, config=data | {"backbone": {"name": "densenet121"}})
    top = (write_report(tmp_path) / "index.html").read_text().partition("</header>")[0]
    for words in (
        "The faces are drawn by a program",
        "had template maps, not human maps",
        "The runs differ in backbone.name",
    ):
        assert words in top
        assert words in caplog.text


@pytest.mark.parametrize(("name", "options", "said"), [
    ("EntropyMatch", {"target": 3.0}, False), ("EntropyMatch", {"target": "batch"}, True), ("LogEntropy", {}, False),
    ("HumanSaliency", {}, True),
])  # fmt: skip
def test_maps_that_no_method_uses_are_no_warning(tmp_path, name, options, said):
    terms = {"cross_entropy": {"_target_": "saliency_entropy.losses.CrossEntropy", "weight": 0.5}}
    terms["hseb"] = {"_target_": f"saliency_entropy.losses.{name}", "weight": 0.5, **options}
    write_run(tmp_path, "hseb", 0, config={"data": {"template_maps": True}, "loss": {"terms": terms}})
    study = read_study(tmp_path)
    assert any("template maps" in warning for warning in all_warnings(study, measure(study))) is said


def test_files_that_runs_left_out_are_said_at_the_top(tmp_path, caplog):
    counts = {"train": {"images": 0, "human_maps": 3}, "test": {"images": 12, "human_maps": 0}}
    write_study(tmp_path, {"cross_entropy": 2}, result={"left_out": counts})
    others = {"left_out": {"test": {"images": 12, "human_maps": 0}}, "unread": {".tif": 30}}
    write_run(tmp_path, "droid", 0, result=others)
    top = (write_report(tmp_path) / "index.html").read_text().partition("</header>")[0]
    for words in (
        "Up to 3 human maps of split train could not be used and were left out (data.skip_broken=true).",
        "<li>12 images of split test could not be used and were left out",
        "Pictures in the folder of the data were not read, for their format: 30 .tif.",
    ):
        assert words in top
        assert words.removeprefix("<li>") in caplog.text
    assert "images of split train" not in top


@pytest.mark.parametrize("label", ["real", "synthetic"])
def test_a_test_set_of_one_class_is_reported_without_auroc(tmp_path, label):
    images = scored_images()
    study = write_study(tmp_path, {"cross_entropy": 1, "droid": 6}, images=images[images["label"] == label])
    page = (write_report(study) / "index.html").read_text()
    assert "The test images are all real or all synthetic, so there is no AUROC." in page
    assert ('id="generators"' in page) == (label == "synthetic")


def test_words_from_data_are_text(tmp_path, caplog):
    """In the page, for a spreadsheet, and on the terminal."""
    caplog.set_level("INFO")
    evil = "<img src=x onerror=alert(1)></script>"
    images = scored_images()
    images["generator"] = images["generator"].replace({"progan": evil, "stylegan3": '=HYPERLINK("x")'})
    write_run(tmp_path, "cross_entropy", 0, images=images)
    write_run(
        tmp_path, "droid", 0, images=images, title="@SUM(1) \x1b[2J[red]",
        result={"versions": {evil: "1"}, "git_commit": evil, "finished": evil},
    )  # fmt: skip
    output = write_report(tmp_path, tmp_path / "elsewhere" / "deep")
    page = (output / "index.html").read_text()
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 4
    # The choices, the figures of which the script reads, and the script itself.
    assert page.count("</script>") == 2
    assert f"{evil}, unseen, by margin" in [
        entry["name"] for entry in json.loads(re.search(r'id="choices">(.*?)</script>', page)[1])["choices"]
    ]
    assert "'@SUM(1)" in (output / "methods.csv").read_text()
    assert "'=HYPERLINK" in (output / "generators.csv").read_text()
    assert "\x1b" not in caplog.text
    assert "@SUM(1) ?[2J[red]" in caplog.text


def test_the_terminals_table_takes_no_markup():
    assert "[bold]x[/bold]" in printed(pd.DataFrame({"Method": ["[bold]x[/bold]"]}))


@pytest.mark.parametrize("count", [-1, 2.5, True, "all", None])
def test_the_number_of_photographs_is_a_whole_number(tmp_path, count):
    with pytest.raises(UserError, match=r"^gallery_images is .*; give a whole number from 0 on$"):
        write_report(tmp_path, gallery_images=count)


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    study = write_study(tmp_path / "demo", {"droid": 1})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"output=.*file cannot be written to .*; give another folder with output="):
        write_report(study, tmp_path / "file")


def test_the_command(tmp_path):
    root = Path(__file__).parents[2]
    study = write_study(tmp_path / "demo", {"cross_entropy": 1, "droid": 1})
    (study / "hseb" / "seed0").mkdir(parents=True)
    command = [sys.executable, str(root / "experiments" / "report.py"), "study=demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Nothing can be said of DROID against cross-entropy. A verdict needs 5 seeds in common" in done.stdout
    assert "left out: hseb/seed0 (no result, no epoch done)" in done.stdout
    assert "report: demo/report/index.html" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo"]
