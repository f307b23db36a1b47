"""What the figures draw, read back from their lines, points and boxes."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from benchmarks.made_up_study import ENTROPY, TITLES, scored_images, write_maps, write_run, write_study
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch
from PIL import Image
from scipy import stats

from saliency_entropy.page.overlay import cam_overlay
from saliency_entropy.study import figures, tables
from saliency_entropy.study.focus import read_study_maps
from saliency_entropy.study.runs import read_study
from saliency_entropy.study.sections import _map_figures


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


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Maps of eight test images, the odd ones without a human map: of two generators and real ones."""
    folder = write_study(tmp_path_factory.mktemp("maps"), {"cross_entropy": 2, "droid": 1})
    write_maps(folder, [1, 2, 3, 121, 123, 181, 182, 184])
    return read_study_maps(read_study(folder))


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def legend_labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_style_of_a_method_does_not_depend_on_the_others():
    alone = figures.method_styles(["droid"])["droid"]
    beside = figures.method_styles([*TITLES, "further", "another"])
    assert beside["droid"] == alone
    assert len({style.colour for style in beside.values()}) == len({style.marker for style in beside.values()}) == 8


def test_no_colour_is_hard_to_see_on_white():
    """The contrast of the WCAG; that of Okabe and Ito's yellow is 1.3."""
    for colour in figures.COLOURS:
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) > 2
    assert len(set(figures.COLOURS)) == 9


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


def test_an_epoch_in_which_a_run_has_no_entropy_is_not_the_mean_of_the_others(tmp_path):
    write_study(tmp_path, {"droid": 3})
    path = tmp_path / "droid" / "seed1" / "metrics.csv"
    epochs = pd.read_csv(path)
    epochs.loc[2:, "train/cam_entropy"] = np.nan
    epochs.to_csv(path, index=False)
    drawn = line(figures.cam_entropy_by_epoch(read_study(tmp_path)).axes[0], "DROID")
    assert np.isnan(drawn.get_ydata()).tolist() == [False, False, True, True]


def test_without_maps_there_is_no_human_line_and_other_maps_are_called_what_they_are(tmp_path):
    write_run(tmp_path / "a", "droid", 0, result={"human_entropy": None})
    assert legend_labels(figures.cam_entropy_by_epoch(read_study(tmp_path / "a"))) == ["DROID", "Maximum, ln 49"]
    write_run(tmp_path / "b", "droid", 0, config={"data": {"template_maps": True}})
    assert legend_labels(figures.cam_entropy_by_epoch(read_study(tmp_path / "b")))[-1] == "Template maps, 3.00"
    write_run(tmp_path / "c", "droid", 0, config={"data": {"name": "builtin"}})
    assert legend_labels(figures.cam_entropy_by_epoch(read_study(tmp_path / "c")))[-1] == "Simulated maps, 3.00"


def test_auroc_against_cam_entropy(study, measures):
    panels = figures.auroc_against_cam_entropy(study, measures).axes
    own = measures.runs[measures.runs["method"] == "fmmmse"]
    for axes, name, title in zip(panels, ("auroc_unseen", "auroc_unseen_margin"), ("logit 1", "margin"), strict=True):
        points = {group.get_label(): group for group in axes.collections}
        assert list(points) == list(TITLES.values())
        assert np.asarray(points["FMMMSE"].get_offsets()) == pytest.approx(own[["cam_entropy", name]].to_numpy())
        assert abs(points["FMMMSE"].get_offsets()[:, 0] - ENTROPY["fmmmse"]).max() < 1
        colour = to_hex(points["FMMMSE"].get_facecolor()[0]).upper()
        assert colour == figures.method_styles(["fmmmse"])["fmmmse"].colour
        assert axes.get_ylabel() == "Test AUROC, unseen generators"
        assert axes.get_title(loc="left") == f"Ranked by {title}"
    assert panels[1].get_xlabel() == "Mean CAM entropy, test images (nats)"
    assert panels[0].get_ylim() == panels[1].get_ylim()


def test_boxes_from_five_seeds_on_and_points_below(many):
    measures = tables.measure(many)
    panels = figures.auroc_by_method(many, measures).axes
    for axes, name in zip(panels, ("auroc_unseen", "auroc_unseen_margin"), strict=True):
        values = measures.runs.groupby("method")[name].apply(np.array)
        boxes = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
        assert len(boxes) == 2
        for box, method in zip(boxes, ("cross_entropy", "droid"), strict=True):
            low, median, high = np.percentile(values[method], [25, 50, 75])
            half = 1.57 * (high - low) / np.sqrt(6)
            heights = box.get_path().vertices[:, 1]
            for height in (low, high, median, median - half, median + half):
                assert np.abs(heights - height).min() < 1e-9
        marker = figures.method_styles(["hseb"])["hseb"].marker
        points = [drawn for drawn in axes.lines if drawn.get_marker() == marker]
        assert points[0].get_ydata() == pytest.approx(values["hseb"])
    assert [tick.get_text() for tick in panels[1].get_xticklabels()] == ["Cross-entropy", "HSEB", "DROID"]


def test_a_notch_beyond_the_whiskers_is_in_sight(tmp_path):
    study = read_study(write_study(tmp_path / "demo", {"droid": 6}))
    measures = tables.measure(study)
    values = np.repeat([0.5, 0.9], 3)  # the median 0.7, and 1.57 * 0.4 / sqrt 6 = 0.256 to each side of it
    shifted = measures.runs.assign(auroc_unseen=values, auroc_unseen_margin=values)
    for axes in figures.auroc_by_method(study, replace(measures, runs=shifted)).axes:
        low, high = axes.get_ylim()
        assert low < 0.7 - 0.256
        assert high > 0.7 + 0.256


def test_equal_runs_are_points_side_by_side(study, measures):
    axes = figures.auroc_by_method(study, measures).axes[0]
    assert not axes.patches
    assert len([drawn for drawn in axes.lines if drawn.get_linestyle() == "None"]) == 6
    assert np.unique(axes.lines[0].get_xdata()).size == 3


@pytest.mark.parametrize(("lowest", "chance"), [(0.45, [0.5, 0.5]), (0.6, None)])
def test_chance_is_drawn_where_it_is_in_sight(study, measures, lowest, chance):
    ranks = measures.runs["auroc_unseen"].rank() * 0.005 + lowest
    shifted = measures.runs.assign(auroc_unseen=ranks, auroc_unseen_margin=ranks)
    axes = figures.auroc_by_method(study, replace(measures, runs=shifted)).axes[0]
    dashed = [list(drawn.get_ydata()) for drawn in axes.lines if drawn.get_linestyle() == "--"]
    assert dashed == ([chance] if chance else [])


@pytest.mark.parametrize("score", ["logit", "margin"])
def test_mean_roc(study, measures, score):
    measures = measures.by(score)
    axes = figures.mean_roc(study, measures).axes[["logit", "margin"].index(score)]
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


def test_the_mean_of_both_logits_beside_the_margin(study, measures):
    figure = figures.common_mode(study, measures)
    values = measures.runs.loc[measures.runs["method"] == "hseb", "common_mode_ratio"]
    drawn = figure.axes[0].lines[list(TITLES).index("hseb")]
    assert list(drawn.get_ydata()) == list(values)
    assert drawn.get_xdata() == pytest.approx([2.88, 3, 3.12])
    assert figure.axes[0].get_yscale() == "log"
    # Of independent logits of the same variance the mean varies as much as half the margin.
    assert values.to_numpy() == pytest.approx(np.ones(3), abs=0.6)


def test_the_share_of_runs_above_each_auroc_by_generator_in_the_interval_over_its_seeds(study, measures):
    panels = figures.performance_profile(study, measures).axes
    own = measures.generators.query("method == 'droid' and seen == 'no' and against == ''")
    assert len(own) == 6  # three seeds on two generators
    for axes, name in zip(panels, ("auroc", "auroc_margin"), strict=True):
        drawn = line(axes, "DROID")
        band = axes.collections[list(TITLES).index("droid")].get_paths()
        corners = np.concatenate([path.vertices for path in band])
        for threshold, share in zip(drawn.get_xdata(), drawn.get_ydata(), strict=True):
            assert share == pytest.approx((own[name] > threshold).mean())
            # One detector is tested on both generators, so that there are three values, not six.
            values = (own[name] > threshold).groupby(own["seed"]).mean()
            ends = corners[np.isclose(corners[:, 0], threshold, atol=1e-9), 1]
            if values.nunique() > 1:
                half = stats.t.ppf(0.975, 2) * values.std() / np.sqrt(3)
                assert min(ends) == pytest.approx(max(0, share - half))
                assert max(ends) == pytest.approx(min(1, share + half))
        assert (drawn.get_ydata()[0], drawn.get_ydata()[-1]) == (1, 0)


def test_the_share_of_runs_where_no_generator_is_unseen_or_has_an_auroc(measures):
    overall = figures.aurocs_of_seeds(replace(measures, measure="auroc"))["droid"]
    assert overall[:, 0].tolist() == measures.runs.query("method == 'droid'")["auroc"].tolist()
    few = replace(measures, generators=measures.generators.assign(auroc=np.nan))
    assert figures.aurocs_of_seeds(few)["droid"].shape == (3, 1)


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
        figures.common_mode(study, measures),
        figures.performance_profile(study, measures),
    ):
        assert figures.png(figure).startswith(b"\x89PNG")


def test_a_notebook_shows_a_figure(study, measures):
    """Also where nothing loaded pyplot's backend for notebooks, as with the lines that the README gives."""
    figure = figures.auroc_by_method(study, measures)
    assert figure._repr_png_() == (figures.png(figure), {"width": 700})


def test_a_pdf_is_vector_graphics_with_its_text(study, measures):
    content = figures.pdf(figures.auroc_by_method(study, measures))
    assert content.startswith(b"%PDF")
    assert not re.search(rb"/Subtype\s*/Image", content)
    assert b"/TrueType" in content or b"/CIDFontType2" in content
    assert content == figures.pdf(figures.auroc_by_method(study, measures))


@pytest.mark.parametrize(
    "name",
    ["cam_entropy_by_epoch", "mean_roc", "auroc_by_method", "auroc_against_cam_entropy", "common_mode",
     "performance_profile"],
)  # fmt: skip
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


# --- images and maps


def rows_of(figure, columns):
    """The axes of a figure of images, row by row."""
    return [figure.axes[start : start + columns] for start in range(0, len(figure.axes), columns)]


def drawn(axes):
    return np.asarray(axes.images[0].get_array())


def overlay(maps, cells, place):
    grey = np.asarray(Image.fromarray(maps.sample.image[place]).convert("L").convert("RGB"))
    return np.asarray(cam_overlay(grey, cells[place]))


def entropy(cells):
    p = cells[cells > 0] / cells.sum()
    return -(p * np.log(p)).sum()


def test_cams_by_method(maps):
    """The first real and the first synthetic image with a human map, and the CAMs of each method's first seed."""
    rows = rows_of(figures.cams_by_method(maps), 4)
    assert [axes.get_title() for axes in rows[0]] == ["Image", "Human map", "Cross-entropy", "DROID"]
    assert [row[0].get_ylabel() for row in rows] == ["real", "progan"]
    for row, place in zip(rows, (6, 1), strict=True):
        np.testing.assert_array_equal(drawn(row[0]), maps.sample.image[place])
        columns = (maps.sample.human_map, maps.maps["cam"][0], maps.maps["cam"][2])
        for axes, cells in zip(row[1:], columns, strict=True):
            np.testing.assert_array_equal(drawn(axes), overlay(maps, cells, place))
            assert axes.get_xlabel() == f"{entropy(cells[place].astype(float)):.2f}"


def test_images_of_ones_own_choice_with_and_without_human_maps(maps):
    rows = rows_of(figures.cams_by_method(maps, [4, 7]), 4)
    assert [row[0].get_ylabel() for row in rows] == ["stylegan3", "real"]
    assert [row[1].get_xlabel() == "none" for row in rows] == [True, False]
    assert (drawn(rows[0][1]) == 255).all()
    rows = rows_of(figures.cams_by_method(maps, [4]), 3)
    assert [axes.get_title() for axes in rows[0]] == ["Image", "Cross-entropy", "DROID"]


def test_the_first_marked_images_of_each_label_of_the_decoy(tmp_path):
    images = scored_images().iloc[::10].reset_index(drop=True).assign(mark="no")  # 18 synthetic ones, then 8 real ones
    images.loc[[0, 2, 5, 20, 25], "mark"] = "yes"
    for name, expected in (("decoy", [6, 8, 0, 1]), ("faces", None)):
        study = write_study(tmp_path / name, {"droid": 1}, images=images, config={"data": {"name": name}})
        write_maps(study, rows=[0, 2, 3, 4, 5, 18, 20, 21, 25], images=images)
        assert figures.marked_images(read_study_maps(read_study(study))) == expected


def test_an_image_of_each_generator_and_a_real_one(maps):
    rows = rows_of(figures.cams_by_generator(maps), 4)
    assert [row[0].get_ylabel() for row in rows] == ["real", "progan", "stylegan3"]
    for row, place in zip(rows, (6, 1, 3), strict=True):
        np.testing.assert_array_equal(drawn(row[0]), maps.sample.image[place])
    many = replace(maps, sample=replace(maps.sample, generator=np.array([f"g{i}" for i in range(8)])))
    assert len(rows_of(figures.cams_by_generator(many), 4)) == 8


def test_maps_by_entropy(maps):
    """From the widest of all CAMs to the narrowest, each with its entropy and focus area."""
    figure = figures.maps_by_entropy(maps, count=4)
    *panels, bar = figure.axes
    everything = maps.maps["cam"].reshape(-1, 7, 7).astype(float)
    found = np.array([entropy(cells) for cells in everything])
    wanted = np.linspace(found.max(), found.min(), 4)
    expected = [np.abs(found - value).argmin() for value in wanted]
    assert len(set(expected)) == 4
    for axes, place in zip(panels, expected, strict=True):
        np.testing.assert_allclose(drawn(axes), everything[place])
        assert axes.get_xlabel() == f"H = {found[place]:.2f}\n{np.exp(found[place]):.1f} cells"
        assert axes.images[0].get_clim() == (0, 1)
        assert axes.images[0].get_cmap().name == "plasma"
    assert bar.get_ylim() == (0, 1)


def test_mean_cam_by_method(maps):
    *panels, _ = figures.mean_cam_by_method(maps).axes
    assert [axes.get_xlabel() for axes in panels] == ["Cross-entropy", "DROID", "Human maps"]
    cams = maps.maps["cam"]
    human_maps = maps.sample.human_map[[1, 6, 7]]
    for axes, expected in zip(
        panels, (cams[:2].mean(axis=(0, 1)), cams[2].mean(axis=0), human_maps.mean(axis=0)), strict=True
    ):
        np.testing.assert_allclose(drawn(axes), expected, atol=1e-6)


def test_constant_maps_are_called_so(maps):
    constant = replace(maps, maps=dict.fromkeys(maps.maps, np.zeros_like(maps.maps["cam"])))
    row = rows_of(figures.cams_by_method(constant), 4)[0]
    assert [axes.get_xlabel() for axes in row[2:]] == ["constant", "constant"]
    assert figures.maps_by_entropy(constant).axes[0].get_xlabel() == "every map is constant"
    assert np.ma.getmaskarray(figures.mean_cam_by_method(constant).axes[0].images[0].get_array()).all()


@pytest.mark.parametrize("name", ["cams_by_method", "cams_by_generator", "maps_by_entropy", "mean_cam_by_method"])
def test_no_text_lies_on_another_in_figures_of_maps(tmp_path, name):
    write_study(tmp_path, dict.fromkeys(TITLES, 1))
    write_run(tmp_path, "seventh", 0, title="A method of a long name $x^2$")
    write_maps(tmp_path, [1, 2, 3, 61, 121, 181, 182])
    maps = read_study_maps(read_study(tmp_path))
    figure = getattr(figures, name)(maps)
    figure.draw_without_rendering()
    texts = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    pictures = [axes.get_window_extent() for axes in figure.axes]
    assert len(boxes) >= 6
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in [*boxes[i + 1 :], *pictures])
    assert figures.png(figure).startswith(b"\x89PNG")
    one, other = (figures.pdf(getattr(figures, name)(maps)) for _ in range(2))
    assert one == other


def test_captions_name_maps_only_where_there_are_some(maps):
    without = replace(maps, sample=replace(maps.sample, has_map=np.zeros_like(maps.sample.has_map)))
    for of_study, named in ((maps, True), (without, False)):
        captions = [shown.caption for shown in _map_figures(of_study, photographs=True)]
        assert ["human map" in caption for caption in captions] == [named, named, False, named]
