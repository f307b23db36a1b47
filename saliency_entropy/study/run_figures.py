"""The figures of one run, from the scores that it left.

Two scores (:mod:`~saliency_entropy.run.ranking`). Images are *ranked* by either, the paper's logit 1 and the margin:
AUROC, average precision, EER and true positive rates. They are *judged* by the margin, with which the softmax rises:
accuracy, thresholds, APCER and BPCER, calibration.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from saliency_entropy.calibration.operating_points import (
    RocCurve,
    apcer,
    average_precision,
    bpcer,
    resolves,
    roc,
    score_problem,
)
from saliency_entropy.calibration.temperature import calibration_floor, expected_calibration_error, fitted_temperature
from saliency_entropy.data.group_names import MAX_GROUPS
from saliency_entropy.metrics import seen_in_training, unseen_images
from saliency_entropy.run.ranking import RANKINGS, SUFFIXES, ranking_scores
from saliency_entropy.scores.one_pass import CHECKPOINT
from saliency_entropy.study.runs import Run
from saliency_entropy.study.statistics import NAN

# With fewer images a figure of one generator or group says more about these images than about the group.
MIN_IMAGES = 30
# A true positive rate at a threshold that fewer real images than this set says more about these images.
MIN_ERRORS = 10
# Shares of the real images, of test (for TPR) or validation (for thresholds), that may be called synthetic.
LOW_RATES = (0.01, 0.001)
# The thresholds fixed on validation: name -> the share of its real images called synthetic; None for equal errors.
THRESHOLDS: dict[str, float | None] = {"val_eer": None} | {f"val_bpcer_{rate}": rate for rate in LOW_RATES}
# A run has these figures for all synthetic images and, with "_unseen", for those of unseen generators; those of ranking
# by logit 1, and with "_margin" by the margin.
RANKING_FIGURES = (
    "average_precision", "eer", *(f"tpr_at_fpr_{rate}{end}" for rate in LOW_RATES for end in ("", "_low", "_high")),
)  # fmt: skip
APCER_FIGURES = tuple(f"{kind}_at_{name}" for name in THRESHOLDS for kind in ("apcer", "apcer_max", "apcer_max_images"))
BPCER_FIGURES = tuple(f"bpcer_at_{name}" for name in THRESHOLDS)
CALIBRATION_FIGURES = ("ece", "ece_floor", "temperature", "ece_scaled")
AUROCS = {score: f"auroc{suffix}" for score, suffix in SUFFIXES.items()}
GROUP_FIGURES = (*AUROCS.values(), "apcer", "bpcer")


@dataclass(frozen=True, eq=False)
class RunFigures:
    """What the scores of one run say.

    Attributes:
        figures: by name, see :class:`~saliency_entropy.study.tables.Measures`.
        generators: a row for each generator and set of real images.
        groups: a row for each value of a column of the manifest.
        roc: score -> the ROC curve, against all real images, of the synthetic images that methods are compared by:
            those of unseen generators if there are any, else all.
        problems: clauses on figures that the scores do not allow, each to follow the name of the run and a colon.
    """

    figures: dict[str, float]
    generators: list[dict[str, object]]
    groups: list[dict[str, object]]
    roc: dict[str, RocCurve]
    problems: list[str]


class RankedScores:
    """Test images and their scores, each sorted once, so that no curve of a part of the images needs a sort of its own:
    a row of ``table`` for each image, the generators in training, and those of their families."""

    def __init__(self, table: pd.DataFrame, train_generators: list[str], relatives: Sequence[str] = ()) -> None:
        self.table = table
        self.training = train_generators, relatives
        scores = ranking_scores(table)
        self.judging = scores["margin"]
        self.synthetic = (table["label"] == "synthetic").to_numpy()
        self.unseen = unseen_images(table, train_generators, relatives)
        # Generator -> mask of its images.
        codes, names = pd.factorize(table["generator"])
        masks = {name: (codes == code) & self.synthetic for code, name in enumerate(names)}
        self.generators = {name: masks[name] for name in sorted(masks) if masks[name].any()}
        # Score -> the images from the highest to the lowest: their places, values, and which are synthetic.
        orders = {score: np.argsort(-values, kind="stable") for score, values in scores.items()}
        self._sorted = {score: (at, scores[score][at], self.synthetic[at]) for score, at in orders.items()}

    def ranked(self, kept: np.ndarray, score: str) -> tuple[np.ndarray, np.ndarray]:
        """The values of a score of the images in a mask, falling, and which of them are synthetic."""
        places, values, synthetic = self._sorted[score]
        chosen = kept[places]
        return values[chosen], synthetic[chosen]

    def aurocs(self, synthetic: np.ndarray, real: np.ndarray, name: str = "auroc") -> dict[str, float]:
        """AUROC by both scores, ``name`` and ``<name>_margin``, of the images in either of two masks; NaN with fewer
        than 30 of either, or with a score that is not finite."""
        kept = {name + suffix: self.ranked(synthetic | real, score) for score, suffix in SUFFIXES.items()}
        enough = min(synthetic.sum(), real.sum()) >= MIN_IMAGES
        return {key: roc(*own).auroc if enough and np.isfinite(own[0]).all() else NAN for key, own in kept.items()}


def is_of_this_checkpoint(run: Run, path: Path) -> bool:
    """Whether a score file was made with the weights that a run was scored with; True if it does not say."""
    digest = (pq.read_schema(path).metadata or {}).get(CHECKPOINT)
    return digest is None or run.has_checkpoint(digest.decode())


def common_mode_ratio(table: pd.DataFrame) -> float:
    """How far the part of the logits that classification does not train moves logit 1: the variance over the images of
    the mean of both logits, the common mode, over that of half the margin, whose sum logit 1 is; NaN if the latter is
    0.

    Args:
        table: ``logit_real, logit_synthetic`` of each image.
    """
    real, synthetic = (table[name].to_numpy(np.float64) for name in ("logit_real", "logit_synthetic"))
    half_margin = ((synthetic - real) / 2).var()
    return float(((synthetic + real) / 2).var() / half_margin) if half_margin > 0 else NAN


def run_figures(
    test: pd.DataFrame,
    val: pd.DataFrame | None,
    train_generators: list[str],
    group_columns: Iterable[str] = (),
    relatives: Sequence[str] = (),
) -> RunFigures:
    """Everything that a report says of a run's scores.

    Args:
        test: the test images with finite scores, see :meth:`~saliency_entropy.study.runs.Run.test_scores`.
        val: the validation images, if there are any.
        train_generators: the generators in training.
        group_columns: columns by whose values the test images are grouped; columns that ``test`` lacks are skipped.
        relatives: the generators of the families of those in training.
    """
    scores = RankedScores(test, train_generators, relatives)
    real, everything = ~scores.synthetic, np.ones(len(test), dtype=bool)
    thresholds, temperature, problems = _fixed_on_validation(val)
    generators = _generator_rows(scores)
    own = [row for row in generators if not row["against"]]
    figures: dict[str, float] = {}
    curves = {}
    for score, suffix in SUFFIXES.items():
        curves[score], pooled = _ranking(scores, everything, score)
        unseen = dict.fromkeys(pooled, NAN)
        if scores.unseen.any():
            curves[score], unseen = _ranking(scores, real | scores.unseen, score)
        for of, found in (("", pooled), ("_unseen", unseen)):
            figures |= {f"{figure}{of}{suffix}": value for figure, value in found.items()}
        figures[f"auroc_macro{suffix}"] = _mean(row[AUROCS[score]] for row in own)
        figures[f"auroc_unseen_macro{suffix}"] = _mean(row[AUROCS[score]] for row in own if row["seen"] == "no")
        if problem := score_problem(*scores.ranked(everything, score)):
            problems.append(
                f"no average precision, EER or true positive rate by {RANKINGS[score]}, since in scores/test.parquet "
                f"{problem}."
            )
    cam_entropy = float(test["cam_entropy"].mean())
    figures |= {
        "accuracy": float(((scores.judging > 0) == scores.synthetic).mean()),
        "cam_entropy": cam_entropy,
        "focus_area": math.exp(cam_entropy),
        **_apcers(scores, scores.synthetic, thresholds),
        **{f"{name}_unseen": value for name, value in _apcers(scores, scores.unseen, thresholds).items()},
        **{f"bpcer_at_{name}": bpcer(scores.judging[real], value, MIN_IMAGES) for name, value in thresholds.items()},
        "common_mode_ratio": common_mode_ratio(test),
        "ece": expected_calibration_error(scores.judging, scores.synthetic),
        "ece_floor": calibration_floor(scores.judging),
        "temperature": temperature,
        "ece_scaled": expected_calibration_error(scores.judging, scores.synthetic, temperature),
        "val_real": 0 if val is None else int((val["label"] == "real").sum()),
        "test_real": int(real.sum()),
        "test_synthetic": int(scores.synthetic.sum()),
        "test_unseen": int(scores.unseen.sum()),
    }
    return RunFigures(
        figures, generators, _group_rows(scores, group_columns, thresholds["val_eer"], generators), curves, problems
    )


def group_columns(run: Run) -> tuple[list[str], list[str]]:
    """The columns of the manifest that group the run's test images, and the columns of too many different values.

    A column of one value groups nothing and is in neither list.
    """
    names = run.manifest_columns()
    if not names:
        return [], []
    table = run.test_scores(names)
    counts = {name: len(_values(table[name])) for name in names}
    grouping = [name for name in names if 1 < counts[name] <= MAX_GROUPS]
    return grouping, [name for name in names if counts[name] > MAX_GROUPS]


def unknown_sources(table: pd.DataFrame) -> list[str]:
    """The sources that column compare_with names, but no real image has."""
    real = (table["label"] == "real").to_numpy()
    named = _compared_sources(table, ~real)
    return sorted(set(named) - set(table["source"][real])) if named else []


def _fixed_on_validation(val: pd.DataFrame | None) -> tuple[dict[str, float], float, list[str]]:
    """The thresholds by name, the temperature, and why one of them is missing."""
    missing = dict.fromkeys(THRESHOLDS, NAN)
    without = "no threshold or temperature can be fixed on validation, since"
    if val is None:
        return missing, NAN, [f"{without} scores/val.parquet does not exist."]
    differences, synthetic = ranking_scores(val)["margin"], (val["label"] == "synthetic").to_numpy()
    problem = score_problem(differences, synthetic)
    if problem:
        return missing, NAN, [f"{without} in scores/val.parquet {problem}."]
    curve = roc(differences, synthetic)
    thresholds = {
        name: curve.equal_error_threshold if rate is None else curve.threshold(rate)
        for name, rate in THRESHOLDS.items()
    }
    temperature = fitted_temperature(differences, synthetic)
    if not np.isnan(temperature):
        return thresholds, temperature, []
    why = (
        "the logits of no image point to the wrong class, so that a lower one always fits better"
        if np.where(synthetic, differences, -differences).mean() > 0
        else "the logits point to the wrong class on average, so that a higher one always fits better"
    )
    return thresholds, NAN, [f"no temperature fits scores/val.parquet best: {why}."]


def _ranking(scores: RankedScores, kept: np.ndarray, score: str) -> tuple[RocCurve, dict[str, float]]:
    """The ROC curve of the images in a mask, and the figures of ranking them."""
    ranked = scores.ranked(kept, score)
    curve = roc(*ranked)
    figures = {"auroc": curve.auroc} | dict.fromkeys(RANKING_FIGURES, NAN)
    if score_problem(*ranked):
        return curve, figures
    figures |= {"average_precision": average_precision(*ranked), "eer": curve.equal_error_rate}
    for rate in LOW_RATES:
        if resolves(curve.real, rate, MIN_ERRORS):
            low, high = curve.true_positive_interval(rate)
            name = f"tpr_at_fpr_{rate}"
            figures |= {name: curve.true_positive_rate(rate), f"{name}_low": low, f"{name}_high": high}
    return curve, figures


def _apcers(scores: RankedScores, kept: np.ndarray, thresholds: dict[str, float]) -> dict[str, float]:
    """APCER of these images, and the highest of a generator with at least 30 of them; NaN with fewer than 30."""
    pooled = scores.judging[kept]
    masks = [mask & kept for mask in scores.generators.values()]
    own = [scores.judging[mask] for mask in masks if mask.sum() >= MIN_IMAGES]
    figures = {}
    for name, threshold in thresholds.items():
        worst, images = max(((apcer(values, threshold), len(values)) for values in own), default=(NAN, NAN))
        figures[f"apcer_at_{name}"] = apcer(pooled, threshold, MIN_IMAGES)
        figures |= {f"apcer_max_at_{name}": worst, f"apcer_max_images_at_{name}": images}
    return figures


def _generator_rows(scores: RankedScores) -> list[dict[str, object]]:
    rows = []
    for generator, images in scores.generators.items():
        suited = "+".join(_compared_sources(scores.table, images))
        for against in ("", suited) if suited else ("",):
            real = ~scores.synthetic
            if against:
                real = real & scores.table["source"].isin(against.split("+")).to_numpy()
            rows.append(
                {
                    "generator": generator,
                    "seen": seen_in_training(generator, *scores.training),
                    "against": against,
                    "synthetic": int(images.sum()),
                    "real": int(real.sum()),
                    **scores.aurocs(images, real),
                }
            )
    return rows


def _group_rows(
    scores: RankedScores, columns: Iterable[str], threshold: float, generators: list[dict[str, object]]
) -> list[dict[str, object]]:
    """A row for every generator and every value of the columns; a group of one class is ranked with all images of the
    other."""
    known = {row["generator"]: row for row in generators if not row["against"]}
    groups = [("generator", name, mask) for name, mask in scores.generators.items()]
    for column in columns:
        if column in scores.table:
            cells = scores.table[column]
            groups += [(column, value, (cells == value).to_numpy(dtype=bool)) for value in _values(cells)]
    rows = []
    for column, value, mask in groups:
        synthetic, real = mask & scores.synthetic, mask & ~scores.synthetic
        against = "all real" if not real.any() else "all synthetic" if not synthetic.any() else ""
        if column == "generator":
            areas = {name: known[value][name] for name in AUROCS.values()}
        else:
            areas = scores.aurocs(
                synthetic if synthetic.any() else scores.synthetic, real if real.any() else ~scores.synthetic
            )
        rows.append(
            {
                "column": column,
                "group": _name(value),
                "synthetic": int(synthetic.sum()),
                "real": int(real.sum()),
                "against": against,
                **areas,
                "apcer": apcer(scores.judging[synthetic], threshold, MIN_IMAGES),
                "bpcer": bpcer(scores.judging[real], threshold, MIN_IMAGES),
            }
        )
    return rows


def _compared_sources(table: pd.DataFrame, images: np.ndarray) -> list[str]:
    """The sources of real images that these images name in column compare_with."""
    if "compare_with" not in table or "source" not in table:
        return []
    cells = table["compare_with"][images].dropna().astype("str").unique()
    return sorted({source for cell in cells for source in cell.split("+") if source})


def _values(cells: pd.Series) -> list[object]:
    """The different values, in order, without empty cells."""
    return sorted(value for value in cells.dropna().unique() if value != "")


def _name(value: object) -> str:
    """The name of a group, by its exact value: two different groups must not get one name."""
    # pandas reads a column of whole numbers with gaps as floats.
    whole = isinstance(value, float | np.floating) and value.is_integer()
    return str(int(value)) if whole else str(value)


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else NAN
