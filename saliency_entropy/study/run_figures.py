"""The figures of one run, from the scores that it left.

Two scores, for two purposes. Images are *ranked* by the logit of "synthetic", as in the paper: AUROC, average
precision, EER and true positive rates. They are *judged* by the difference of both logits, with which the softmax
rises: accuracy, thresholds, APCER and BPCER, calibration.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from saliency_entropy.calibration.operating_points import RocCurve, apcer, average_precision, bpcer, roc, score_problem
from saliency_entropy.calibration.temperature import expected_calibration_error, fitted_temperature
from saliency_entropy.data.group_names import MAX_GROUPS
from saliency_entropy.metrics import auroc, seen_in_training, unseen_images
from saliency_entropy.scores.one_pass import CHECKPOINT
from saliency_entropy.study.runs import Run
from saliency_entropy.study.statistics import NAN

# With fewer images a figure of one generator or group says more about these images than about the group.
MIN_IMAGES = 30
# Shares of the real images, of test (for TPR) or validation (for thresholds), that may be called synthetic.
LOW_RATES = (0.01, 0.001)
# The thresholds fixed on validation: name -> the share of its real images called synthetic; None for equal errors.
THRESHOLDS: dict[str, float | None] = {"val_eer": None} | {f"val_bpcer_{rate}": rate for rate in LOW_RATES}
# A run has these figures for all synthetic images and, with "_unseen", for those of unseen generators.
RANKING_FIGURES = ("average_precision", "eer", *(f"tpr_at_fpr_{rate}" for rate in LOW_RATES))
APCER_FIGURES = tuple(f"{kind}_at_{name}" for name in THRESHOLDS for kind in ("apcer", "apcer_max"))
BPCER_FIGURES = tuple(f"bpcer_at_{name}" for name in THRESHOLDS)
CALIBRATION_FIGURES = ("ece", "temperature", "ece_scaled")
GROUP_FIGURES = ("auroc", "apcer", "bpcer")


@dataclass(frozen=True, eq=False)
class RunFigures:
    """What the scores of one run say.

    Attributes:
        figures: by name, see :class:`~saliency_entropy.study.tables.Measures`.
        generators: a row for each generator and set of real images.
        groups: a row for each value of a column of the manifest.
        roc: the ROC curve, against all real images, of the synthetic images that methods are compared by: those of
            unseen generators if there are any, else all.
        problems: clauses on figures that the scores do not allow, each to follow the name of the run and a colon.
    """

    figures: dict[str, float]
    generators: list[dict[str, object]]
    groups: list[dict[str, object]]
    roc: RocCurve
    problems: list[str]


class RankedScores:
    """Test images from the highest logit of "synthetic" to the lowest: sorted once, so that no curve of a part of them
    needs a sort of its own.

    Args:
        table: the scores, one row for each image.
        train_generators: the generators in training.
    """

    def __init__(self, table: pd.DataFrame, train_generators: list[str]) -> None:
        self.table = table.iloc[np.argsort(-table["logit_synthetic"].to_numpy(), kind="stable")]
        self.train_generators = train_generators
        self.ranking = self.table["logit_synthetic"].to_numpy()
        self.judging = logit_difference(self.table)
        self.synthetic = (self.table["label"] == "synthetic").to_numpy()
        self.unseen = unseen_images(self.table, train_generators)
        # Generator -> mask of its images.
        codes, names = pd.factorize(self.table["generator"])
        masks = {name: (codes == code) & self.synthetic for code, name in enumerate(names)}
        self.generators = {name: masks[name] for name in sorted(masks) if masks[name].any()}

    def roc(self, kept: np.ndarray) -> RocCurve:
        return roc(self.ranking[kept], self.synthetic[kept])

    def auroc(self, synthetic: np.ndarray, real: np.ndarray) -> float:
        """NaN with fewer than 30 of either."""
        if min(synthetic.sum(), real.sum()) < MIN_IMAGES:
            return NAN
        return self.roc(synthetic | real).auroc


def logit_difference(table: pd.DataFrame) -> np.ndarray:
    """``(N,)`` float64, the logit of "synthetic" minus that of "real"; the softmax is its sigmoid."""
    return table["logit_synthetic"].to_numpy(dtype=np.float64) - table["logit_real"].to_numpy(dtype=np.float64)


def is_of_this_checkpoint(run: Run, path: Path) -> bool:
    """Whether a score file was made with the weights that a run was scored with; True if it does not say."""
    digest = (pq.read_schema(path).metadata or {}).get(CHECKPOINT)
    return digest is None or run.has_checkpoint(digest.decode())


def auroc_of(logits: np.ndarray, synthetic: np.ndarray, real: np.ndarray) -> float:
    """AUROC of the images in either of two masks ``(N,)``; NaN with fewer than 30 of either."""
    if min(synthetic.sum(), real.sum()) < MIN_IMAGES:
        return NAN
    kept = synthetic | real
    return auroc(logits[kept], synthetic[kept])


def run_figures(
    test: pd.DataFrame, val: pd.DataFrame | None, train_generators: list[str], group_columns: Iterable[str] = ()
) -> RunFigures:
    """Everything that a report says of a run's scores.

    Args:
        test: the test images with finite scores, see :meth:`~saliency_entropy.study.runs.Run.test_scores`.
        val: the validation images, if there are any.
        train_generators: the generators in training.
        group_columns: columns by whose values the test images are grouped; columns that ``test`` lacks are skipped.
    """
    scores = RankedScores(test, train_generators)
    real, everything = ~scores.synthetic, np.ones(len(test), dtype=bool)
    thresholds, temperature, problems = _fixed_on_validation(val)
    pooled = scores.roc(everything)
    unseen = scores.roc(real | scores.unseen) if scores.unseen.any() else None
    ranking = ranking_unseen = dict.fromkeys(RANKING_FIGURES, NAN)
    problem = score_problem(scores.ranking, scores.synthetic)
    if problem:
        problems.append(f"no average precision, EER or true positive rate, since in scores/test.parquet {problem}.")
    else:
        ranking = _ranking_figures(scores, everything, pooled)
        if unseen:
            ranking_unseen = _ranking_figures(scores, real | scores.unseen, unseen)
    generators = _generator_rows(scores)
    own = [row for row in generators if not row["against"]]
    cam_entropy = float(test["cam_entropy"].mean())
    figures = {
        "auroc": pooled.auroc,
        "auroc_unseen": unseen.auroc if unseen else NAN,
        "auroc_macro": _mean(row["auroc"] for row in own),
        "auroc_unseen_macro": _mean(row["auroc"] for row in own if row["seen"] == "no"),
        "auroc_softmax": roc(scores.judging, scores.synthetic).auroc,
        "accuracy": float(((scores.judging > 0) == scores.synthetic).mean()),
        "cam_entropy": cam_entropy,
        "focus_area": math.exp(cam_entropy),
        **ranking,
        **_with_suffix(ranking_unseen),
        **_apcers(scores, scores.synthetic, thresholds),
        **_with_suffix(_apcers(scores, scores.unseen, thresholds)),
        **{f"bpcer_at_{name}": bpcer(scores.judging[real], value) for name, value in thresholds.items()},
        "ece": expected_calibration_error(scores.judging, scores.synthetic),
        "temperature": temperature,
        "ece_scaled": expected_calibration_error(scores.judging, scores.synthetic, temperature),
        "val_real": 0 if val is None else int((val["label"] == "real").sum()),
        "test_real": int(real.sum()),
        "test_synthetic": int(scores.synthetic.sum()),
    }
    return RunFigures(
        figures,
        generators,
        _group_rows(scores, group_columns, thresholds["val_eer"], generators),
        unseen or pooled,
        problems,
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
    differences, synthetic = logit_difference(val), (val["label"] == "synthetic").to_numpy()
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


def _ranking_figures(scores: RankedScores, kept: np.ndarray, curve: RocCurve) -> dict[str, float]:
    return {
        "average_precision": average_precision(scores.ranking[kept], scores.synthetic[kept]),
        "eer": curve.equal_error_rate,
        **{f"tpr_at_fpr_{rate}": curve.true_positive_rate(rate) for rate in LOW_RATES},
    }


def _apcers(scores: RankedScores, kept: np.ndarray, thresholds: dict[str, float]) -> dict[str, float]:
    """APCER of these images, and the highest of a generator with at least 30 of them."""
    pooled = scores.judging[kept]
    masks = [mask & kept for mask in scores.generators.values()]
    own = [scores.judging[mask] for mask in masks if mask.sum() >= MIN_IMAGES]
    figures = {}
    for name, threshold in thresholds.items():
        figures[f"apcer_at_{name}"] = apcer(pooled, threshold)
        figures[f"apcer_max_at_{name}"] = max((apcer(values, threshold) for values in own), default=NAN)
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
                    "seen": seen_in_training(generator, scores.train_generators),
                    "against": against,
                    "synthetic": int(images.sum()),
                    "real": int(real.sum()),
                    "auroc": scores.auroc(images, real),
                }
            )
    return rows


def _group_rows(
    scores: RankedScores, columns: Iterable[str], threshold: float, generators: list[dict[str, object]]
) -> list[dict[str, object]]:
    """A row for every generator and every value of the columns; a group of one class is ranked with all images of the
    other."""
    known = {row["generator"]: row["auroc"] for row in generators if not row["against"]}
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
            area = known[value]
        else:
            area = scores.auroc(
                synthetic if synthetic.any() else scores.synthetic, real if real.any() else ~scores.synthetic
            )
        rows.append(
            {
                "column": column,
                "group": _name(value),
                "synthetic": int(synthetic.sum()),
                "real": int(real.sum()),
                "against": against,
                "auroc": area,
                "apcer": apcer(scores.judging[synthetic], threshold) if synthetic.sum() >= MIN_IMAGES else NAN,
                "bpcer": bpcer(scores.judging[real], threshold) if real.sum() >= MIN_IMAGES else NAN,
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


def _with_suffix(figures: dict[str, float]) -> dict[str, float]:
    return {f"{name}_unseen": value for name, value in figures.items()}


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else NAN
