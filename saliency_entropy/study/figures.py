"""The figures of the paper from the runs of a study. Each function returns a Figure, which a notebook shows as it is.

A method has the same colour and marker in every figure (Okabe and Ito's colours, which colour-blind readers can tell
apart), whichever methods a study holds.
"""

import io
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from saliency_entropy.page.overlay import cam_overlay
from saliency_entropy.page.wording import printable
from saliency_entropy.run.ranking import RANKINGS
from saliency_entropy.run.study_folders import METHODS
from saliency_entropy.study.bootstrap import interval_over_seeds
from saliency_entropy.study.contrasts import is_positive_control
from saliency_entropy.study.focus import StudyMaps, map_entropies, mean_cams
from saliency_entropy.study.runs import Study
from saliency_entropy.study.tables import FALSE_POSITIVE_RATES, MEASURES, Measures, over_seeds

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that a figure is the same everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "savefig.facecolor": "white",
    # Text as text: it can be searched, and a journal's check of fonts passes.
    "pdf.fonttype": 42,
}
DPI = 200
# For the six methods, then for any others. A dark red takes the place of Okabe and Ito's yellow, which is hard to see
# on white: of the colours tried, it is the furthest from all others, also for protanopes, deuteranopes and tritanopes.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999", "#661100")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
GREY = "#555555"  # of lines that are not a method's
# With fewer runs the quartiles are single runs, and the notch, an interval of the median, is wider than the box.
MIN_BOX = 5
CHANCE = 0.5
HEIGHT = 3.6
WIDTH = 7.0
PANEL = 1.0  # inches, the side of an image or a map
MAP_COLOURS = "plasma"  # as in cam_overlay
MAX_ROWS = 12  # of a figure of images, so that it stays on a page


class Figure(MatplotlibFigure):
    """A figure that a notebook shows; without this it shows only figures of pyplot."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Pixels, and how wide to show them: at half their number, as sharp screens want them."""
        return png(self), {"width": round(self.get_figwidth() * DPI / 2)}


class MethodStyle(NamedTuple):
    colour: str
    marker: str


def method_styles(methods: Sequence[str]) -> dict[str, MethodStyle]:
    """Method -> colour and marker."""
    order = [*METHODS, *(method for method in methods if method not in METHODS)]
    return {
        method: MethodStyle(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        for i, method in enumerate(order)
        if method in methods
    }


@rc_context(STYLE)
def cam_entropy_by_epoch(study: Study, split: str = "train") -> Figure:
    """Figure 3: mean CAM entropy of the ``train`` or ``val`` images by epoch, in nats.

    The mean over the seeds, in a band of one standard deviation; lines for the maximum, ln of the number of CAM
    cells, and for the entropy of the human maps (or what stood for them) where there are any. The entropy of ``train``
    is gathered while the weights change, the entropy of ``val`` after the epoch.
    """
    figure, axes = _figure()
    for method, look in _looks(study):
        by_epoch = _entropy_over_seeds(study, method, split)
        epochs, mean, std = by_epoch.index.to_numpy(), by_epoch["mean"].to_numpy(), by_epoch["std"].to_numpy()
        axes.plot(epochs, mean, markevery=max(1, len(epochs) // 8), zorder=3, **look)
        # One seed has no band; none reaches below 0, where no entropy is.
        axes.fill_between(epochs, np.maximum(mean - std, 0), mean + std, color=look["color"], alpha=0.15, linewidth=0)
    for cells in sorted({run.result["cam_cells"] for run in study.runs}):
        axes.axhline(np.log(cells), color=GREY, linestyle="--", linewidth=1, label=f"Maximum, ln {cells}")
    human = human_entropy(study)
    if human is not None:
        label = f"{training_map_kind(study).capitalize()} maps, {human:.2f}"
        axes.axhline(human, color=GREY, linestyle=":", linewidth=1.5, label=label)
    axes.set_xlabel("Epoch")
    axes.set_ylabel(f"Mean CAM entropy,\n{'training' if split == 'train' else 'validation'} images (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _legend_outside(axes)
    return figure


@rc_context(STYLE)
def auroc_against_cam_entropy(study: Study, measures: Measures) -> Figure:
    """Figure 5: test AUROC by both scores against mean CAM entropy of the test images (nats), one point per run."""
    figure, panels = _by_score(measures)
    for axes, ranked in panels:
        for method, look in _looks(study):
            own = ranked.runs[ranked.runs["method"] == method]
            points = own["cam_entropy"], own[ranked.measure]
            axes.scatter(*points, s=40, alpha=0.85, linewidths=0.4, edgecolors="white", **look)
        axes.set_ylabel(f"Test {MEASURES[measures.measure]}")
    axes.set_xlabel("Mean CAM entropy, test images (nats)")
    _legend_outside(axes)
    return figure


@rc_context(STYLE)
def auroc_by_method(study: Study, measures: Measures) -> Figure:
    """Figure 6: notched box plots of the test AUROC over the seeds of each method, by both scores.

    Bar: median; box: quartiles; notch: 95 % interval of the median; whiskers: the furthest runs within 1.5
    inter-quartile ranges of the box; circles: runs beyond. A method of fewer than 5 runs is drawn as its runs instead.
    Dashed: chance, where it is in sight.
    """
    methods = study.methods
    figure, panels = _by_score(measures, width=max(WIDTH, 1.0 + len(methods)))
    for axes, ranked in panels:
        for position, (method, look) in enumerate(_looks(study), start=1):
            values = ranked.runs.loc[ranked.runs["method"] == method, ranked.measure].dropna().to_numpy()
            if len(values) < MIN_BOX:
                _points_side_by_side(axes, position, values, look)
                continue
            colour = look["color"]
            drawn = axes.boxplot(
                values,
                positions=[position],
                widths=0.5,
                notch=True,
                whis=1.5,
                patch_artist=True,
                manage_ticks=False,
                boxprops={"facecolor": (colour, 0.25), "edgecolor": colour},
                medianprops={"color": colour, "linewidth": 2.5},
                whiskerprops={"color": colour},
                capprops={"color": colour},
                flierprops={"marker": "o", "markeredgecolor": colour, "markerfacecolor": "none"},
            )
            # A notch may lie beyond the whiskers, and matplotlib makes no room for it.
            axes.update_datalim(drawn["boxes"][0].get_path().get_extents().get_points())
        axes.autoscale_view()
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(f"Test {MEASURES[measures.measure]}")
    _methods_below(axes, study)
    low, high = axes.get_ylim()
    if low < CHANCE < high:
        for axes, _ in panels:
            axes.axhline(CHANCE, color=GREY, linestyle="--", linewidth=1, zorder=1)
    return figure


@rc_context(STYLE)
def mean_roc(study: Study, measures: Measures) -> Figure:
    """Figure 7: the mean ROC curve of each method over its seeds by both scores, in a band of the standard error of the
    TPR."""
    figure, panels = _by_score(measures, width=6.4, height=4.4)
    for axes, ranked in panels:
        for method, look in _looks(study):
            curves = ranked.roc[method]
            mean = curves.mean(axis=0)
            axes.plot(FALSE_POSITIVE_RATES, mean, markevery=(12, 25), **look)
            if len(curves) > 1:
                error = curves.std(axis=0, ddof=1) / np.sqrt(len(curves))
                band = mean - error, mean + error
                axes.fill_between(FALSE_POSITIVE_RATES, *band, color=look["color"], alpha=0.2, linewidth=0)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="Chance")
        axes.set_ylabel("True positive rate, " + MEASURES[measures.measure].removeprefix("AUROC, "))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.005)
    axes.set_xlabel("False positive rate (real called synthetic)")
    _legend_outside(axes)
    return figure


@rc_context(STYLE)
def common_mode(study: Study, measures: Measures) -> Figure:
    """How far the part of the logits that classification does not train moves logit 1, by method: one point per run, of
    :func:`~saliency_entropy.study.run_figures.common_mode_ratio`, on a logarithmic scale. Dashed: as far as the margin
    does."""
    figure, axes = _figure(width=max(WIDTH, 1.0 + len(study.methods)))
    for position, (method, look) in enumerate(_looks(study), start=1):
        values = measures.runs.loc[measures.runs["method"] == method, "common_mode_ratio"].to_numpy()
        _points_side_by_side(axes, position, values, look)
    axes.axhline(1, color=GREY, linestyle="--", linewidth=1, zorder=1)
    axes.set_yscale("log")
    axes.set_ylabel("Variance of (l₀ + l₁)/2 over\nthat of (l₁ − l₀)/2, test images")
    _methods_below(axes, study)
    return figure


@rc_context(STYLE)
def performance_profile(study: Study, measures: Measures) -> Figure:
    """The share of runs whose test AUROC is above τ, by both scores: of each unseen generator, if methods are compared
    on these (Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice, 2021, section 4.3).

    The band is :func:`~saliency_entropy.study.bootstrap.interval_over_seeds`. That of the paper, whose tasks are each
    learned apart, would be too narrow here, where one detector is tested on all generators.
    """
    figure, panels = _by_score(measures)
    own = [aurocs_of_seeds(ranked) for _, ranked in panels]
    every = np.concatenate([values.ravel() for by_method in own for values in by_method.values()])
    thresholds = np.linspace(every.min() - 0.01, every.max() + 0.01, 101)
    for (axes, _), by_method in zip(panels, own, strict=True):
        for method, look in _looks(study):
            if method not in by_method:
                continue
            shares = (by_method[method][..., None] > thresholds).mean(axis=1)
            axes.plot(thresholds, shares.mean(axis=0), markevery=(5, 12), **look)
            band = np.clip([interval_over_seeds(values) for values in shares.T], 0, 1)
            axes.fill_between(thresholds, *band.T, color=look["color"], alpha=0.15, linewidth=0)
        axes.set_ylabel("Share of runs above τ")
    axes.set_xlabel(f"τ, test {MEASURES[measures.measure]}")
    _legend_outside(axes)
    return figure


def aurocs_of_seeds(measures: Measures) -> dict[str, np.ndarray]:
    """Method -> the AUROCs of its runs, ``(seeds, generators)``: on each unseen generator that has one, or else one on
    all."""
    table = measures.generators
    table = table[(table["seen"] == "no") & (table["against"] == "")].rename(columns={"auroc": measures.measure})
    if measures.measure == "auroc" or table[measures.measure].isna().all():
        table = measures.runs.assign(generator="")
    known = table.dropna(subset=measures.measure)
    return {
        method: rows.pivot(index="seed", columns="generator", values=measures.measure).to_numpy()
        for method, rows in known.groupby("method", sort=False)
    }


@rc_context(STYLE)
def cams_by_method(maps: StudyMaps, images: Sequence[int] | None = None) -> Figure:
    """Figure 1: a real and a synthetic image, with the human map and the CAM of each method over it.

    The CAMs are those of each method's first seed. Below each map, its entropy in nats; "constant" of a map that is
    equal everywhere.

    Args:
        maps: of the study.
        images: their places in the sample; by default the first image of each label that has a human map, or else the
            first of the label. Of the decoy's: :func:`marked_images`.
    """
    return _images_with_maps(maps, _first_images(maps, ["label"]) if images is None else images)


def marked_images(maps: StudyMaps, count: int = 2) -> list[int] | None:
    """The places of the first ``count`` real, then synthetic images with the mark of the decoy; None without any."""
    table = maps.runs[0].test_scores(("path", "label"), optional=["mark"]).set_index("path").loc[maps.sample.path]
    if "mark" not in table or not is_positive_control(maps.study):
        return None
    own = table.assign(place=range(len(table)))[table["mark"].to_numpy() == "yes"]
    return list(own.sort_values("label", kind="stable").groupby("label")["place"].head(count)) or None


@rc_context(STYLE)
def cams_by_generator(maps: StudyMaps) -> Figure:
    """Figure 4: a real image and one of each generator, as in :func:`cams_by_method`; at most 12 images."""
    return _images_with_maps(maps, _first_images(maps, ["label", "generator"])[:MAX_ROWS])


@rc_context(STYLE)
def maps_by_entropy(maps: StudyMaps, count: int = 6) -> Figure:
    """Figure 2: CAMs whose entropies are evenly spaced, chosen from all runs and images; the most focused comes last.

    Args:
        maps: of the study.
        count: the number of CAMs.
    """
    cams = maps.maps["cam"].reshape(-1, *maps.sample.human_map.shape[1:])
    found = map_entropies(cams)
    known = np.flatnonzero(~np.isnan(found))
    order = known[np.argsort(found[known], kind="stable")]
    wanted = np.linspace(found[order[-1]], found[order[0]], count) if len(order) else []
    chosen = list(dict.fromkeys(int(order[np.abs(found[order] - entropy).argmin()]) for entropy in wanted))
    panels = [(cams[place], f"H = {found[place]:.2f}\n{np.exp(found[place]):.1f} cells") for place in chosen]
    return _maps(panels)


@rc_context(STYLE)
def mean_cam_by_method(maps: StudyMaps) -> Figure:
    """The mean CAM of each method over all images and seeds, and the mean human map where there are any."""
    found = {maps.study.titles[method]: cam for method, cam in mean_cams(maps).items()}
    if (has_map := maps.sample.has_map).any():
        found[f"{map_kind(maps.study)} maps".capitalize()] = maps.sample.human_map[has_map].mean(axis=0)
    return _maps([(cam, textwrap.fill(plain(title), 15)) for title, cam in found.items()])


def human_entropy(study: Study) -> float | None:
    """Mean entropy in nats of the maps of the training images, whatever their :func:`training_map_kind`; None if no
    run had any."""
    found = [value for run in study.runs if (value := run.result.get("human_entropy")) is not None]
    return float(np.mean(found)) if found else None


def map_kind(study: Study) -> str:
    """What kind of maps stood in the place of human ones: ``human``, ``template`` or ``simulated``."""
    if any(run.setting("data.template_maps") for run in study.runs):
        return "template"
    return "simulated" if any(run.setting("data.name") in ("builtin", "decoy") for run in study.runs) else "human"


def training_map_kind(study: Study) -> str:
    """As :func:`map_kind`, of the maps in training, which a control may have replaced: ``shuffled control``."""
    control = study.runs[0].setting("data.human_maps.control") or "none"  # the runs of a study share it
    return map_kind(study) if control == "none" else f"{control} control"


def png(figure: Figure) -> bytes:
    """Pixels at 200 dpi, for screens."""
    return _file(figure, format="png", dpi=DPI)


def pdf(figure: Figure) -> bytes:
    """Vector graphics, for print. Without a date, so that a study always gives the same file."""
    return _file(figure, format="pdf", metadata={"CreationDate": None})


@rc_context(STYLE)
def _file(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def _looks(study: Study) -> Iterator[tuple[str, dict[str, str]]]:
    """Every method with the colour, the marker and the label of its line or points, as keywords of matplotlib."""
    for method, style in method_styles(study.methods).items():
        yield method, {"color": style.colour, "marker": style.marker, "label": plain(study.titles[method])}


def _points_side_by_side(axes: Axes, position: float, values: np.ndarray, look: dict[str, str]) -> None:
    """Around a position, so that equal runs are not one point."""
    offsets = (np.arange(len(values)) - (len(values) - 1) / 2) * min(0.12, 0.7 / max(len(values) - 1, 1))
    axes.plot(position + offsets, values, linestyle="none", **look)


def _methods_below(axes: Axes, study: Study) -> None:
    """The titles of the methods at 1, 2 ..."""
    titles = [textwrap.fill(plain(title), 14) for title in study.titles.values()]
    axes.set_xticks(range(1, len(titles) + 1), titles)
    axes.set_xlim(0.4, len(titles) + 0.6)
    axes.grid(axis="x", visible=False)


def _entropy_over_seeds(study: Study, method: str, split: str) -> pd.DataFrame:
    """``mean`` and ``std`` over the seeds by epoch, from 1 on. The mean is over the runs that reached the epoch, NaN if
    the entropy of one of them is."""
    column = f"{split}/cam_entropy"
    rows = pd.concat([run.epochs[["epoch", column]] for run in study.of_method(method)])
    by_epoch = over_seeds(rows, ["epoch"], [column]).set_index("epoch").sort_index()
    by_epoch = by_epoch.rename(columns={f"{column}_{name}": name for name in ("mean", "std")})
    return by_epoch.set_index(by_epoch.index + 1)


def _figure(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    # Without pyplot, which would need a window system and figures to be closed.
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _by_score(
    measures: Measures, width: float = WIDTH, height: float = HEIGHT
) -> tuple[Figure, list[tuple[Axes, Measures]]]:
    """A figure of one panel for each score, below each other and on one scale, and what to draw in each."""
    figure = Figure(figsize=(width, height * len(RANKINGS)), layout="constrained")
    panels = figure.subplots(len(RANKINGS), sharex=True, sharey=True)
    for axes, name in zip(panels, RANKINGS.values(), strict=True):
        axes.set_title(f"Ranked by {name}", loc="left", fontsize=STYLE["font.size"])
    return figure, [(axes, measures.by(score)) for axes, score in zip(panels, RANKINGS, strict=True)]


def _first_images(maps: StudyMaps, kinds: list[str]) -> list[int]:
    """The place of the first image of each kind that has a human map, or else of the first image of the kind."""
    sample = maps.sample
    images = pd.DataFrame({"label": sample.label, "generator": sample.generator, "without": ~sample.has_map})
    return list(images.sort_values([*kinds, "without"], kind="stable").groupby(kinds).head(1).index)


def _images_with_maps(maps: StudyMaps, images: Sequence[int]) -> Figure:
    """A row for each image: the image alone, with its human map, and with the CAM of each method."""
    sample, study = maps.sample, maps.study
    columns = {f"{map_kind(study)} map".capitalize(): sample.human_map} if sample.has_map[list(images)].any() else {}
    columns |= {study.titles[method]: maps.maps["cam"][places[0]] for method, places in maps.methods.items()}
    width, height = len(columns) + 1, len(images)
    figure = Figure(figsize=(1.0 + PANEL * width, 0.4 + 1.15 * PANEL * height), layout="constrained")
    panels = figure.subplots(height, width, squeeze=False)
    for row, place in zip(panels, images, strict=True):
        kind = "real" if sample.label[place] == 0 else sample.generator[place] or "synthetic"
        row[0].imshow(sample.image[place])
        # Grey below a map, so that all colours are the map's.
        grey = np.asarray(Image.fromarray(sample.image[place]).convert("L").convert("RGB"))
        row[0].set_ylabel(textwrap.fill(plain(str(kind)), 14), rotation=0, ha="right", va="center")
        for axes, column in zip(row[1:], columns.values(), strict=True):
            if column is sample.human_map and not sample.has_map[place]:
                axes.imshow(np.full((1, 1, 3), 255, dtype=np.uint8))
                axes.set_xlabel("none")
                continue
            axes.imshow(cam_overlay(grey, column[place]))
            entropy = map_entropies(column[place])
            axes.set_xlabel("constant" if np.isnan(entropy) else f"{entropy:.2f}")
    for axes, title in zip(panels[0], ["Image", *columns], strict=True):
        axes.set_title(textwrap.fill(plain(title), 13), fontsize=STYLE["font.size"])
    for axes in panels.flat:
        _bare(axes)
    return figure


def _maps(panels: Sequence[tuple[np.ndarray, str]]) -> Figure:
    """Maps side by side in one scale of colours, each with a text below."""
    width = max(len(panels), 1)
    figure = Figure(figsize=(0.9 + 1.2 * PANEL * width, 1.6 * PANEL), layout="constrained")
    row = figure.subplots(1, width, squeeze=False)[0]
    for axes in row:
        _bare(axes)
    for axes, (cells, text) in zip(row, panels, strict=False):
        drawn = axes.imshow(cells, cmap=MAP_COLOURS, vmin=0, vmax=1)
        axes.set_xlabel(text)
    if not panels:
        row[0].set_xlabel("every map is constant")
    else:
        figure.colorbar(drawn, ax=row, ticks=[0, 0.5, 1], shrink=0.8, aspect=12)
    return figure


def _bare(axes: Axes) -> None:
    """Without ticks and lines, for a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _legend_outside(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, [textwrap.fill(label, 22) for label in labels], loc="outside right center")


def plain(title: str) -> str:
    """A title as matplotlib prints it: without control characters, and a ``$`` does not begin a formula."""
    return printable(title).replace("$", r"\$")
