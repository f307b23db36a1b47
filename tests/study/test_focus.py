"""Where detectors look, worked out by hand on maps of two by two cells and against SciPy, and what is said of it."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks.made_up_study import write_run
from scipy import stats

from saliency_entropy.errors import UserError
from saliency_entropy.page.table import markdown
from saliency_entropy.scores.map_files import KINDS, RunMaps, Sample, maps_file, save_maps
from saliency_entropy.study import focus
from saliency_entropy.study.focus import StudyMaps, read_maps_beside_human_maps, read_study_maps
from saliency_entropy.study.runs import read_study

ONE_CELL = np.array([[1, 0], [0, 0]], dtype=np.float32)
TWO_CELLS = np.array([[1, 1], [0, 0]], dtype=np.float32)
THREE_CELLS = np.array([[1, 1], [1, 0]], dtype=np.float32)
CONSTANT = np.zeros((2, 2), dtype=np.float32)


def sample(human_maps: np.ndarray, has_map: list[bool] | None = None, name: str = "s") -> Sample:
    count = len(human_maps)
    return Sample(
        name,
        np.arange(count),
        np.array([f"{i}.png" for i in range(count)]),
        np.arange(count) % 2,
        np.where(np.arange(count) % 2, "gan", ""),
        np.zeros((count, 112, 112, 3), dtype=np.uint8),
        human_maps.astype(np.float32),
        np.ones(count, dtype=bool) if has_map is None else np.array(has_map),
    )


def keep(study: Path, images: Sample, runs: dict[str, dict[str, np.ndarray] | np.ndarray], name: str = "test") -> None:
    """Write a study's maps; a run's are of all kinds, or of each."""
    save_maps(maps_file(study, name), images)
    for run, maps in runs.items():
        method, _, seed = run.partition("/seed")
        if not (study / run).exists():
            write_run(study, method, int(seed))
        kinds = maps if isinstance(maps, dict) else dict.fromkeys(KINDS, maps)
        stacked = {kind: np.asarray(values, dtype=np.float32) for kind, values in kinds.items()}
        save_maps(maps_file(study / run, name), RunMaps(images.sample, "c", images.row, **stacked))


def read(study: Path, name: str = "test") -> StudyMaps:
    maps = read_study_maps(read_study(study), name)
    assert maps is not None
    return maps


# --- one map


def test_entropies() -> None:
    maps = np.stack([ONE_CELL, TWO_CELLS, THREE_CELLS, [[1, 0.5], [0.5, 0]], CONSTANT])
    expected = [
        0,
        np.log(2),
        np.log(3),
        1.5 * np.log(2),
        np.nan,
    ]  # 1/2, 1/4, 1/4
    np.testing.assert_allclose(focus.map_entropies(maps), expected, atol=1e-12)
    assert focus.map_entropies(maps.reshape(5, 1, 2, 2)).shape == (5, 1)


def test_correlations_are_scipys() -> None:
    random = np.random.default_rng(0)
    maps, others = random.random((2, 6, 4, 5)).astype(np.float32)
    others[1] = maps[1].round(1)  # ties
    others[2] = 0
    for ranks, function in ((False, stats.pearsonr), (True, stats.spearmanr)):
        found = focus.map_correlations(maps, others, ranks)
        assert np.isnan(found[2])
        for i in (0, 1, 3, 4, 5):
            assert found[i] == pytest.approx(function(maps[i].ravel(), others[i].ravel()).statistic, abs=1e-6)


def test_the_top_region_is_a_fifth_of_the_cells() -> None:
    ramp = np.linspace(0, 1, 49).reshape(1, 7, 7)
    assert focus.top_regions(ramp).sum() == 10  # 9.8
    assert focus.top_regions(ramp)[0].ravel()[-10:].all()
    # Of equal cells all, of zeros none, and one of four.
    assert focus.top_regions(np.stack([TWO_CELLS, ONE_CELL, CONSTANT])).sum(axis=(1, 2)).tolist() == [2, 1, 0]
    one_hot = np.zeros((1, 7, 7))
    one_hot[0, 3, 3] = 1
    assert focus.top_regions(one_hot).sum() == 1


def test_agreement() -> None:
    maps = np.stack([ONE_CELL, TWO_CELLS, ONE_CELL[::-1], CONSTANT])
    found = focus.map_agreement(maps, np.stack([ONE_CELL] * 4))
    assert found["mse"][:3] == pytest.approx([0, 0.25, 0.5])
    assert found["pearson"][:3] == pytest.approx([1, 1 / np.sqrt(3), -1 / 3])
    assert found["spearman"][:3] == pytest.approx([1, 1 / np.sqrt(3), -1 / 3])
    assert found["iou"][:3] == pytest.approx([1, 0.5, 0])
    assert found["pointing"][:3] == pytest.approx([1, 0.5, 0])
    assert all(np.isnan(values[3]) for values in found.values())
    assert found.keys() == focus.AGREEMENT_FIGURES.keys()


# --- the tables


def test_entropy_and_focus_area_over_the_seeds(tmp_path: Path) -> None:
    keep(
        tmp_path,
        sample(np.stack([ONE_CELL] * 2)),
        {
            "cross_entropy/seed0": [TWO_CELLS, TWO_CELLS],  # ln 2
            "cross_entropy/seed1": [ONE_CELL, TWO_CELLS],  # ln 2 / 2
            "droid/seed0": {kind: [ONE_CELL, ONE_CELL if kind == "cam" else TWO_CELLS] for kind in KINDS},
        },
    )
    table = focus.focus_table(read(tmp_path)).set_index("method")
    ln2 = np.log(2)
    own = table.loc["cross_entropy"]
    assert own[["seeds", "cam_entropy_mean", "cam_entropy_std"]].tolist() == pytest.approx(
        [2, 0.75 * ln2, np.std([ln2, ln2 / 2], ddof=1)]
    )
    assert own["grad_cam_focus_area_mean"] == pytest.approx((2 + np.sqrt(2)) / 2)
    assert own["grad_cam_focus_area_std"] == pytest.approx((2 - np.sqrt(2)) / np.sqrt(2))
    assert table.loc["droid", ["cam_entropy_mean", "cam_true_entropy_mean"]].tolist() == pytest.approx([0, ln2 / 2])
    assert np.isnan(table.loc["droid", "cam_entropy_std"])
    shown = focus.shown_focus(table.reset_index(), read(tmp_path)).cells.set_index("Method")
    assert shown.loc["Cross-entropy", "CAM / nats"] == "0.52 ± 0.25"
    assert shown.loc["DROID", "Grad-CAM / cells"] == "1.4"


def test_constant_maps_are_left_out_and_counted(tmp_path: Path) -> None:
    images = sample(np.stack([ONE_CELL] * 3))
    some = {kind: [TWO_CELLS, CONSTANT, CONSTANT] if kind == "grad_cam" else [TWO_CELLS] * 3 for kind in KINDS}
    keep(tmp_path, images, {"cross_entropy/seed0": some, "droid/seed0": np.stack([CONSTANT] * 3)})
    maps = read(tmp_path)
    table = focus.focus_table(maps)
    assert table["grad_cam_constant"].tolist() == [2, 3]
    assert table["cam_constant"].tolist() == [0, 3]
    assert table["grad_cam_entropy_mean"].tolist() == pytest.approx([np.log(2), np.nan], nan_ok=True)
    notes = focus.shown_focus(table, maps).notes
    assert any(
        note.startswith("Constant maps, which have no focus and are left out: 3 (CAM), 3 (True class), ")
        and note.endswith("and 5 (Grad-CAM) of 6 each.")
        for note in notes
    )
    assert "“–”: every map of a kind is constant in at least one run." in notes
    assert focus.shown_focus(table, maps).cells["CAM / nats"].tolist() == ["0.69", "–"]
    assert np.isnan(focus.mean_cams(maps)["droid"]).all()
    assert focus.human_agreement_table(maps)["mse_mean"].tolist() == pytest.approx([0.25, np.nan], nan_ok=True)
    assert focus.run_agreement_table(maps)["pearson_same_seed"].isna().all()


def survival(tmp_path: Path, entropies: dict[str, dict[str, float]]) -> str:
    """What is said of methods with these mean entropies, where there are maps of one cell."""
    keep(tmp_path, sample(np.stack([ONE_CELL])), {f"{method}/seed0": ONE_CELL[None] for method in entropies})
    maps = read(tmp_path)
    table = focus.focus_table(maps)
    for kind in KINDS:
        table[f"{kind}_entropy_mean"] = [entropies[method][kind] for method in table["method"]]
    return " ".join(focus.shown_focus(table, maps).notes)


def test_whether_a_low_entropy_survives_a_change_of_map(tmp_path: Path) -> None:
    baseline = dict.fromkeys(KINDS, 3.5)
    droid = baseline | {"cam": 2.5, "cam_true": 2.7, "cam_difference": 3.0, "grad_cam": 3.6}
    text = survival(
        tmp_path,
        {
            "cross_entropy": baseline,
            "droid": droid,
            "hseb": dict.fromkeys(KINDS, 3.0) | {"cam_true": 3.26},
            "cyborg": baseline,
        },
    )
    assert (
        "True class: it survives, at least by half, for DROID (0.80; CAM 1.00); it does not for HSEB (0.24; CAM 0.50). "
        in text
    )
    assert (
        "Logit difference: it survives, at least by half, for HSEB (0.50; CAM 0.50) and DROID (0.50; CAM 1.00). "
        in text
    )
    assert (
        "Grad-CAM: it survives, at least by half, for HSEB (0.50; CAM 0.50); it does not for DROID (−0.10; CAM 1.00)."
        in text
    )
    assert "CYBORG" not in text


def test_where_no_entropy_is_low_or_there_is_no_cross_entropy(tmp_path: Path) -> None:
    same = dict.fromkeys(KINDS, 3.5)
    assert "No method’s CAM entropy is 0.1 nats or more below" in survival(
        tmp_path / "a", {"cross_entropy": same, "droid": dict.fromkeys(KINDS, 3.41)}
    )
    assert "needs cross-entropy runs, and there are none" in survival(tmp_path / "b", {"droid": same})


def test_agreement_with_human_maps_over_the_seeds(tmp_path: Path) -> None:
    images = sample(np.stack([ONE_CELL, ONE_CELL, CONSTANT]), [True, True, False])
    keep(
        tmp_path,
        images,
        {
            "cyborg/seed0": [ONE_CELL, ONE_CELL, TWO_CELLS],
            "cyborg/seed1": [TWO_CELLS, ONE_CELL[::-1], TWO_CELLS],
            "droid/seed0": dict.fromkeys(KINDS, [ONE_CELL] * 3) | {"cam": [ONE_CELL[::-1], ONE_CELL[::-1], ONE_CELL]},
        },
    )
    maps = read(tmp_path)
    table = focus.human_agreement_table(maps)
    assert table[["method", "seeds", "images"]].values.tolist() == [["cyborg", 2, 2], ["droid", 1, 2]]
    assert table["mse_mean"].tolist() == pytest.approx([0.375 / 2, 0.5])
    assert table["mse_std"].tolist() == pytest.approx([0.375 / np.sqrt(2), np.nan], nan_ok=True)
    assert table["iou_mean"].tolist() == pytest.approx([(1 + 0.25) / 2, 0])
    assert table["pointing_mean"].tolist() == pytest.approx([(1 + 0.25) / 2, 0])
    assert focus.shown_human_agreement(table, maps, "human").cells["Pearson"].tolist() == ["0.561 ± 0.621", "−0.333"]
    notes = " ".join(focus.shown_human_agreement(table, maps, "human").notes)
    assert "beside the human maps of the same 2 images of set test" in notes
    assert "20 % highest; a random cell is one with probability 0.250." in notes
    assert "not human maps" not in notes
    # Both maps are the same, so the mean of the others is each of them.
    assert (
        "the mean of the other images’ maps, which does not look at the image at all, reaches MSE 0.000, Pearson "
        "1.000, Spearman 1.000, IoU of the top 20 % 1.000 and Pointing game 1.000." in notes
    )
    assert "These are simulated maps, not human maps" in " ".join(
        focus.shown_human_agreement(table, maps, "simulated").notes
    )


def test_the_mean_of_the_other_maps_knows_nothing_of_the_image(tmp_path: Path) -> None:
    """Of three maps: that of the first is the mean of the other two, and so on."""
    human_maps = np.stack([ONE_CELL, TWO_CELLS, ONE_CELL[::-1]])
    keep(tmp_path, sample(human_maps), {"droid/seed0": human_maps})
    maps = read(tmp_path)
    others = [[[1, 1], [1, 0]], [[1, 0], [1, 0]], [[1, 0.5], [0, 0]]]
    mse = np.mean([np.square(other - own).mean() for other, own in zip(others, human_maps, strict=True)])
    notes = " ".join(focus.shown_human_agreement(focus.human_agreement_table(maps), maps, "human").notes)
    assert f"reaches MSE {mse:.3f}, Pearson" in notes
    one = replace(maps, sample=sample(human_maps, [True, False, False]))
    assert "the other images" not in " ".join(
        focus.shown_human_agreement(focus.human_agreement_table(one), one, "human").notes
    )


def test_without_human_maps_there_is_no_agreement(tmp_path: Path) -> None:
    keep(tmp_path, sample(np.stack([CONSTANT]), [False]), {"droid/seed0": ONE_CELL[None]})
    assert focus.human_agreement_table(read(tmp_path)) is None
    assert read_maps_beside_human_maps(read_study(tmp_path), None) is None


def test_the_set_with_human_maps_is_found_and_named(tmp_path: Path) -> None:
    keep(tmp_path, sample(np.stack([CONSTANT]), [False]), {"droid/seed0": ONE_CELL[None]})
    for name, what in (("train", "These are images of the training"), ("val", "These are images of the validation")):
        keep(tmp_path, sample(np.stack([ONE_CELL])), {"droid/seed0": ONE_CELL[None]}, name)
        maps = read_maps_beside_human_maps(read_study(tmp_path), None)
        assert maps.name == name
        assert what in " ".join(focus.shown_human_agreement(focus.human_agreement_table(maps), maps, "human").notes)


def test_runs_are_compared_image_by_image(tmp_path: Path) -> None:
    """One method always looks at one cell and another at it or beside: correlations of 1, 1 / sqrt 3 and -1 / 3."""
    keep(
        tmp_path,
        sample(np.stack([ONE_CELL] * 2)),
        {
            "cross_entropy/seed0": [ONE_CELL, ONE_CELL],
            "cross_entropy/seed1": [ONE_CELL, TWO_CELLS],
            "droid/seed0": [ONE_CELL, ONE_CELL],
            "droid/seed2": [ONE_CELL[::-1], CONSTANT],
        },
    )
    maps = read(tmp_path)
    table = focus.run_agreement_table(maps)
    half = 1 / np.sqrt(3)
    assert table[["method", "against", "pairs", "pairs_same_seed"]].values.tolist() == [
        ["cross_entropy", "cross_entropy", 1, 0],
        ["droid", "cross_entropy", 3, 1],
        ["droid", "droid", 1, 0],
    ]
    seed1_seed0, seed0_seed2, seed1_seed2 = (1 + half) / 2, -1 / 3, -1 / 3
    assert table["pearson"].tolist() == pytest.approx(
        [(1 + half) / 2, (seed1_seed0 + seed0_seed2 + seed1_seed2) / 3, -1 / 3]
    )
    assert table["pearson_same_seed"].tolist() == pytest.approx([np.nan, 1, np.nan], nan_ok=True)
    shown = focus.shown_run_agreement(table, maps).cells.set_index("Method")
    assert shown.loc["Cross-entropy", "DROID"] == "1.000"
    assert shown.loc["DROID", "Cross-entropy"] == "0.041"
    assert shown.loc["DROID", "DROID"] == "−0.333"
    assert "Above the diagonal the runs have the same seed" in " ".join(focus.shown_run_agreement(table, maps).notes)


def test_one_run_agrees_with_none(tmp_path: Path) -> None:
    keep(tmp_path, sample(np.stack([ONE_CELL])), {"droid/seed0": ONE_CELL[None]})
    maps = read(tmp_path)
    table = focus.run_agreement_table(maps)
    assert table[["pairs", "pairs_same_seed"]].values.tolist() == [[0, 0]]
    assert np.isnan(table["pearson"][0])
    assert focus.shown_run_agreement(table, maps).cells.values.tolist() == [["DROID", "–"]]
    notes = focus.shown_run_agreement(table, maps).notes
    assert "“–”: there is no such pair of runs." in notes
    assert not any("Above the diagonal" in note for note in notes)


def test_mean_cams(tmp_path: Path) -> None:
    keep(
        tmp_path,
        sample(np.stack([ONE_CELL] * 2)),
        {"droid/seed0": [ONE_CELL, TWO_CELLS], "droid/seed1": [THREE_CELLS, CONSTANT]},
    )
    np.testing.assert_allclose(focus.mean_cams(read(tmp_path))["droid"], [[1, 2 / 3], [1 / 3, 0]], atol=1e-6)


# --- what is there, and what is not


def test_a_study_without_maps(tmp_path: Path) -> None:
    write_run(tmp_path, "droid", 0)
    study = read_study(tmp_path)
    assert read_study_maps(study) is None
    assert read_maps_beside_human_maps(study, None) is None
    save_maps(maps_file(tmp_path, "test"), sample(np.stack([ONE_CELL])))
    assert read_study_maps(study) is None


def test_runs_without_these_maps_are_named_and_left_out(tmp_path: Path) -> None:
    images = sample(np.stack([ONE_CELL]))
    keep(tmp_path, replace(images, sample="other"), {"hseb/seed0": ONE_CELL[None]})
    keep(tmp_path, images, {"cyborg/seed0": np.ones((1, 3, 3)), "droid/seed0": ONE_CELL[None]})
    for seed in range(4):
        write_run(tmp_path, "fmmmse", seed)
    maps = read(tmp_path)
    assert [run.name for run in maps.runs] == ["droid/seed0"]
    assert maps.maps["cam"].shape == (1, 1, 2, 2)
    assert maps.problems == [
        "No maps of fmmmse/seed0, fmmmse/seed1, fmmmse/seed2 and 1 more, which are not in these figures: python "
        "experiments/focus.py makes them.",
        "The maps of cyborg/seed0, hseb/seed0 are of other images or on another grid, and not in these figures: python "
        "experiments/focus.py makes them, with overwrite=true.",
    ]
    tables = focus.focus_table(maps), focus.human_agreement_table(maps), focus.run_agreement_table(maps)
    notes = (
        focus.shown_focus(tables[0], maps).notes,
        focus.shown_human_agreement(tables[1], maps, "human").notes,
        focus.shown_run_agreement(tables[2], maps).notes,
    )
    assert all(own[-2:] == maps.problems for own in notes)


def test_maps_of_an_earlier_checkpoint_are_named_and_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, "droid", 0, result={"checkpoint": "c"})
    write_run(tmp_path, "hseb", 0, result={"checkpoint": "of another training"})
    images = sample(np.stack([ONE_CELL]))
    keep(tmp_path, images, {"droid/seed0": ONE_CELL[None], "hseb/seed0": ONE_CELL[None]})
    maps = read(tmp_path)
    assert [run.name for run in maps.runs] == ["droid/seed0"]
    assert maps.problems == [
        "The maps of hseb/seed0 were made before these runs were trained again, and are not in these figures: python "
        "experiments/focus.py makes them, with overwrite=true."
    ]


def test_a_run_whose_maps_are_damaged_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep(tmp_path, sample(np.stack([ONE_CELL])), {"droid/seed0": ONE_CELL[None], "droid/seed1": ONE_CELL[None]})
    maps_file(tmp_path / "droid/seed1", "test").write_bytes(b"PK")
    maps = read(tmp_path)
    assert [run.name for run in maps.runs] == ["droid/seed0"]
    assert maps.problems == [
        "The maps of droid/seed1 cannot be read as plain arrays, and are not in these figures: python "
        "experiments/focus.py makes them, with overwrite=true."
    ]
    # One kind of file is not the other.
    shutil.copy(maps_file(tmp_path, "test"), maps_file(tmp_path / "droid/seed0", "test"))
    assert read_study_maps(read_study(tmp_path)) is None
    assert "The maps of droid/seed0, droid/seed1 cannot be read" in caplog.text


def test_a_damaged_file_of_the_study_is_named(tmp_path: Path) -> None:
    keep(tmp_path, sample(np.stack([ONE_CELL])), {"droid/seed0": ONE_CELL[None]})
    shutil.copy(maps_file(tmp_path / "droid/seed0", "test"), maps_file(tmp_path, "test"))
    with pytest.raises(UserError, match=r"maps/test\.npz cannot be read as plain arrays .*; delete it and"):
        read(tmp_path)


def test_tables_are_written_as_the_others_are(tmp_path: Path) -> None:
    keep(tmp_path, sample(np.stack([ONE_CELL] * 2)), {f"{m}/seed0": [ONE_CELL, TWO_CELLS] for m in ("cyborg", "droid")})
    maps = read(tmp_path)
    for shown in (
        focus.shown_focus(focus.focus_table(maps), maps),
        focus.shown_human_agreement(focus.human_agreement_table(maps), maps, "human"),
        focus.shown_run_agreement(focus.run_agreement_table(maps), maps),
    ):
        assert shown.cells.map(lambda cell: isinstance(cell, str)).all(axis=None)
        assert markdown(shown.cells).count("\n") == 4
        assert pd.api.types.is_numeric_dtype(shown.numbers.iloc[:, -1])
