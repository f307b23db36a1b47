"""The page that compares variants, and its files."""

import re
from pathlib import Path

import pandas as pd
import pytest
from benchmarks.made_up_study import scored_images, write_study, write_variant
from omegaconf import OmegaConf

from saliency_entropy.errors import UserError
from saliency_entropy.study.axes import read_axes, variant_table
from saliency_entropy.study.axis_report import headline, write_reports


def write(study: object, output: Path | None = None, **options: object) -> None:
    cfg = {"study": study, "output": None if output is None else str(output), "reference": None, "gallery_images": 0}
    write_reports(OmegaConf.create(cfg | options))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants that can be compared, one that cannot, and one of them with a warning of its own."""
    folder = tmp_path_factory.mktemp("runs") / "<b>study"
    for value in (0.1, 1):
        write_variant(folder, {"fraction": value}, {"cross_entropy": 2, "droid": 2}, strength=value)
    write_variant(folder, {"fraction": 2}, {"droid": 1}, images=scored_images(per_generator=70))
    (folder / "fraction=1" / "droid" / "seed1" / "scores" / "val.parquet").unlink()
    write(str(folder))
    return folder


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    return (study / "report" / "index.html").read_text()


@pytest.fixture(scope="module")
def measures(study: Path) -> list[str]:
    """By logit 1, and by the margin."""
    runs = pd.read_csv(study / "report" / "runs.csv")
    return [name for name in ("auroc_unseen", "auroc_unseen_margin") if name in runs]


def test_files(study: Path, measures: list[str]) -> None:
    report = study / "report"
    found = sorted(str(path.relative_to(report)) for path in report.rglob("*") if path.is_file())
    own = [name for name in found if not name.startswith("fraction=")]
    tables = [f"{table}_{measure}" for table in ("overview", "variants") for measure in measures]
    assert own == sorted(
        [f"{name}.{kind}" for name in tables for kind in ("csv", "md", "tex")]
        + [f"figures/{measure}_by_axis.{kind}" for measure in measures for kind in ("pdf", "png")]
        + ["index.html", "runs.csv"]
    )
    assert {"fraction=0.1/index.html", "fraction=1/methods.csv"} <= {*found}
    assert not (study / "fraction=1" / "report").exists()


def test_the_tables_are_those_of_the_study(study: Path) -> None:
    table = pd.read_csv(study / "report" / "variants_auroc_unseen.csv")
    pd.testing.assert_frame_equal(table, variant_table(read_axes([study])), check_dtype=False)
    runs = pd.read_csv(study / "report" / "runs.csv")
    assert list(runs["variant"]) == ["fraction=0.1"] * 4 + ["fraction=1"] * 4
    assert list(runs["fraction"]) == [0.1] * 4 + [1] * 4


def test_every_link_leads_somewhere(study: Path, page: str, measures: list[str]) -> None:
    anchors = re.findall(r'href="#([\w-]+)"', page)
    assert anchors == [
        "along-the-axes", *(f"{name}_by_axis" for name in measures), *(f"overview_{name}" for name in measures),
        "differences", *(f"variants_{name}" for name in measures), "settings", "left-out", "pages", "made",
    ]  # fmt: skip
    assert all(page.count(f'id="{anchor}"') == 1 for anchor in anchors)
    links = [link for link in re.findall(r'href="([^#"]+)"', page) if link != "data:,"]
    assert {"fraction%3D0.1/index.html", "fraction%3D1/index.html"} <= {*links}
    assert all((study / "report" / link.replace("%3D", "=")).is_file() for link in links)


def test_the_page_of_a_variant_leads_back(study: Path, page: str) -> None:
    (link,) = re.findall(
        r'href="([^"]+)">Comparison of all variants', (study / "report/fraction=1/index.html").read_text()
    )
    assert (study / "report" / "fraction=1" / link).resolve() == (study / "report" / "index.html").resolve()
    assert "Comparison of all variants" not in page


def test_warnings_that_differ_in_their_numbers_stand_once(tmp_path: Path) -> None:
    for value, last in ((1, 3), (2, 2), (3, 1)):
        folder = write_variant(tmp_path / "study", {"fraction": value}, {"droid": last}, result={"best_epoch": 3})
        write_study(folder, {"cyborg": 3}, strength=0.5)
    write(str(tmp_path / "study"))
    page = (tmp_path / "study" / "report" / "index.html").read_text()
    (warning,) = re.findall(r"<li>([^<]*which is scored, in[^<]*)</li>", page)
    assert warning.startswith("fraction=1: ")
    assert warning.endswith("(Likewise, with other numbers: fraction=2, fraction=3.)")


def test_what_is_left_out_and_what_must_be_known_is_said(page: str) -> None:
    assert "<li>fraction=2: scored on other test images than fraction=0.1</li>" in page
    assert "<li>In no table or figure, for the reasons at the end: fraction=2.</li>" in page
    assert "<li>fraction=1: droid/seed1: no threshold or temperature can be fixed on validation" in page
    assert "<b>" not in page
    assert "&lt;b&gt;study: 8 finished runs" in page
    assert "Research questions" not in page


def test_the_headline(study: Path) -> None:
    axes = read_axes([study])
    table = variant_table(axes)
    best = table.loc[table["auroc_unseen_mean"].idxmax()]
    made_up = table.assign(pairs=[0, 5, 5, 4], p_holm=[None, 0.01, 0.04, 0.04], difference=[0, 0.1, -0.1, -0.1])
    other = made_up.assign(p_holm=[None, 0.01, 0.4, 0.01])
    first = f"{best['title']} in {best['variant']} has the highest mean AUROC on unseen generators: "
    assert headline(axes, {"auroc_unseen": made_up}) == (
        f"{first}{best['auroc_unseen_mean']:.3f} by logit 1. Of 2 differences from cross-entropy over at least 5 "
        "seeds, 1 are shown to be above 0 and 1 below, by every score and after Holm’s correction. What is shown is "
        "exploratory and holds for these test images (120 synthetic of unseen generators, 80 real); how far others "
        "would move it, the reports of the variants say."
    )
    none = headline(axes, {"auroc_unseen": made_up.assign(p_holm=0.5)})
    assert none.endswith("0 are shown to be above 0 and 0 below, by every score and after Holm’s correction.")
    equal = headline(axes, {"auroc_unseen": made_up.assign(auroc_unseen_mean=[0.85, 0.8504, 0.5, 0.8496])})
    assert equal.startswith(
        "Cross-entropy in fraction=0.1, DROID in fraction=0.1, DROID in fraction=1 share the highest mean AUROC on "
        "unseen generators: 0.850 by logit 1. Of 2"
    )
    other["auroc_unseen_margin_mean"] = other["auroc_unseen_mean"]
    both = headline(axes, {"auroc_unseen": made_up, "auroc_unseen_margin": other})
    value = f"{best['auroc_unseen_mean']:.3f}"
    assert both.startswith(f"{first}{value} by logit 1 and {value} by margin. Of 2 differences")
    assert "1 are shown to be above 0 and 0 below, by every score" in both
    assert headline(axes, {"auroc_unseen": table}) == (
        f"{first}{best['auroc_unseen_mean']:.3f} by logit 1. No difference can be judged: none is over 5 seeds or more."
    )
    lowest = table.loc[table["auroc_unseen_mean"].idxmin()]
    against = other.assign(auroc_unseen_margin_mean=1 - other["auroc_unseen_mean"])
    assert headline(axes, {"auroc_unseen": made_up, "auroc_unseen_margin": against}).startswith(
        "Which method and variant has the highest mean AUROC on unseen generators depends on the score: "
        f"{best['title']} in {best['variant']} ({value} by logit 1) or {lowest['title']} in {lowest['variant']} "
        f"({1 - lowest['auroc_unseen_mean']:.3f} by margin). Of 2 differences"
    )
    nothing = {"auroc_unseen": table.assign(auroc_unseen_mean=float("nan"))}
    assert headline(axes, nothing) == "The test images are all real or all synthetic, so there is no AUROC."


def test_too_few_images_to_compare_by(tmp_path: Path) -> None:
    write_variant(tmp_path / "study", {"fraction": 1}, {"cross_entropy": 5, "droid": 5}, images=scored_images(10))
    axes = read_axes([tmp_path / "study"])
    assert headline(axes, {"auroc_unseen": variant_table(axes)}) == (
        "Nothing can be said about which method is better: there are only 20 synthetic images (test images, the "
        "synthetic ones of unseen generators; 30 of either are the least)."
    )


def test_studies_that_were_trained_apart(tmp_path: Path) -> None:
    write_study(tmp_path / "a", {"cross_entropy": 2, "droid": 2})
    write_study(tmp_path / "b", {"cross_entropy": 2, "droid": 2}, epochs=8, result={"cam_cells": 100})
    write([str(tmp_path / "a"), str(tmp_path / "b")], reference="a")
    page = (tmp_path / "a+b" / "report" / "index.html").read_text()
    assert '<a href="b/index.html">b</a>' in page
    assert '<th scope="row">trainer.max_epochs</th>' in page
    assert "The CAMs have different numbers of cells" in page
    assert "Differences are from the same method in a with the same seed" in page
    assert not (tmp_path / "a" / "report").exists()


def test_a_study_without_variants_has_the_report_that_it_had(tmp_path: Path) -> None:
    write_study(tmp_path / "a", {"droid": 2})
    write([str(tmp_path / "a")])
    assert "Research questions" in (tmp_path / "a" / "report" / "index.html").read_text()
    with pytest.raises(UserError, match=r"^reference=x names a variant, and study=.*/a has none; leave it out$"):
        write(str(tmp_path / "a"), reference="x")


def test_one_variant_alone(tmp_path: Path) -> None:
    write_variant(tmp_path / "a", {"fraction": 1}, {"droid": 1})
    write(str(tmp_path / "a"), tmp_path / "output")
    page = (tmp_path / "output" / "index.html").read_text()
    assert "Only fraction=1 can be shown; there is nothing beside it." in page
    assert (tmp_path / "output" / "fraction=1" / "index.html").exists()


DASHED = "Dashed: a method without this setting, or one that it does not change."


def test_what_a_dashed_line_is_is_said_where_there_is_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for target in (0.5, 3):
            write_variant(tmp_path / name, {"loss.terms.entropy_match.target": target}, {"hseb": 1})
        write_variant(tmp_path / name, {"loss.terms.entropy_match.target": None}, {"cross_entropy": 1})
    write([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "two")
    assert DASHED in (tmp_path / "two" / "index.html").read_text()
    for backbone in ("tiny", "resnet50"):
        write_variant(tmp_path / "c", {"backbone": backbone}, {"hseb": 1})
    write(str(tmp_path / "c"), tmp_path / "words")
    assert "Dashed" not in (tmp_path / "words" / "index.html").read_text().split("Reports of the variants")[0]


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^study=\[\] names no study; give the folder of one, such as study=runs/demo"):
        write([])
    with pytest.raises(UserError, match=r"^study=.*/missing is not a folder"):
        write(str(tmp_path / "missing"))
    write_variant(tmp_path / "a", {"fraction": 1}, {"droid": 1})
    with pytest.raises(UserError, match="gallery_images is -1"):
        write(str(tmp_path / "a"), gallery_images=-1)
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"^output=.*/file/x/fraction=1 cannot be written to .* give another folder with output="
    ):
        write(str(tmp_path / "a"), tmp_path / "file" / "x")
