"""AUROC and CAM entropy along the axes of a study, as a Figure, which a notebook shows as it is."""

import textwrap

import pandas as pd
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from saliency_entropy.study.axes import StudyAxes, axis_value, measure_title, numeric_axis, variant_table
from saliency_entropy.study.figures import GREY, STYLE, WIDTH, Figure, method_styles, plain

MOST_PANELS = 4
LOGARITHMIC = 50  # the ratio of an axis' highest value to its lowest from which on its scale is logarithmic
TARGET = "entropy_match.target"  # ends the axis of the entropy asked for
BEST_IN_PAPER = (2.0, 2.5)  # nats, the CAM entropies that go with the best AUROC there
SHADE = "#F0E442"  # Okabe and Ito's yellow, which no method has


@rc_context(STYLE)
def auroc_by_axis(axes: StudyAxes, measure: str | None = None) -> Figure:
    """AUROC, and below it the mean CAM entropy (nats) that the detectors reached on the test images.

    By a numeric axis, if there is one (:func:`~saliency_entropy.study.axes.numeric_axis`): a line for each method, the
    mean over its seeds in a band of one standard deviation; a panel for each choice of the other axes. Shaded, on the
    axis of the entropy asked for: those that are best in the paper. Else, or with more than 4 panels: the mean of each
    method in each variant, ± one standard deviation. Dashed across: a method without the axis' setting, or one whose
    variant stands for all (:meth:`~saliency_entropy.study.axes.StudyAxes.stands_for_all`).

    Args:
        axes: the variants.
        measure: as for :func:`~saliency_entropy.study.axes.variant_table`.
    """
    measure = measure or axes.measure
    table, key = variant_table(axes, measure), numeric_axis(axes)
    others = [other for other in axes.keys if other != key]
    panels = list(table.groupby(others, sort=False, dropna=False)) if key and others else [((), table)]
    if len(panels) > MOST_PANELS:
        panels, key = [((), table)], None
    names = {variant.name: place for place, variant in enumerate(axes.variants)}
    width = 1.5 + (2.4 * len(panels) if key else len(names) * max(1.1, 0.15 * len(axes.titles)))
    figure = Figure(figsize=(max(WIDTH, width), 5.2), layout="constrained")
    grid = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row")
    for (values, own), pair in zip(panels, grid.T, strict=True):
        for panel, name in zip(pair, (measure, "cam_entropy"), strict=True):
            for place, (method, (colour, marker)) in enumerate(method_styles(list(axes.titles)).items()):
                rows = table if axes.stands_for_all(method) else own
                rows = rows[rows["method"] == method]
                look = {"color": colour, "marker": marker, "label": plain(axes.titles[method])}
                if key:
                    _line(panel, rows, key, name, look)
                elif axes.stands_for_all(method):
                    _level(panel, rows.iloc[0], name, look)
                elif len(rows):
                    x = rows["variant"].map(names) + 0.8 * ((place + 0.5) / len(axes.titles) - 0.5)
                    bars = rows[f"{name}_std"]
                    panel.errorbar(x, rows[f"{name}_mean"], yerr=bars, linestyle="none", elinewidth=1, **look)
        pair[0].set_title(plain("\n".join(map(axis_value, values))), fontsize=STYLE["font.size"])
        pair[1].set_xlabel(plain(key or ", ".join(axes.keys)))
    if key:
        x = table[key].dropna().astype(float)
        if x.min() > 0 and x.max() / x.min() >= LOGARITHMIC:
            grid[0][0].set_xscale("log")
        if key.endswith(TARGET):
            for panel in grid[1]:
                panel.plot([x.min(), x.max()], [x.min(), x.max()], color=GREY, linestyle=":", label="As asked for")
            low, high = BEST_IN_PAPER
            look = {"color": SHADE, "alpha": 0.25, "linewidth": 0, "label": f"Paper’s best, {low}–{high}"}
            for panel in grid.flat:
                panel.axvspan(low, high, zorder=0, **look)
    else:
        texts = [[axis_value(variant.values.get(name)) for name in axes.keys] for variant in axes.variants]
        grid[1][0].set_xticks(range(len(names)), ["\n".join(textwrap.fill(plain(t), 16) for t in own) for own in texts])
        for panel in grid[:, 0]:
            panel.set_xticks([place + 0.5 for place in range(len(names) - 1)], minor=True)
            panel.grid(visible=False, axis="x")
            panel.grid(axis="x", which="minor")
    grid[0][0].set_ylabel(textwrap.fill(f"Test {measure_title(measure)}", 24))
    grid[1][0].set_ylabel("CAM entropy,\ntest images (nats)")
    labels: dict[str, Artist] = {}
    for panel in grid[1]:  # any of which may lack a method
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
    figure.legend(labels.values(), labels.keys(), loc="outside upper center", ncols=4)
    return figure


def _line(panel: Axes, rows: pd.DataFrame, key: str, name: str, look: dict[str, str]) -> None:
    along = rows.dropna(subset=key) if rows[key].count() > 1 else rows.iloc[:0]
    if len(along):
        x, mean, std = (along[column].to_numpy(float) for column in (key, f"{name}_mean", f"{name}_std"))
        panel.plot(x, mean, **look)
        panel.fill_between(x, mean - std, mean + std, color=look["color"], alpha=0.15, linewidth=0)
    for _, row in rows.drop(along.index).iterrows():
        _level(panel, row, name, look)


def _level(panel: Axes, row: pd.Series, name: str, look: dict[str, str]) -> None:
    mean, std = row[f"{name}_mean"], row[f"{name}_std"]
    panel.axhline(mean, color=look["color"], linestyle="--", label=f"{look['label']}, {plain(row['variant'])}")
    panel.axhspan(mean - std, mean + std, color=look["color"], alpha=0.08, linewidth=0)
