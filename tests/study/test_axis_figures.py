"""The figures along the axes of a study draw the numbers of the table."""

from pathlib import Path

import pytest
from benchmarks.made_up_study import write_variant

from saliency_entropy.study.axes import StudyAxes, read_axes, variant_table
from saliency_entropy.study.axis_figures import auroc_by_axis
from saliency_entropy.study.figures import pdf, png

TARGET = "loss.terms.entropy_match.target"


@pytest.fixture(scope="module")
def axes(tmp_path_factory: pytest.TempPathFactory) -> StudyAxes:
    """One numeric axis, and cross-entropy, which has no such setting."""
    study = tmp_path_factory.mktemp("runs") / "dose"
    for value in (3, 0.5, 1):
        write_variant(study, {TARGET: value}, {"hseb": 2}, title="Asked $for", strength=value / 3)
    write_variant(study, {TARGET: None}, {"cross_entropy": 2})
    return read_axes([study])


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_line_of_means_in_a_band_of_one_standard_deviation(axes: StudyAxes) -> None:
    figure = auroc_by_axis(axes)
    table = variant_table(axes)
    own = table[table["method"] == "hseb"]
    for panel, name in zip(figure.axes, ("auroc_unseen", "cam_entropy"), strict=True):
        beside, line = panel.lines[:2]
        assert list(line.get_xdata()) == [0.5, 1, 3]
        assert list(line.get_ydata()) == pytest.approx(list(own[f"{name}_mean"]))
        (band,) = panel.collections
        band = band.get_paths()[0].vertices
        assert band[:, 1].max() == pytest.approx((own[f"{name}_mean"] + own[f"{name}_std"]).max())
        assert list(beside.get_ydata()) == pytest.approx([table[f"{name}_mean"].iloc[-1]] * 2)
    best = "Paper’s best, 2.0–2.5"
    assert labels(figure) == ["Cross-entropy, target=null", r"Asked \$for", "As asked for", best]
    for panel in figure.axes:
        (shaded,) = [patch for patch in panel.patches if patch.get_label() == best]
        assert [shaded.get_x(), shaded.get_x() + shaded.get_width()] == [2.0, 2.5]
    assert figure.axes[1].get_xlabel() == TARGET
    assert "nats" in figure.axes[1].get_ylabel()


def test_what_stands_for_all_is_in_every_panel_and_each_method_in_the_legend(tmp_path: Path) -> None:
    for control in ("none", "shuffled"):
        for value in (0.25, 1):
            alone = (control, value) == ("none", 1)
            methods = {"cyborg": 2} if control == "none" else {"hseb": 2}
            values = {"data.human_maps.control": control, "data.human_maps.fraction": value}
            write_variant(tmp_path / "study", values, methods | ({"cross_entropy": 2} if alone else {}))
    figure = auroc_by_axis(read_axes([tmp_path / "study"]))
    # Two panels of AUROC, and below them two of the CAM entropy.
    dashed = [[line for line in panel.lines if line.get_linestyle() == "--"] for panel in figure.axes]
    assert [len(lines) for lines in dashed] == [1, 1, 1, 1]
    assert [label.partition(",")[0] for label in labels(figure)] == ["Cross-entropy", "CYBORG", "HSEB"]


def test_cross_entropy_that_was_trained_once_lies_across_every_share_of_maps(tmp_path: Path) -> None:
    for value in (0.05, 0.25, 1):
        methods = {"cyborg": 2} | ({"cross_entropy": 2} if value == 1 else {})
        write_variant(tmp_path / "study", {"fraction": value}, methods)
    axes = read_axes([tmp_path / "study"])
    table = variant_table(axes)
    row = table[table["method"] == "cross_entropy"].iloc[0]
    figure = auroc_by_axis(axes)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "Cross-entropy, fraction=1"]
    assert list(line.get_xdata()) == [0, 1]  # of the panel's width
    assert list(line.get_ydata()) == [row["auroc_unseen_mean"]] * 2
    (band,) = figure.axes[0].patches  # and nothing shaded, since the axis is no entropy
    bounds = band.get_extents().transformed(figure.axes[0].transData.inverted())
    spread = row["auroc_unseen_std"]
    assert [bounds.y0, bounds.y1] == pytest.approx([line.get_ydata()[0] - spread, line.get_ydata()[0] + spread])


def test_cross_entropy_that_was_trained_once_lies_across_every_control(tmp_path: Path) -> None:
    for value in ("none", "shuffled"):
        methods = {"cyborg": 2} | ({"cross_entropy": 2} if value == "none" else {})
        write_variant(tmp_path / "study", {"data.human_maps.control": value}, methods)
    axes = read_axes([tmp_path / "study"])
    table = variant_table(axes)
    panel = auroc_by_axis(axes).axes[0]
    (dots,) = panel.containers
    assert dots.get_label() == "CYBORG"
    (line,) = [line for line in panel.lines if line.get_label() == "Cross-entropy, control=none"]
    mean = table.loc[table["method"] == "cross_entropy", "auroc_unseen_mean"].item()
    assert list(line.get_ydata()) == [mean] * 2


def test_a_method_that_one_network_has_so_far_stays_a_dot(tmp_path: Path) -> None:
    for backbone, methods in {"tiny": {"cyborg": 2, "droid": 2}, "resnet50": {"cyborg": 2}}.items():
        write_variant(tmp_path / "study", {"backbone": backbone}, methods)
    panel = auroc_by_axis(read_axes([tmp_path / "study"])).axes[0]
    assert [dots.get_label() for dots in panel.containers] == ["CYBORG", "DROID"]
    assert {line.get_linestyle() for line in panel.lines} == {"None"}


def test_files_for_print_and_screen(axes: StudyAxes) -> None:
    figure = auroc_by_axis(axes, "auroc")
    assert png(figure).startswith(b"\x89PNG")
    assert pdf(figure).startswith(b"%PDF")


def test_a_panel_for_each_choice_of_the_other_axis_in_one_scale(tmp_path: Path) -> None:
    for backbone in ("tiny", "resnet50"):
        for value in (1e-4, 0.1):
            write_variant(tmp_path / "study", {"backbone": backbone, "lr": value}, {"droid": 1, "hseb": 1})
    figure = auroc_by_axis(read_axes([tmp_path / "study"]))
    assert [panel.get_title() for panel in figure.axes] == ["resnet50", "tiny", "", ""]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert {panel.get_xscale() for panel in figure.axes} == {"log"}
    assert labels(figure) == ["HSEB", "DROID"]


@pytest.mark.parametrize("count", [4, 5])
def test_more_panels_than_are_legible_become_dots(tmp_path: Path, count: int) -> None:
    for backbone in "abcde"[:count]:
        for value in (0.1, 1):
            write_variant(tmp_path / "study", {"backbone": backbone, "fraction": value}, {"droid": 1})
    figure = auroc_by_axis(read_axes([tmp_path / "study"]))
    assert len(figure.axes) == (8 if count == 4 else 2)


def test_dots_of_the_methods_beside_each_other_where_no_axis_is_numeric(tmp_path: Path) -> None:
    for backbone in ("tiny", "resnet50"):
        write_variant(tmp_path / "study", {"backbone": backbone}, {"cross_entropy": 2, "droid": 2})
    axes = read_axes([tmp_path / "study"])
    table = variant_table(axes)
    for panel, name in zip(auroc_by_axis(axes).axes, ("auroc_unseen", "cam_entropy"), strict=True):
        for shift, method, container in zip((-0.2, 0.2), ("cross_entropy", "droid"), panel.containers, strict=True):
            own = table[table["method"] == method]
            assert list(container.lines[0].get_xdata()) == pytest.approx([shift, 1 + shift])
            assert list(container.lines[0].get_ydata()) == list(own[f"{name}_mean"])
    panel = auroc_by_axis(axes).axes[1]
    assert [text.get_text() for text in panel.get_xticklabels()] == ["resnet50", "tiny"]
    assert panel.get_xlabel() == "backbone"


def test_one_seed_has_no_band(tmp_path: Path) -> None:
    for value in (0.1, 0.5):
        write_variant(tmp_path / "study", {"fraction": value}, {"droid": 1})
    assert png(auroc_by_axis(read_axes([tmp_path / "study"])))
