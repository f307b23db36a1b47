"""What the figures draw, read back from their lines, points and boxes."""

import re

import numpy as np
import pandas as pd
import pytest
from made_up import ENTROPY, TITLES, write_run, write_study
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch

from saliency_entropy.study import figures, tables
from saliency_entropy.study.runs import read_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return read_study(write_study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def measures(study):
    return tables.measure(study)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Six seeds of two methods, one of a third."""
    return read_study(write_study(tmp_path_factory.mktemp("many"), {"cross_entropy": 6, "hseb": 1, "droid": 6}))


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def legend_labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_style_of_a_method_does_not_depend_on_the_others():
    alone = figures.method_styles(["droid"])["droid"]
    beside = figures.method_styles([*TITLES, "further", "another"])
    assert beside["droid"] == alone
    assert len({style.colour for style in beside.values()}) == len({style.marker for style in beside.values()}) == 8


@pytest.mark.parametrize("split", ["train", "val"])
def test_cam_entropy_by_epoch(study, split):
    figure = figures.cam_entropy_by_epoch(study, split)
    axes = figure.axes[0]
    curves = np.stack(
        [pd.read_csv(run.folder / "metrics.csv")[f"{split}/cam_entropy"] for run in study.of_method("hseb")]
    )
    drawn = line(axes, "HSEB")
    assert drawn.get_xdata() == pytest.approx([1, 2, 3, 4])
    assert drawn.get_ydata() == pytest.approx(curves.mean(axis=0))
    assert line(axes, "Maximum, ln 49").get_ydata() == pytest.approx([np.log(49)] * 2)
    assert line(axes, "Human maps, 3.00").get_ydata() == pytest.approx([3.0] * 2)
    band = axes.collections[list(TITLES).index("hseb")].get_paths()[0].vertices[:, 1]
    std = curves.std(axis=0, ddof=1)
    assert band.max() == pytest.approx((curves.mean(axis=0) + std).max())
    assert band.min() == pytest.approx((curves.mean(axis=0) - std).min())
    assert ("training" if split == "train" else "validation") in axes.get_ylabel()
    assert axes.get_ylabel().endswith("(nats)")
    assert legend_labels(figure) == [*TITLES.values(), "Maximum, ln 49", "Human maps, 3.00"]


def test_epochs_that_one_run_lacks_are_the_mean_of_the_others(tmp_path):
    write_run(tmp_path, "droid", 0, epochs=2)
    write_run(tmp_path, "droid", 1, epochs=3)
    drawn = line(figures.cam_entropy_by_epoch(read_study(tmp_path)).axes[0], "DROID")
    longer = pd.read_csv(tmp_path / "droid" / "seed1" / "metrics.csv")["train/cam_entropy"]
    assert drawn.get_ydata()[2] == pytest.approx(longer[2])


def test_without_maps_there_is_no_human_line_and_other_maps_are_called_what_they_are(tmp_path):
    write_run(tmp_path / "a", "droid", 0, result={"human_entropy": None})
    assert legend_labels(figures.cam_entropy_by_epoch(read_study(tmp_path / "a"))) == ["DROID", "Maximum, ln 49"]
    write_run(tmp_path / "b", "droid", 0, config={"data": {"template_maps": True}})
    assert legend_labels(figures.cam_entropy_by_epoch(read_study(tmp_path / "b")))[-1] == "Template maps, 3.00"
    write_run(tmp_path / "c", "droid", 0, config={"data": {"name": "builtin"}})
    assert legend_labels(figures.cam_entropy_by_epoch(read_study(tmp_path / "c")))[-1] == "Simulated maps, 3.00"


def test_auroc_against_cam_entropy(study, measures):
    axes = figures.auroc_against_cam_entropy(study, measures).axes[0]
    points = {group.get_label(): group for group in axes.collections}
    assert list(points) == list(TITLES.values())
    own = measures.runs[measures.runs["method"] == "fmmmse"]
    assert np.asarray(points["FMMMSE"].get_offsets()) == pytest.approx(own[["cam_entropy", "auroc_unseen"]].to_numpy())
    assert abs(points["FMMMSE"].get_offsets()[:, 0] - ENTROPY["fmmmse"]).max() < 1
    assert to_hex(points["FMMMSE"].get_facecolor()[0]).upper() == figures.method_styles(["fmmmse"])["fmmmse"].colour
    assert axes.get_xlabel() == "Mean CAM entropy, test images (nats)"
    assert axes.get_ylabel() == "Test AUROC, unseen generators"


def test_boxes_from_five_seeds_on_and_points_below(many):
    measures = tables.measure(many)
    axes = figures.auroc_by_method(many, measures).axes[0]
    values = measures.runs.groupby("method")["auroc_unseen"].apply(np.array)
    boxes = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
    assert len(boxes) == 2
    for box, method in zip(boxes, ("cross_entropy", "droid"), strict=True):
        low, median, high = np.percentile(values[method], [25, 50, 75])
        half = 1.57 * (high - low) / np.sqrt(6)
        heights = box.get_path().vertices[:, 1]
        for height in (low, high, median, median - half, median + half):
            assert np.abs(heights - height).min() < 1e-9
    points = [drawn for drawn in axes.lines if drawn.get_marker() == figures.method_styles(["hseb"])["hseb"].marker]
    assert points[0].get_ydata() == pytest.approx(values["hseb"])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["Cross-entropy", "HSEB", "DROID"]


def test_equal_runs_are_points_side_by_side(study, measures):
    axes = figures.auroc_by_method(study, measures).axes[0]
    assert not axes.patches
    assert len(axes.lines) == 6
    assert np.unique(axes.lines[0].get_xdata()).size == 3


def test_mean_roc(study, measures):
    axes = figures.mean_roc(study, measures).axes[0]
    curves = measures.roc["droid"]
    assert curves.shape == (3, 201)
    drawn = line(axes, "DROID")
    assert drawn.get_ydata() == pytest.approx(curves.mean(axis=0))
    # The area below the drawn curve is the AUROC in the table, but for the grid.
    area = np.trapezoid(drawn.get_ydata(), drawn.get_xdata())
    own = measures.runs.loc[measures.runs["method"] == "droid", "auroc_unseen"]
    assert area == pytest.approx(own.mean(), abs=5e-3)
    band = axes.collections[list(TITLES).index("droid")].get_paths()[0].vertices
    middle = band[np.isclose(band[:, 0], 0.5), 1]
    error = curves[:, 100].std(ddof=1) / np.sqrt(3)
    assert [middle.min(), middle.max()] == pytest.approx([curves[:, 100].mean() - error, curves[:, 100].mean() + error])


def test_one_seed_has_no_band(tmp_path):
    study = read_study(write_study(tmp_path, {"droid": 1}))
    assert not figures.mean_roc(study, tables.measure(study)).axes[0].collections
    band = figures.cam_entropy_by_epoch(study).axes[0].collections
    assert all(len(path.vertices) == 0 for group in band for path in group.get_paths())


def test_a_study_of_one_epoch_has_one_tick(tmp_path):
    axes = figures.cam_entropy_by_epoch(read_study(write_study(tmp_path, {"droid": 2}, epochs=1))).axes[0]
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_further_methods_have_room_and_signs_in_titles_are_no_formulas(tmp_path):
    write_study(tmp_path, {"droid": 1, "cyborg": 1})
    write_run(tmp_path, "seventh", 0, title="A method of a very long name $x^2$ and $")
    study = read_study(tmp_path)
    measures = tables.measure(study)
    for figure in (
        figures.cam_entropy_by_epoch(study),
        figures.auroc_against_cam_entropy(study, measures),
        figures.auroc_by_method(study, measures),
        figures.mean_roc(study, measures),
    ):
        assert figures.png(figure).startswith(b"\x89PNG")


def test_a_pdf_is_vector_graphics_with_its_text(study, measures):
    content = figures.pdf(figures.auroc_by_method(study, measures))
    assert content.startswith(b"%PDF")
    assert not re.search(rb"/Subtype\s*/Image", content)
    assert b"/TrueType" in content or b"/CIDFontType2" in content
    assert content == figures.pdf(figures.auroc_by_method(study, measures))


@pytest.mark.parametrize("name", ["cam_entropy_by_epoch", "mean_roc", "auroc_by_method", "auroc_against_cam_entropy"])
def test_no_text_lies_on_another_or_outside_the_figure(study, measures, name):
    figure = getattr(figures, name)(*((study,) if name == "cam_entropy_by_epoch" else (study, measures)))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    texts = [axes.xaxis.label, axes.yaxis.label]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    boxes = [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
    if figure.legends:
        assert not figure.legends[0].get_window_extent().overlaps(axes.get_window_extent())
