"""Figures along the axes of a study. Each function returns a Figure, which a notebook shows as it is."""

import textwrap
from collections.abc import Iterator

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes

from saliency_entropy.study.axes import StudyAxes, axis_value, measure_title, numeric_axis, variant_table
from saliency_entropy.study.figures import GREY, STYLE, WIDTH, Figure, method_styles, plain

ENTROPY = "cam_entropy"
ENTROPY_TITLE = "CAM entropy,\ntest images (nats)"
MOST_PANELS = 4
LOGARITHMIC = 50  # the ratio of an axis' highest value to its lowest from which on its scale is logarithmic
TARGET = "entropy_match.target"  # ends the axis of the entropy asked for


@rc_context(STYLE)
def auroc_by_axis(axes: StudyAxes, measure: str | None = None) -> Figure:
    """AUROC, and the mean CAM entropy (nats) that the detectors reached on the test images.

    By a numeric axis, if there is one (:func:`~saliency_entropy.study.axes.numeric_axis`): a line for each method, the
    mean over its seeds in a band of one standard deviation; dashed, where it is in one variant only; a panel for each
    choice of the other axes. Else, or with more than 4 panels: the mean of each method in each variant, ± one standard
    deviation.

    Args:
        axes: the variants.
        measure: as for :func:`~saliency_entropy.study.axes.variant_table`.
    """
    measure = measure or axes.measure
    table, key = variant_table(axes, measure), numeric_axis(axes)
    if key is not None:
        others = [other for other in axes.keys if other != key]
        panels = dict(list(table.groupby(others, sort=False, dropna=False))) if others else {(): table}
        if len(panels) <= MOST_PANELS:
            return _lines(axes, panels, measure, key)
    return _dots(axes, table, measure)


@rc_context(STYLE)
def auroc_against_entropy_reached(axes: StudyAxes, measure: str | None = None) -> Figure:
    """The mean AUROC against the mean CAM entropy of the test images: a point for each method in each variant, ± one
    standard deviation over the seeds, joined along a numeric axis that is the only one."""
    measure = measure or axes.measure
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    panel = figure.subplots()
    line = {"linestyle": "-" if axes.keys == [numeric_axis(axes)] else "none", "linewidth": 0.8, "elinewidth": 0.7}
    for look, own in _methods(axes, variant_table(axes, measure)):
        (x, x_std), (y, y_std) = ((own[f"{name}_mean"], own[f"{name}_std"]) for name in (ENTROPY, measure))
        panel.errorbar(x, y, xerr=x_std, yerr=y_std, **line, **look)
    panel.set_xlabel(ENTROPY_TITLE.replace("\n", " "))
    panel.set_ylabel(textwrap.fill(f"Test {measure_title(measure)}", 32))
    _legend(figure, panel)
    return figure


def _lines(axes: StudyAxes, panels: dict[tuple, pd.DataFrame], measure: str, key: str) -> Figure:
    figure = Figure(figsize=(max(WIDTH, 1.5 + 2.4 * len(panels)), 5.0), layout="constrained")
    grid = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row")
    for (values, own), pair in zip(panels.items(), grid.T, strict=True):
        for panel, name in zip(pair, (measure, ENTROPY), strict=True):
            for look, line in _methods(axes, own):
                swept = line[line[key].notna()] if line[key].count() > 1 else line.iloc[:0]
                x, mean, std = (swept[column].to_numpy(float) for column in (key, f"{name}_mean", f"{name}_std"))
                if len(swept):
                    panel.plot(x, mean, **look)
                    panel.fill_between(x, mean - std, mean + std, color=look["color"], alpha=0.15, linewidth=0)
                for row in line.drop(swept.index).to_dict("records"):
                    mean, std = row[f"{name}_mean"], row[f"{name}_std"]
                    label = plain(f"{row['title']}, {row['variant']}")
                    panel.axhline(mean, color=look["color"], linestyle="--", label=label)
                    panel.axhspan(mean - std, mean + std, color=look["color"], alpha=0.08, linewidth=0)
        pair[0].set_title(plain("\n".join(map(axis_value, values))), fontsize=STYLE["font.size"])
        pair[1].set_xlabel(plain(key))
    x = pd.concat(panels.values())[key].dropna().astype(float)
    if x.min() > 0 and x.max() / x.min() >= LOGARITHMIC:
        grid[0][0].set_xscale("log")
    for panel in grid[1] if key.endswith(TARGET) else ():
        panel.plot([x.min(), x.max()], [x.min(), x.max()], color=GREY, linestyle=":", label="As asked for")
    grid[0][0].set_ylabel(textwrap.fill(f"Test {measure_title(measure)}", 24))
    grid[1][0].set_ylabel(ENTROPY_TITLE)
    _legend(figure, grid[1][0])
    return figure


def _dots(axes: StudyAxes, table: pd.DataFrame, measure: str) -> Figure:
    names, methods = list(table["variant"].unique()), list(axes.titles)
    figure = Figure(figsize=(WIDTH + 1, 1.4 + len(names) * (0.2 + 0.13 * len(methods))), layout="constrained")
    pair = figure.subplots(1, 2, sharey=True)
    for panel, name in zip(pair, (measure, ENTROPY), strict=True):
        for look, own in _methods(axes, table):
            shift = (methods.index(own["method"].iloc[0]) - (len(methods) - 1) / 2) * 0.8 / len(methods)
            places = [names.index(variant) + shift for variant in own["variant"]]
            panel.errorbar(own[f"{name}_mean"], places, xerr=own[f"{name}_std"], linestyle="none", **look)
        for between in range(len(names) - 1):
            panel.axhline(between + 0.5, color=STYLE["grid.color"], linewidth=0.6)
        panel.grid(axis="y", visible=False)
    pair[0].set_yticks(range(len(names)), [textwrap.fill(plain(name.replace(",", ", ")), 26) for name in names])
    pair[0].set_ylim(len(names) - 0.5, -0.5)
    pair[0].set_xlabel(textwrap.fill(f"Test {measure_title(measure)}", 30))
    pair[1].set_xlabel(ENTROPY_TITLE)
    _legend(figure, pair[0])
    return figure


def _methods(axes: StudyAxes, table: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """The look of each method of a table, and its rows."""
    for method, style in method_styles(list(axes.titles)).items():
        if len(own := table[table["method"] == method]):
            yield {"color": style.colour, "marker": style.marker, "label": plain(axes.titles[method])}, own


def _legend(figure: Figure, panel: Axes) -> None:
    """Above the panels, which keep the width of the page."""
    figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=4)
