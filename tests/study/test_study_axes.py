"""The variants of a study, and studies that were trained apart, side by side."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from benchmarks.made_up_study import scored_images, write_run, write_study, write_variant
from scipy import stats

from saliency_entropy.errors import UserError
from saliency_entropy.run.result import IMAGES
from saliency_entropy.study.axes import (
    StudyAxes,
    axis_value,
    differing_settings,
    numeric_axis,
    read_axes,
    shown_overview,
    shown_variants,
    variant_table,
)  # fmt: skip
from saliency_entropy.study.runs import read_study
from saliency_entropy.study.tables import measure

FRACTION = "data.human_maps.fraction"


def fraction(study: Path, value: float, methods: dict, **options) -> Path:
    config = {"data": {"human_maps": {"fraction": value}}}
    return write_variant(study, {FRACTION: value}, methods, config=config, **options)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps of a tenth, of a half and of all images. Cross-entropy is in one of these variants, and in one that has no
    such setting."""
    study = tmp_path_factory.mktemp("runs") / "annotation"
    fraction(study, 0.5, {"cyborg": 4, "hseb": 2}, strength=0.6)
    fraction(study, 0.1, {"cross_entropy": 3, "cyborg": 3}, strength=0.4)
    fraction(study, 1, {"cyborg": 3}, strength=0.8)
    write_variant(study, {FRACTION: None}, {"cross_entropy": 4})
    return study


@pytest.fixture(scope="module")
def axes(swept: Path) -> StudyAxes:
    return read_axes([swept])


def by_seed(folder: Path, method: str, name: str = "auroc_unseen") -> pd.Series:
    runs = measure(read_study(folder)).runs
    return runs[runs["method"] == method].set_index("seed")[name]


def test_the_variants_of_a_study_in_the_order_of_their_numbers(axes: StudyAxes) -> None:
    assert [variant.name for variant in axes.variants] == [f"fraction={name}" for name in ("0.1", "0.5", "1", "null")]
    assert [variant.values for variant in axes.variants] == [{FRACTION: value} for value in (0.1, 0.5, 1, None)]
    assert (axes.keys, axes.left_out, numeric_axis(axes)) == ([FRACTION], [], FRACTION)
    assert list(axes.titles) == ["cross_entropy", "cyborg", "hseb"]


def test_differences_are_from_cross_entropy_of_the_same_variant_or_one_without_setting(
    axes: StudyAxes, swept: Path
) -> None:
    table = variant_table(axes).set_index(["variant", "method"])
    assert len(table) == 6
    for name, baseline, pairs in (("0.1", "0.1", 3), ("0.5", "null", 4), ("1", "null", 3)):
        row = table.loc[(f"fraction={name}", "cyborg")]
        own = by_seed(swept / f"fraction={name}", "cyborg")
        differences = (own - by_seed(swept / f"fraction={baseline}", "cross_entropy")).dropna()
        test = stats.ttest_1samp(differences, 0)
        interval = test.confidence_interval(0.95)
        assert row["pairs"] == len(differences) == pairs
        assert [row["auroc_unseen_mean"], row["auroc_unseen_std"]] == pytest.approx([own.mean(), own.std()])
        assert [row["difference"], row["difference_low"], row["difference_high"], row["p"]] == pytest.approx(
            [differences.mean(), interval.low, interval.high, test.pvalue]
        )
    assert table.loc[("fraction=0.5", "hseb"), "pairs"] == 2
    assert table.xs("cross_entropy", level="method")[["difference", "p", "p_holm"]].isna().all(axis=None)


def test_holm_is_over_all_tests_of_the_table(axes: StudyAxes) -> None:
    table = variant_table(axes).dropna(subset="p").sort_values("p")
    steps = table["p"].to_numpy() * np.arange(len(table), 0, -1)
    assert len(table) == 4
    assert table["p_holm"].to_numpy() == pytest.approx(np.minimum(np.maximum.accumulate(steps), 1))


def test_a_reference_is_the_same_method_in_another_variant(axes: StudyAxes, swept: Path) -> None:
    table = variant_table(axes, reference="fraction=1").set_index(["variant", "method"])
    expected = (by_seed(swept / "fraction=0.5", "cyborg") - by_seed(swept / "fraction=1", "cyborg")).mean()
    assert table.loc[("fraction=0.5", "cyborg"), "difference"] == pytest.approx(expected)
    assert table["pairs"].to_dict() == {
        ("fraction=0.1", "cross_entropy"): 0,
        ("fraction=0.1", "cyborg"): 3,
        ("fraction=0.5", "cyborg"): 3,
        ("fraction=0.5", "hseb"): 0,
        ("fraction=1", "cyborg"): 0,
        ("fraction=null", "cross_entropy"): 0,
    }
    with pytest.raises(UserError, match=r"^reference=fraction=2 is not a variant .* choose of fraction=0.1; "):
        variant_table(axes, reference="fraction=2")


def test_cross_entropy_of_another_variant_does_not_stand_in(tmp_path: Path) -> None:
    write_variant(tmp_path / "study", {"lr": 0.1}, {"cross_entropy": 2, "droid": 2})
    write_variant(tmp_path / "study", {"lr": 1}, {"droid": 2})
    pairs = variant_table(read_axes([tmp_path / "study"])).set_index(["variant", "method"])["pairs"]
    assert pairs.to_dict() == {("lr=0.1", "cross_entropy"): 0, ("lr=0.1", "droid"): 2, ("lr=1", "droid"): 0}


def test_cross_entropy_that_was_trained_once_is_compared_with_every_choice_of_maps(tmp_path: Path) -> None:
    """It uses none; another setting, as the backbone here, must still be the same."""
    for backbone in ("tiny", "resnet50"):
        for value, runs in ((0.05, 0), (0.5, 1), (1, 3)):
            methods = {"cyborg": 3} | ({"cross_entropy": runs} if runs else {})
            write_variant(tmp_path / "study", {"backbone": backbone, FRACTION: value}, methods)
    axes = read_axes([tmp_path / "study"])
    table = variant_table(axes).set_index(["variant", "method"])
    for variant in axes.variants:
        if variant.values[FRACTION] == 0.5:  # it has cross-entropy of its own, though of one seed
            assert table.loc[(variant.name, "cyborg"), "pairs"] == 1
            continue
        own = by_seed(variant.study.folder, "cyborg")
        reference = by_seed(tmp_path / "study" / f"backbone={variant.values['backbone']},fraction=1", "cross_entropy")
        row = table.loc[(variant.name, "cyborg")]
        assert (row["pairs"], row["difference"]) == (3, pytest.approx((own - reference).mean()))
    notes = " ".join(shown_variants(axes, variant_table(axes), "auroc_unseen").notes)
    assert "or differs only in the human maps, which cross-entropy does not use" in notes


def test_cross_entropy_with_a_term_of_human_maps_stands_in_for_no_other_choice_of_them(tmp_path: Path) -> None:
    terms = {"term": {"_target_": "saliency_entropy.losses.HumanSaliency", "weight": 0.5}}
    write_variant(tmp_path / "study", {FRACTION: 1}, {"cross_entropy": 3}, config={"loss": {"terms": terms}})
    write_variant(tmp_path / "study", {FRACTION: 0.5}, {"cyborg": 3})
    assert variant_table(read_axes([tmp_path / "study"]))["pairs"].to_list() == [0, 0]


def test_the_entropy_reached_and_another_measure_stand_beside(axes: StudyAxes, swept: Path) -> None:
    table = variant_table(axes, "accuracy")
    own = by_seed(swept / "fraction=1", "cyborg", "cam_entropy")
    row = table[table["variant"] == "fraction=1"].iloc[0]
    assert [row["cam_entropy_mean"], row["cam_entropy_std"]] == pytest.approx([own.mean(), own.std()])
    assert row["accuracy_mean"] == pytest.approx(by_seed(swept / "fraction=1", "cyborg", "accuracy").mean())


def test_what_readers_see(axes: StudyAxes) -> None:
    shown = shown_variants(axes, variant_table(axes), "auroc_unseen")
    assert list(shown.cells)[:3] == ["fraction", "Method", "Seeds"]
    assert list(shown.cells["fraction"]) == ["0.1", "0.1", "0.5", "0.5", "1", "–"]
    assert "Holm’s correction for the 4 tests of this table" in shown.notes[1]
    overview = shown_overview(axes, variant_table(axes), "auroc_unseen").cells
    assert list(overview) == ["Variant", "Cross-entropy", "CYBORG", "HSEB"]
    assert list(overview["HSEB"].str.len() > 1) == [False, True, False, False]


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (1.0, "1"), ("batch", "batch"), (None, "–"), (math.nan, "–"), (1e-5, "1e-05")]
)
def test_values_of_an_axis(value: object, text: str) -> None:
    assert axis_value(value) == text


def test_a_variant_that_was_scored_on_other_bytes_is_named(tmp_path: Path) -> None:
    """One whose scores do not say what they are of, as those of earlier versions, is not."""
    for value, digest in ((0.1, "a"), (0.2, "b"), (0.3, "a"), (0.4, "")):
        path = fraction(tmp_path / "study", value, {"droid": 1}) / "droid" / "seed0" / "scores" / "test.parquet"
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({IMAGES: digest} if digest else {}), path)
    axes = read_axes([tmp_path / "study"])
    assert [variant.name for variant in axes.variants] == ["fraction=0.1", "fraction=0.3", "fraction=0.4"]
    assert [(own.name, own.reason) for own in axes.left_out] == [(
        "fraction=0.2",
        "scored on test images whose files have other bytes than those of the other variants, under the same names",
    )]  # fmt: skip


def test_axes_that_are_no_numbers(tmp_path: Path) -> None:
    for value in ("batch", 0.5, True, [1, "a"], None):
        write_variant(tmp_path / "study", {"target": value}, {"droid": 1})
    axes = read_axes([tmp_path / "study"])
    assert numeric_axis(axes) is None
    assert {variant.values["target"] for variant in axes.variants} == {"batch", 0.5, "true", '[1, "a"]', None}


def test_the_second_axis_may_be_the_numeric_one(tmp_path: Path) -> None:
    for backbone in ("tiny", "resnet50"):
        for value in (0.1, 1):
            write_variant(tmp_path / "study", {"backbone": backbone, FRACTION: value}, {"droid": 1})
    axes = read_axes([tmp_path / "study"])
    assert axes.keys == ["backbone", FRACTION]
    assert numeric_axis(axes) == FRACTION


def test_a_variant_that_cannot_be_compared_is_named(swept: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    for value in (0.1, 0.5):
        fraction(study, value, {"cross_entropy": 2, "droid": 2})
    fraction(study, 0.7, {"droid": 2}, images=scored_images(per_generator=70))
    fraction(study, 0.8, {"droid": 2}, result={"train_generators": ["progan"]})
    fraction(study, 0.9, {"droid": 1})
    (study / "fraction=0.9" / "droid" / "seed0" / "result.json").unlink()
    (study / "fraction=0.5" / "droid" / "seed1" / "result.json").unlink()
    (study / "fraction=1").mkdir()
    (study / "fraction=1" / "variant.json").write_text(json.dumps({FRACTION: 1}))
    write_run(study, "droid", 3)
    axes = read_axes([study])
    assert [variant.name for variant in axes.variants] == ["fraction=0.1", "fraction=0.5"]
    reasons = {own.name: own.reason for own in axes.left_out}
    assert list(reasons) == [
        "droid/seed3", "fraction=0.9", "fraction=1", "fraction=0.7", "fraction=0.8", "fraction=0.5/droid/seed1"
    ]  # fmt: skip
    assert "none of the 1 runs in fraction=0.9 is finished" in reasons["fraction=0.9"]
    assert "holds no runs" in reasons["fraction=1"]
    assert reasons["fraction=0.7"] == "scored on other test images than fraction=0.1"
    assert reasons["fraction=0.8"] == "scored on other unseen generators than fraction=0.1"
    assert str(tmp_path) not in "".join(reasons.values())


def test_as_many_that_cannot_be_compared(tmp_path: Path) -> None:
    write_study(tmp_path / "a", {"droid": 1})
    write_study(tmp_path / "b", {"droid": 1}, images=scored_images(per_generator=70))
    with pytest.raises(UserError, match=r"^b was scored on other test images than a, so that they cannot "):
        read_axes([tmp_path / "a", tmp_path / "b"])


def test_nothing_to_compare(tmp_path: Path) -> None:
    run = fraction(tmp_path / "study", 0.1, {"droid": 1}) / "droid" / "seed0"
    (run / "result.json").unlink()
    with pytest.raises(UserError, match=r"^there is nothing to compare: fraction=0.1: none of the 1 runs in fraction"):
        read_axes([tmp_path / "study"])


def test_one_run_in_each_variant(tmp_path: Path) -> None:
    for value in (0.1, 0.5):
        fraction(tmp_path / "study", value, {"cross_entropy": 1, "droid": 1})
    axes = read_axes([tmp_path / "study"])
    table = variant_table(axes)
    assert table[["auroc_unseen_std", "difference_low", "p_holm"]].isna().all(axis=None)
    assert table["difference"].notna().sum() == 2
    notes = shown_variants(axes, table, "auroc_unseen").notes
    assert notes[-1] == "One seed of a method says nothing about another, as in fraction=0.1; fraction=0.5."


def test_studies_that_were_trained_apart(tmp_path: Path, swept: Path) -> None:
    write_study(tmp_path / "runs" / "longer", {"cross_entropy": 2, "droid": 2}, epochs=8)
    write_study(tmp_path / "other" / "longer", {"cross_entropy": 3, "cyborg": 2})
    axes = read_axes([tmp_path / "runs" / "longer", swept, tmp_path / "other" / "longer"])
    assert axes.names == ["runs/longer", f"{swept.parent.name}/annotation", "other/longer"]
    assert axes.keys == ["study", FRACTION]
    assert [variant.name.split("/")[-1] for variant in axes.variants] == [
        "longer", "fraction=0.1", "fraction=0.5", "fraction=1", "fraction=null", "longer"
    ]  # fmt: skip
    table = variant_table(axes).set_index(["variant", "method"])["pairs"]
    assert table[("runs/longer", "droid")] == 2
    assert table[(f"{axes.names[1]}/fraction=1", "cyborg")] == 3  # of its own study
    assert table[("other/longer", "cyborg")] == 2


def test_what_differs_beside_the_axes(tmp_path: Path) -> None:
    write_study(tmp_path / "a", {"cross_entropy": 1, "droid": 1}, result={"images_hash": "0a1b"})
    config = {"data": {"root": "/secret/place"}, "loss": {"terms": {"droid": {"weight": 0.3}}}, "new": [1, "x"]}
    write_run(
        tmp_path / "b", "droid", 0, epochs=8, config=config, result={"versions": {"torch": "2.15.0"}, "images_hash": ""}
    )
    table = differing_settings(read_axes([tmp_path / "a", tmp_path / "b"]))
    found = {key: dict(zip(own["variants"], own["value"], strict=True)) for key, own in table.groupby("setting")}
    assert found == {
        "data.root": {"a": "faces", "b": "(not shown)"},
        "trainer.max_epochs": {"a": "4", "b": "8"},
        "loss.terms.droid.weight (droid)": {"a": "0.5", "b": "0.3"},
        "new": {"a": "not set", "b": "[1, x]"},
        "versions.torch": {"a": "2.14.1", "b": "2.15.0"},
        "versions.timm": {"a": "1.0.31", "b": "not set"},
        "images_hash": {"a": "0a1b", "b": "not known"},
    }


def test_the_axes_themselves_do_not_count_as_differing(axes: StudyAxes) -> None:
    assert differing_settings(axes).empty


def test_studies_that_are_not_there_or_twice(tmp_path: Path) -> None:
    write_study(tmp_path / "a", {"droid": 1})
    with pytest.raises(UserError, match=r"^study=.*missing is not a folder; give the folders of studies"):
        read_axes([tmp_path / "a", tmp_path / "missing"])
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match=r"^study= names .*link twice; give each study once$"):
        read_axes([tmp_path / "a", tmp_path / "link"])
