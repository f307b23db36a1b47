"""The report of a study: files with its tables and figures, and one page that holds them all."""

import base64
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saliency_entropy.errors import UserError
from saliency_entropy.run_folder import write_atomically
from saliency_entropy.study import (
    comparisons,
    error_tables,
    figures,
    focus,
    questions,
    reproduction,
    robustness,
    tables,
    wording,
)
from saliency_entropy.study.bootstrap import read_image_covariance
from saliency_entropy.study.focus import StudyMaps, read_maps_beside_human_maps, read_study_maps
from saliency_entropy.study.gallery import read_gallery
from saliency_entropy.study.generator_choice import generator_choice
from saliency_entropy.study.page import render
from saliency_entropy.study.questions import SIGNIFICANCE, Answer
from saliency_entropy.study.runs import BASELINE, Study, read_study
from saliency_entropy.study.tables import MEASURES, Measures

log = logging.getLogger(__name__)
# It tells which glyphs of a font it puts into a PDF.
logging.getLogger("fontTools").setLevel(logging.WARNING)

# The columns of the terminal's table, those that a line holds.
PRINTED = ("Method", "Seeds", "AUROC", "AUROC unseen", "Difference", "95 % interval", "p (Holm)", "CAM entropy / nats")
PIXELS_PER_INCH = 105  # of figures, in the page


@dataclass(frozen=True, eq=False)
class ShownTable:
    """A table of the report.

    Attributes:
        name: of its files and its anchor in the page.
        heading: above it.
        numbers: what its CSV holds.
        cells: what readers see, text only. Without any, the notes alone are shown, and there is no file.
        notes: sentences below it.
    """

    name: str
    heading: str
    numbers: pd.DataFrame
    cells: pd.DataFrame
    notes: list[str]

    @property
    def word_columns(self) -> list[bool]:
        return [tables.is_words(self.cells[name]) for name in self.cells]


@dataclass(frozen=True, eq=False)
class ShownFigure:
    """A figure of the report: its name (of its files and its anchor in the page), what it shows, and a caption."""

    name: str
    heading: str
    figure: Figure
    caption: str

    @cached_property
    def png(self) -> bytes:
        return figures.png(self.figure)

    @property
    def width(self) -> int:
        """In a page, in CSS pixels: the letters of all figures are of one size there, close to that of its text."""
        return round(self.figure.get_figwidth() * PIXELS_PER_INCH)

    @property
    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def report(cfg: DictConfig) -> None:
    """Write the report of ``cfg.study`` below ``cfg.output`` (its folder ``report``, if None) and print its table.

    Raises:
        UserError: see :func:`~saliency_entropy.study.runs.read_study` and
            :func:`~saliency_entropy.study.gallery.read_gallery`; ``cfg.gallery_images`` is not a whole number from 0
            on; the output cannot be written.
    """
    if type(cfg.gallery_images) is not int or cfg.gallery_images < 0:
        raise UserError(
            f"gallery_images is {cfg.gallery_images!r}; give a whole number, 0 for a report without photographs"
        )
    study = read_study(Path(str(cfg.study)))
    log.info("%d finished runs of %d methods in %s", len(study.runs), len(study.methods), study.folder)
    output = study.folder / "report" if cfg.output is None else Path(str(cfg.output))
    maps = read_study_maps(study)
    gallery = read_gallery(maps, cfg.gallery_images)
    measures = tables.measure(study)
    methods = tables.method_table(measures)
    covariance = read_image_covariance(study, measures.measure)
    compared = comparisons.comparison_table(measures, covariance)
    shown = [
        *shown_tables(study, measures, methods),
        *shown_comparisons(measures, covariance, compared),
        *shown_errors(study, measures),
        *shown_focus(study, maps),
        shown_reproduction(study, measures),
    ]
    answered = questions.answers(study, measures, compared)
    pictures = shown_figures(study, measures)
    corrupted = robustness.robustness_table(study)
    if corrupted is not None:
        shown.append(shown_robustness(study, corrupted))
        pictures.append(shown_robustness_figure(corrupted))
    if maps is not None:
        pictures += shown_maps(maps, photographs=cfg.gallery_images > 0)
    warnings = all_warnings(study, measures)
    sentence = headline(methods, measures.measure)
    page = render(
        study=study,
        headline=sentence,
        warnings=warnings,
        answers=answered,
        measure=MEASURES[measures.measure],
        tables=shown,
        figures=pictures,
        choice=generator_choice(measures, study.titles),
        gallery=gallery,
        map_kind=figures.map_kind(study),
        made=how_it_was_made(study),
    )
    try:
        write(output, page, measures.runs, answered, shown, pictures)
    except OSError as error:
        raise UserError(f"output={output} cannot be written ({error}); give another folder with output=") from None

    log.info("%s", printed(shown[0].cells.filter(PRINTED)))
    log.info("%s", tables.printable(sentence))
    for warning in warnings:
        log.warning("warning: %s", tables.printable(warning))
    for run in study.left_out:
        log.warning("left out: %s (%s)", tables.printable(run.name), run.reason)
    log.info("report: %s", output / "index.html")


def write(
    output: Path,
    page: str,
    runs: pd.DataFrame,
    answered: list[Answer],
    shown: list[ShownTable],
    pictures: list[ShownFigure],
) -> None:
    """Leave everything in ``output``, the page last: where it is, what it names is there too."""
    for picture in pictures:
        write_atomically(output / "figures" / f"{picture.name}.png", picture.png)
        write_atomically(output / "figures" / f"{picture.name}.pdf", figures.pdf(picture.figure))
    write_atomically(output / "runs.csv", tables.neutralised(runs).to_csv(index=False))
    write_atomically(output / "questions.md", questions.markdown(answered))
    for table in shown:
        if table.cells.empty:
            continue
        write_atomically(output / f"{table.name}.csv", tables.neutralised(table.numbers).to_csv(index=False))
        write_atomically(output / f"{table.name}.md", tables.markdown(table.cells))
        write_atomically(output / f"{table.name}.tex", tables.latex(table.cells))
    write_atomically(output / "index.html", page)


def shown_tables(study: Study, measures: Measures, methods: pd.DataFrame) -> list[ShownTable]:
    generators = tables.generator_table(measures)
    shown = [
        ShownTable(
            "methods",
            "Methods",
            methods,
            tables.shown_methods(methods, measures),
            tables.notes(methods, measures),
        )
    ]
    if len(generators):
        shown.append(
            ShownTable(
                "generators",
                "AUROC by generator",
                generators,
                tables.shown_generators(generators, study.titles),
                tables.generator_notes(generators),
            )
        )
    return shown


def shown_comparisons(measures: Measures, covariance: np.ndarray, compared: pd.DataFrame) -> list[ShownTable]:
    spread = comparisons.spread_table(measures, covariance)
    shown = [
        ShownTable(
            "spread",
            "Spread over seeds and test images",
            spread,
            comparisons.shown_spread(spread),
            comparisons.spread_notes(spread, measures.measure),
        )
    ]
    if len(compared):
        shown += [
            ShownTable(
                "comparisons",
                "Comparisons between methods, paired by seed",
                compared[comparisons.COMPARISON_COLUMNS + comparisons.PAIRED_COLUMNS],
                comparisons.shown_paired(compared),
                comparisons.paired_notes(compared, measures.measure),
            ),
            ShownTable(
                "comparisons_independent",
                "Comparisons between methods, seeds taken as independent",
                compared[comparisons.COMPARISON_COLUMNS + comparisons.INDEPENDENT_COLUMNS],
                comparisons.shown_unpaired(compared),
                comparisons.unpaired_notes(measures.measure),
            ),
        ]
    return shown


def shown_errors(study: Study, measures: Measures) -> list[ShownTable]:
    operating_points = error_tables.operating_point_table(measures)
    calibration = error_tables.calibration_table(measures)
    groups = error_tables.group_table(measures)
    return [
        ShownTable(
            "operating_points",
            "Operating points",
            operating_points,
            error_tables.shown_operating_points(operating_points),
            error_tables.operating_point_notes(operating_points, measures),
        ),
        ShownTable(
            "calibration",
            "Calibration",
            calibration,
            error_tables.shown_calibration(calibration),
            error_tables.calibration_notes(calibration),
        ),
        ShownTable(
            "groups",
            "Errors by group of images",
            groups,
            error_tables.shown_groups(groups, study.titles),
            error_tables.group_notes(groups, measures),
        ),
    ]


def shown_focus(study: Study, maps: StudyMaps | None) -> list[ShownTable]:
    """The tables of the maps that are kept, of the test images and of those that have human maps."""
    shown = []
    if maps is not None:
        table = focus.focus_table(maps)
        runs = focus.run_agreement_table(maps)
        shown = [
            ShownTable(
                "focus", "Focus by kind of map", table, focus.shown_focus(table), focus.focus_notes(table, maps)
            ),
            ShownTable(
                "run_agreement",
                "Agreement between runs",
                runs,
                focus.shown_run_agreement(runs),
                focus.run_agreement_notes(runs, maps),
            ),
        ]
    beside = read_maps_beside_human_maps(study)
    if beside is not None:
        table = focus.agreement_table(beside)
        kind = figures.map_kind(study)
        shown.append(
            ShownTable(
                "human_agreement",
                f"Agreement with {kind} maps",
                table,
                focus.shown_agreement(table),
                focus.agreement_notes(table, beside, kind),
            )
        )
    return shown


def shown_robustness(study: Study, corrupted: pd.DataFrame) -> ShownTable:
    return ShownTable(
        "robustness",
        "AUROC of corrupted images",
        corrupted,
        robustness.shown_robustness(corrupted),
        robustness.robustness_notes(study, corrupted),
    )


def shown_reproduction(study: Study, measures: Measures) -> ShownTable:
    differing = reproduction.departures(study, measures)
    if differing:
        return ShownTable(
            "reproduction", "Reproduction", pd.DataFrame(), pd.DataFrame(), [reproduction.not_comparable(differing)]
        )
    table = reproduction.reproduction_table(study, measures)
    return ShownTable("reproduction", "Reproduction", table, reproduction.shown(table), reproduction.notes(table))


def shown_figures(study: Study, measures: Measures) -> list[ShownFigure]:
    what = MEASURES[measures.measure]
    counts = measures.runs.groupby("method")["seed"].size()
    few = counts.min() < figures.MIN_BOX
    boxes = (
        "Bar: median; box: quartiles; notch: 95 % interval of the median (it folds back where it is wider than the "
        "box); whiskers: the furthest runs within 1.5 inter-quartile ranges; circles: runs beyond."
    )
    points = f"One point a run: with fewer than {figures.MIN_BOX} seeds, quartiles and notches would mean nothing."
    if few and counts.max() >= figures.MIN_BOX:
        distribution = f"{boxes} Methods of fewer than {figures.MIN_BOX} seeds are drawn as one point a run."
    else:
        distribution = points if few else boxes
    human = ""
    if figures.human_entropy(study) is not None:
        kind = figures.map_kind(study)
        human = f" Dotted: the mean entropy of the {kind} maps" + ("." if kind == "human" else ", not human maps.")
    return [
        ShownFigure(
            "cam_entropy_by_epoch",
            "CAM entropy by epoch",
            figures.cam_entropy_by_epoch(study),
            "Mean CAM entropy of the training images in each epoch: mean over the seeds, in a band of ± 1 standard "
            f"deviation. Dashed: the maximum, a CAM that is equal everywhere.{human}",
        ),
        ShownFigure(
            "auroc_against_cam_entropy",
            "AUROC against CAM entropy",
            figures.auroc_against_cam_entropy(study, measures),
            f"{what}, against the mean CAM entropy of the test images: one point a run.",
        ),
        ShownFigure(
            "auroc_by_method",
            "AUROC by method",
            figures.auroc_by_method(study, measures),
            f"{what}, over the seeds. {distribution}",
        ),
        ShownFigure(
            "roc",
            "ROC curves",
            figures.mean_roc(study, measures),
            f"ROC of the test images ({what.removeprefix('AUROC, ')}): mean true positive rate over the seeds at each "
            "false positive rate, in a band of ± 1 standard error. The images are ranked by the logit of “synthetic”.",
        ),
    ]


def shown_robustness_figure(corrupted: pd.DataFrame) -> ShownFigure:
    return ShownFigure(
        "auroc_by_corruption",
        "AUROC by strength of corruption",
        robustness.robustness_figure(corrupted),
        "AUROC of the test images as they are and at rising strengths of each corruption: mean over the seeds, in a "
        "band of ± 1 standard deviation. Dashed: chance.",
    )


def shown_maps(maps: StudyMaps, photographs: bool) -> list[ShownFigure]:
    """The figures of the maps that are kept; without ``photographs``, those alone in which no image is seen."""
    kind = figures.map_kind(maps.study)
    over_images = (
        f"the {kind} map, where there is one, and the CAM of each method’s first seed over the image. Below each, its "
        "entropy in nats."
    )
    shown = (
        [
            ShownFigure(
                "cams_by_method",
                "CAMs by method",
                figures.cams_by_method(maps),
                f"A real and a synthetic test image with {over_images}",
            ),
            ShownFigure(
                "cams_by_generator",
                "CAMs by generator",
                figures.cams_by_generator(maps),
                f"A test image of each generator and a real one with {over_images}",
            ),
        ]
        if photographs
        else []
    )
    return [
        *shown,
        ShownFigure(
            "maps_by_entropy",
            "CAMs by entropy",
            figures.maps_by_entropy(maps),
            "CAMs of the study’s runs and test images whose entropies are evenly spaced, with their entropy and focus "
            "area.",
        ),
        ShownFigure(
            "mean_cam_by_method",
            "Mean CAM by method",
            figures.mean_cam_by_method(maps),
            f"Mean over the seeds and the kept test images, and the mean of their {kind} maps, if any.",
        ),
    ]


def headline(methods: pd.DataFrame, measure: str) -> str:
    """One sentence or two on the method of the highest mean AUROC, and whether it is shown to beat cross-entropy."""
    what = "AUROC on unseen generators" if measure == "auroc_unseen" else "AUROC (all generators)"
    known = methods.dropna(subset=[f"{measure}_mean"])
    if known.empty:
        return "The test images are all real or all synthetic, so there is no AUROC."
    best = known.loc[known[f"{measure}_mean"].idxmax()]
    value = f"{best[f'{measure}_mean']:.3f}"
    if len(known) == 1:
        seeds = f"{best['seeds']} seed{'s' if best['seeds'] > 1 else ''}"
        return f"{best['title']} reaches a mean {what} of {value} over {seeds}; there is no other method beside it."
    if methods["seeds"].max() == 1:
        return (
            f"With one seed a method, nothing can be said about which method is better. The highest {what} is "
            f"{value}, {best['title']}."
        )
    first = f"{best['title']} has the highest mean {what}, {value}"
    if best["method"] == BASELINE:
        return f"{first}: no other method is above cross-entropy."
    if pd.isna(best["difference"]):
        return f"{first}. Whether it is better than cross-entropy is not shown: there is no pair of runs to compare."
    above = f"{wording.number(best['difference'], sign='+')} from cross-entropy"
    if pd.isna(best["p_holm"]):
        return f"{first}: {above}. That it is better is not shown: the seeds that both have allow no interval."
    interval = f"95 % interval {wording.interval(best['difference_low'], best['difference_high'], sign='+')}"
    compared = f"{first}: {above} ({interval}; {wording.p_equals(best['p_holm'])} after Holm’s correction)"
    if best["difference_low"] > 0 and best["p_holm"] < SIGNIFICANCE:
        return f"{compared}. The interval excludes 0."
    if best["difference_low"] > 0:
        return f"{compared}. The interval excludes 0, but not after the correction: that it is better is not shown."
    return f"{compared}. The interval includes 0: that it is better than cross-entropy is not shown."


def all_warnings(study: Study, measures: Measures) -> list[str]:
    """What a reader must know before any number, the gravest first."""
    names = {_at(run.config, "data.name") for run in study.runs}
    warnings = []
    if "builtin" in names:
        warnings.append(
            "The faces are drawn by a program (data: builtin). These figures show that everything works; they say "
            "nothing about real faces."
        )
    if (kind := figures.map_kind(study)) != "human":
        warnings.append(f"Where human maps are needed, these runs had {kind} maps, not human maps.")
    return [*warnings, *study.warnings, *measures.warnings]


def how_it_was_made(study: Study) -> dict[str, str]:
    """Heading -> text; what differs between runs is listed."""
    seconds = [run.result.get("wall_seconds") for run in study.runs]
    seeds = {method: [run.seed for run in study.of_method(method)] for method in study.methods}
    seed_sets = {tuple(value) for value in seeds.values()}
    versions = _distinct(f"{name} {version}" for run in study.runs for name, version in run.result["versions"].items())
    commits = _distinct(
        commit.replace("+", " (with uncommitted changes)") if (commit := run.result["git_commit"]) else "not known"
        for run in study.runs
    )
    if len(seed_sets) == 1:
        seed_text = _ranges(next(iter(seed_sets)))
    else:
        seed_text = "; ".join(f"{study.titles[method]}: {_ranges(value)}" for method, value in seeds.items())
    return {
        "Study": study.folder.resolve().name,
        "Finished runs": str(len(study.runs)),
        "Seeds": seed_text,
        "Data": _config_values(study, "data.name"),
        "Trained on": ", ".join(study.train_generators) or "generators not named",
        "Backbone": _config_values(study, "backbone.name"),
        "Image size": _config_values(study, "data.image_size") + " pixels",
        "CAM": _distinct(f"{run.result['cam_cells']} cells" for run in study.runs),
        "Protocol": _config_values(study, "protocol.name"),
        "Epochs": _config_values(study, "trainer.max_epochs")
        + "; the one of the highest validation accuracy is scored",
        "Time of the runs": _duration(sum(value for value in seconds if value is not None)),
        "Finished": max(str(run.result.get("finished", "")) for run in study.runs) or "not known",
        "Versions": versions,
        "Git commit": commits,
    }


def printed(cells: pd.DataFrame) -> str:
    """A table of text cells for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in cells:
        table.add_column(name, justify="left" if tables.is_words(cells[name]) else "right")
    for row in cells.itertuples(index=False):
        # Text, not str: a title in [brackets] would be read as a style.
        table.add_row(*(Text(tables.printable(cell)) for cell in row))
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def _config_values(study: Study, key: str) -> str:
    return _distinct(str(_at(run.config, key)) for run in study.runs)


def _at(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part, "not known") if isinstance(value, dict) else "not known"
    return value


def _distinct(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))


def _ranges(seeds: tuple[int, ...] | list[int]) -> str:
    """``0–9, 12`` for these seeds, which are sorted."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
