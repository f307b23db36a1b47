"""What a report of a study shows: each table and each figure, with its heading and what must be said of it."""

import base64
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from saliency_entropy.study import (
    comparisons,
    error_tables,
    figures,
    focus,
    other_sets,
    reproduction,
    robustness,
    tables,
)
from saliency_entropy.study.focus import StudyMaps, read_maps_beside_human_maps
from saliency_entropy.study.robustness import RobustnessTable
from saliency_entropy.study.runs import Study
from saliency_entropy.study.tables import MEASURES, Measures

PIXELS_PER_INCH = 105  # of figures, in the page
PHOTOGRAPHS = ("cams_by_method", "cams_by_generator")  # the figures that show test images
GALLERY_CHAPTER = "Where the detectors look"  # at its end stand the test images
# The page: what a reader asks first comes first, and a figure stands beside the table of its numbers.
CHAPTERS = {
    "Results": ("methods", "auroc_by_method", "auroc_against_cam_entropy", "roc", "generators", "other_sets"),
    GALLERY_CHAPTER: (
        "cam_entropy_by_epoch", "focus", "mean_cam_by_method", "maps_by_entropy", "cams_by_method",
        "cams_by_generator", "human_agreement", "run_agreement",
    ),
    "Robustness": ("auroc_by_corruption", "robustness"),
    "Statistics": ("spread", "comparisons", "comparisons_independent"),
    "Errors and calibration": ("operating_points", "calibration", "groups"),
    "Beside the paper": ("reproduction",),
}  # fmt: skip


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


@dataclass(frozen=True, eq=False)
class Chapter:
    """Tables and figures of the page that belong together, under a heading."""

    heading: str
    parts: list[ShownTable | ShownFigure]

    @property
    def name(self) -> str:
        """Its anchor in the page."""
        return self.heading.lower().replace(" ", "-")

    @property
    def has_gallery(self) -> bool:
        return self.heading == GALLERY_CHAPTER


def chapters(shown: list[ShownTable], pictures: list[ShownFigure]) -> list[Chapter]:
    """Everything that a report shows, in the order of the page; a chapter without a table or figure is left out."""
    parts = {part.name: part for part in (*shown, *pictures)}
    found = [
        Chapter(heading, [parts.pop(name) for name in names if name in parts]) for heading, names in CHAPTERS.items()
    ]
    if parts:
        raise LookupError(f"in no chapter of the page: {', '.join(parts)}")
    return [chapter for chapter in found if chapter.parts]


def report_tables(
    study: Study,
    measures: Measures,
    methods: pd.DataFrame,
    covariance: np.ndarray,
    compared: pd.DataFrame,
    maps: StudyMaps | None,
    corrupted: RobustnessTable | None,
) -> list[ShownTable]:
    """Every table that the study has figures for.

    Args:
        study: its titles and kinds of maps.
        measures: of the study.
        methods: :func:`~saliency_entropy.study.tables.method_table`.
        covariance: ``(R, R)``, :func:`~saliency_entropy.study.bootstrap.read_image_covariance`.
        compared: :func:`~saliency_entropy.study.comparisons.comparison_table`.
        maps: of the test images, if any are kept.
        corrupted: :func:`~saliency_entropy.study.robustness.robustness_table`.
    """
    return [
        *_method_tables(study, measures, methods),
        *_comparison_tables(measures, covariance, compared),
        *_error_tables(study, measures),
        *_other_sets_table(study),
        *([] if corrupted is None else [_robustness_table(corrupted)]),
        *_focus_tables(study, maps),
        _reproduction_table(study, measures),
    ]


def report_figures(
    study: Study, measures: Measures, maps: StudyMaps | None, corrupted: RobustnessTable | None, photographs: bool
) -> list[ShownFigure]:
    """Every figure that the study has data for; see :func:`report_tables`.

    Args:
        photographs: whether figures may show test images.
    """
    return [
        *_usual_figures(study, measures),
        *([_robustness_figure(corrupted)] if corrupted is not None and corrupted.has_auroc else []),
        *([] if maps is None else _map_figures(maps, photographs)),
    ]


def _method_tables(study: Study, measures: Measures, methods: pd.DataFrame) -> list[ShownTable]:
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


def _comparison_tables(measures: Measures, covariance: np.ndarray, compared: pd.DataFrame) -> list[ShownTable]:
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


def _error_tables(study: Study, measures: Measures) -> list[ShownTable]:
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


def _focus_tables(study: Study, maps: StudyMaps | None) -> list[ShownTable]:
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


def _other_sets_table(study: Study) -> list[ShownTable]:
    sets = other_sets.other_sets(study)
    if sets is None:
        return []
    shown = other_sets.shown_other_sets(sets.numbers) if len(sets.numbers) else pd.DataFrame()
    return [ShownTable("other_sets", "AUROC on other images", sets.numbers, shown, other_sets.other_sets_notes(sets))]


def _robustness_table(corrupted: RobustnessTable) -> ShownTable:
    return ShownTable(
        "robustness",
        "AUROC of corrupted images",
        corrupted.numbers,
        robustness.shown_robustness(corrupted),
        robustness.robustness_notes(corrupted),
    )


def _reproduction_table(study: Study, measures: Measures) -> ShownTable:
    differing = reproduction.departures(study, measures)
    if differing:
        return ShownTable(
            "reproduction", "Reproduction", pd.DataFrame(), pd.DataFrame(), [reproduction.not_comparable(differing)]
        )
    table = reproduction.reproduction_table(study, measures)
    return ShownTable("reproduction", "Reproduction", table, reproduction.shown(table), reproduction.notes(table))


def _usual_figures(study: Study, measures: Measures) -> list[ShownFigure]:
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
            f"{what}, over the seeds. {distribution} Dashed: chance, where it is in sight.",
        ),
        ShownFigure(
            "roc",
            "ROC curves",
            figures.mean_roc(study, measures),
            f"ROC of the test images ({what.removeprefix('AUROC, ')}): mean true positive rate over the seeds at each "
            "false positive rate, in a band of ± 1 standard error. The images are ranked by the logit of “synthetic”.",
        ),
    ]


def _robustness_figure(corrupted: RobustnessTable) -> ShownFigure:
    return ShownFigure(
        "auroc_by_corruption",
        "AUROC by strength of corruption",
        robustness.robustness_figure(corrupted),
        f"AUROC of the test {robustness.images_shown(corrupted)} as they are and at rising strengths of each "
        "corruption: mean over the seeds, in a band of ± 1 standard deviation. Dashed: chance.",
    )


def _map_figures(maps: StudyMaps, photographs: bool) -> list[ShownFigure]:
    """The figures of the maps that are kept; without ``photographs``, those alone in which no image is seen."""
    kind = figures.map_kind(maps.study)
    any_map = maps.sample.has_map.any()
    over_images = (
        f"the {kind} map, where there is one, and " if any_map else ""
    ) + "the CAM of each method’s first seed over the image. Below each, its entropy in nats."
    colours = "Colours: from 0, the lowest cell of a map, to 1, its highest."
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
            "CAMs of the study’s runs and test images whose entropies are evenly spaced, with their entropy H in nats "
            f"and focus area exp(H). {colours}",
        ),
        ShownFigure(
            "mean_cam_by_method",
            "Mean CAM by method",
            figures.mean_cam_by_method(maps),
            f"Mean over the seeds and {len(maps.sample.path)} test images"
            + (f", and the mean of their {kind} maps. " if any_map else ". ")
            + colours,
        ),
    ]
