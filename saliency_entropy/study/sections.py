"""What the report of a study shows: its tables and its figures, in chapters."""

import base64
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from saliency_entropy.page.table import ShownTable
from saliency_entropy.run.ranking import RANKINGS, SUFFIXES
from saliency_entropy.study import comparisons, epochs, error_tables, figures, focus, reproduction, robustness, tables
from saliency_entropy.study.focus import StudyMaps, read_maps_beside_human_maps
from saliency_entropy.study.other_sets import other_sets_table
from saliency_entropy.study.robustness import RobustnessTable
from saliency_entropy.study.runs import Study
from saliency_entropy.study.tables import MEASURES, Measures

PIXELS_PER_INCH = 105  # of figures, in the page
LEADING = ("cams_by_method", "mean_cam_by_method")  # which the page may begin with
GALLERY_CHAPTER = "Where the detectors look"  # ends with the gallery of test images
# The page: what a reader asks first comes first, and a figure stands beside the table of its numbers.
CHAPTERS = {
    "Results": (
        "methods", "auroc_by_method", "common_mode", "auroc_against_cam_entropy", "roc", "generators", "other_sets",
    ),
    GALLERY_CHAPTER: (
        "cam_entropy_by_epoch", "focus", "mean_cam_by_method", "maps_by_entropy", "cams_by_method",
        "cams_by_generator", "human_agreement", "run_agreement",
    ),
    "Robustness": ("auroc_by_corruption", "auroc_by_corruption_margin", "robustness"),
    "Statistics": ("spread", "performance_profile", "comparisons", "epochs"),
    "Errors and calibration": ("operating_points", "error_rates", "calibration", "groups"),
    "Beside the paper": ("reproduction",),
}  # fmt: skip
# Of the page that compares variants, by every measure.
COMPARISON = [
    name.format(measure + suffix)
    for measure in MEASURES
    for suffix in SUFFIXES.values()
    for name in ("overview_{}", "variants_{}", "{}_by_axis")
]
NAMES = {*chain.from_iterable(CHAPTERS.values()), *COMPARISON, "settings"}  # of all files of reports


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
    covariances: dict[str, np.ndarray],
    compared: pd.DataFrame,
    maps: StudyMaps | None,
    corrupted: RobustnessTable | None,
) -> list[ShownTable]:
    """Every table that the study has figures for.

    Args:
        study: its titles, its maps and its further score files.
        measures: of the study.
        methods: :func:`~saliency_entropy.study.tables.method_table` by both scores.
        covariances: :func:`~saliency_entropy.study.bootstrap.read_image_covariances`.
        compared: :func:`~saliency_entropy.study.comparisons.comparison_table` by both scores.
        maps: of the test images, if any are kept.
        corrupted: :func:`~saliency_entropy.study.robustness.robustness_table`.
    """
    measure, titles = measures.measure, study.titles
    generators = tables.generator_table(measures)
    spread = tables.by_score(lambda own: comparisons.spread_table(own, covariances[own.score]), measures)
    sets = other_sets_table(study)
    beside = read_maps_beside_human_maps(study, maps)
    operating_points = tables.by_score(error_tables.operating_point_table, measures)
    shown = [
        tables.shown_methods(methods, measures),
        *([tables.shown_generators(generators, titles)] if len(generators) else []),
        comparisons.shown_spread(spread, measure),
        *epochs.shown_epochs(study),
    ]
    if len(compared):
        shown.append(comparisons.shown_comparisons(compared, measure))
    shown += [
        error_tables.shown_operating_points(operating_points, measures),
        error_tables.shown_error_rates(operating_points, measures),
        error_tables.shown_calibration(error_tables.calibration_table(measures)),
        error_tables.shown_groups(error_tables.group_table(measures), measures, titles),
        *([] if sets is None else [sets]),
        *([] if corrupted is None else [robustness.shown_robustness(corrupted)]),
    ]
    if maps is not None:
        shown.append(focus.shown_focus(focus.focus_table(maps), maps))
        shown.append(focus.shown_run_agreement(focus.run_agreement_table(maps), maps))
    if beside is not None:
        shown.append(focus.shown_human_agreement(focus.human_agreement_table(beside), beside, figures.map_kind(study)))
    return [*shown, _reproduction_table(study, measures)]


def report_figures(
    study: Study, measures: Measures, maps: StudyMaps | None, corrupted: RobustnessTable | None, photographs: bool
) -> list[ShownFigure]:
    """Every figure that the study has data for; see :func:`report_tables`.

    Args:
        photographs: whether figures may show test images.
    """
    return [
        *_usual_figures(study, measures),
        *(_robustness_figures(corrupted) if corrupted is not None and corrupted.has_auroc else []),
        *([] if maps is None else _map_figures(maps, photographs)),
    ]


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
    points = f"One point per run: with fewer than {figures.MIN_BOX} seeds, quartiles and notches would mean nothing."
    if few and counts.max() >= figures.MIN_BOX:
        distribution = f"{boxes} Methods of fewer than {figures.MIN_BOX} seeds are drawn as one point per run."
    else:
        distribution = points if few else boxes
    human = ""
    if figures.human_entropy(study) is not None:
        kind = figures.training_map_kind(study)
        human = f" Dotted: the mean entropy of the {kind} maps" + ("." if kind == "human" else ", not human maps.")
    return [
        ShownFigure(
            "cam_entropy_by_epoch",
            "CAM entropy by epoch",
            figures.cam_entropy_by_epoch(study),
            "Mean CAM entropy of the training images in each epoch: mean over the seeds, in a band of ± 1 standard "
            f"deviation. These, not those of the test images, are what the paper’s figure 3 shows. Dashed: the "
            f"maximum, a CAM that is equal everywhere.{human}",
        ),
        ShownFigure(
            "auroc_against_cam_entropy",
            "AUROC against CAM entropy",
            figures.auroc_against_cam_entropy(study, measures),
            f"{what}, by both scores, against the mean CAM entropy of the test images: one point per run.",
        ),
        ShownFigure(
            "auroc_by_method",
            "AUROC by method",
            figures.auroc_by_method(study, measures),
            f"{what}, by both scores, over the seeds. {distribution} Dashed: chance, where it is in sight.",
        ),
        ShownFigure(
            "common_mode",
            "What moves logit 1 beside the margin",
            figures.common_mode(study, measures),
            "Variance over the test images of the mean of both logits, which cross-entropy does not train, over that "
            "of half the margin; logit 1 is the sum of both. One point per run. The higher, the more the ranking by "
            "logit 1 is one by something else than the margin. Dashed: as much as the margin.",
        ),
        *_profile(study, measures),
        ShownFigure(
            "roc",
            "ROC curves",
            figures.mean_roc(study, measures),
            f"ROC of the test images ({what.removeprefix('AUROC, ')}): mean true positive rate over the seeds at each "
            "false positive rate, in a band of ± 1 standard error, by both scores.",
        ),
    ]


def _profile(study: Study, measures: Measures) -> list[ShownFigure]:
    if measures.runs[measures.measure].isna().all():
        return []
    count = max(values.shape[1] for values in figures.aurocs_of_seeds(measures).values())
    of = f"on each of {count} unseen generators" if count > 1 else MEASURES[measures.measure].removeprefix("AUROC, ")
    return [
        ShownFigure(
            "performance_profile",
            "Performance profile",
            figures.performance_profile(study, measures),
            f"Share of the runs ({of}) with an AUROC above τ, by both scores (Agarwal et al., 2021), in its pointwise "
            "95 % interval over the seeds. A curve to the right of another is better at every τ; where they cross, "
            "which is better depends on τ.",
        )
    ]


def _robustness_figures(corrupted: RobustnessTable) -> list[ShownFigure]:
    of_unseen = ", synthetic ones of unseen generators," if corrupted.measure == "auroc_unseen" else ""
    return [
        ShownFigure(
            f"auroc_by_corruption{suffix}",
            f"AUROC by strength of corruption, ranked by {RANKINGS[score]}",
            robustness.robustness_figure(corrupted, score),
            f"AUROC of the test images{of_unseen} as they are and at rising strengths of each "
            "corruption: mean over the seeds, in a band of ± 1 standard deviation. Dashed: chance.",
        )
        for score, suffix in SUFFIXES.items()
    ]


def _map_figures(maps: StudyMaps, photographs: bool) -> list[ShownFigure]:
    """The figures of the maps that are kept; without ``photographs``, only those that show no image."""
    kind = figures.map_kind(maps.study)
    any_map, marked = maps.sample.has_map.any(), figures.marked_images(maps)
    over_images = (
        f"the {kind} map, where there is one, and " if any_map else ""
    ) + "the CAM of each method’s first seed over the image. Below each, its entropy in nats."
    colours = "Colours: from 0, the lowest cell of a map, to 1, its highest."
    shown = (
        [
            ShownFigure(
                "cams_by_method",
                "CAMs by method",
                figures.cams_by_method(maps, marked),
                f"{'A real and a synthetic test image' if marked is None else 'Test images with the mark,'} with "
                f"{over_images}",
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
