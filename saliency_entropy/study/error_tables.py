"""Tables of errors: how often the methods of a study err, in which images, and how well they know when."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from saliency_entropy.calibration.operating_points import resolves
from saliency_entropy.calibration.temperature import BINS
from saliency_entropy.data.group_names import MAX_GROUPS
from saliency_entropy.data.table import LABELS
from saliency_entropy.page.table import Column, ShownTable, shown_table
from saliency_entropy.page.wording import NONE
from saliency_entropy.study.run_figures import (
    APCER_FIGURES,
    BPCER_FIGURES,
    CALIBRATION_FIGURES,
    GROUP_FIGURES,
    LOW_RATES,
    MIN_IMAGES,
    RANKING_FIGURES,
)
from saliency_entropy.study.tables import (
    GROUP_COLUMNS,
    Measures,
    columns_per_method,
    over_seeds,
    per_method,
    synthetic_and_real,
)

OPERATING_FIGURES = (*RANKING_FIGURES, *APCER_FIGURES, *BPCER_FIGURES)
SETS = {"all": "all", "unseen": "unseen generators"}
ALL_IMAGES, MEAN_OF_GROUPS = "(all images)", "(mean of the groups)"


def operating_point_table(measures: Measures) -> pd.DataFrame:
    """One row per method and set of synthetic images, all or those of unseen generators, against all real images.

    Returns:
        ``method, title, seeds, synthetic`` (the set: all or unseen), and the ``_mean`` and ``_std`` over the seeds of
        ``average_precision``, ``eer``, ``tpr_at_fpr_<rate>``, and at each threshold that was fixed on validation,
        ``val_eer`` (equal errors) and ``val_bpcer_<rate>``: ``apcer_at_<threshold>``, ``apcer_max_at_<threshold>``
        (the highest of a generator with at least 30 images) and ``bpcer_at_<threshold>``. All in [0, 1]; NaN if one
        of the runs lacks the figure.
    """
    tables = []
    for name in SETS if measures.measure == "auroc_unseen" else ("all",):
        suffix = "" if name == "all" else f"_{name}"
        figures = {f"{figure}{suffix}": figure for figure in (*RANKING_FIGURES, *APCER_FIGURES)}
        renamed = measures.runs.drop(columns=list(figures.values()) if suffix else []).rename(columns=figures)
        renamed = renamed.assign(synthetic=name)
        tables.append(over_seeds(renamed, ["method", "title", "synthetic"], OPERATING_FIGURES))
    # Both sets of a method stand together.
    return pd.concat(tables).sort_index(kind="stable").reset_index(drop=True)


def calibration_table(measures: Measures) -> pd.DataFrame:
    """One row per method: ``method, title, seeds``, and the ``_mean`` and ``_std`` over the seeds of ``ece`` (expected
    calibration error of the test images, in [0, 1]), ``temperature`` (fitted on validation) and ``ece_scaled`` (after
    dividing the logits by it). NaN if one of the runs lacks the figure."""
    return over_seeds(measures.runs, ["method", "title"], CALIBRATION_FIGURES)


def group_table(measures: Measures) -> pd.DataFrame:
    """One row per group of test images and method.

    Groups are all images, the generators, and the values of the manifest's other columns; the groups of a column are
    followed by their mean, which is over those that have the figure, if there are several.

    Returns:
        ``column, group, synthetic, real, against`` as in :attr:`Measures.groups`, ``method, seeds``, and the ``_mean``
        and ``_std`` over the seeds of ``auroc``, ``apcer`` and ``bpcer``; NaN if one of the runs lacks the figure.
    """
    groups = measures.groups
    by_column = groups.groupby(["method", "seed", "column"], sort=False)[list(GROUP_FIGURES)]
    macro = by_column.mean().where(by_column.count() > 1).reset_index()
    macro = macro.assign(group=MEAN_OF_GROUPS, synthetic=0, real=0, against="")
    pooled = measures.runs.rename(columns={"apcer_at_val_eer": "apcer", "bpcer_at_val_eer": "bpcer"})
    pooled = pooled.assign(column="", group=ALL_IMAGES, synthetic=pooled["test_synthetic"], real=pooled["test_real"])
    rows = pd.concat([pooled.assign(against=""), groups, macro])[["method", "seed", *GROUP_COLUMNS, *GROUP_FIGURES]]
    place = {column: i for i, column in enumerate(["", *groups["column"].unique()])}
    rows = rows.sort_values("column", key=lambda column: column.map(place), kind="stable")
    return over_seeds(rows, [*GROUP_COLUMNS, "method"], GROUP_FIGURES)


def shown_operating_points(table: pd.DataFrame, measures: Measures) -> ShownTable:
    """:func:`operating_point_table` as readers see it; of the thresholds, that of equal errors alone."""
    real, synthetic = (int(measures.runs[f"test_{label}"].iloc[0]) for label in ("real", "synthetic"))
    about_ranking = (
        "AP (average precision), EER (equal error rate) and TPR (true positive rate at a false positive rate no higher "
        "than the one named) rank the test images by the logit of “synthetic”, as AUROC does, against all real ones. "
        "AP depends on the share of synthetic images: of all images, chance reaches "
        f"{synthetic / (real + synthetic):.3f}."
    )
    about_errors = (
        "APCER (synthetic images taken for real: of all together, and of the worst generator) and BPCER (real images "
        "called synthetic) are those of ISO/IEC 30107-3. Both judge by the difference of the two logits, as the "
        "softmax does, at the threshold where both errors are equal on the validation images. The CSV has them also at "
        f"the thresholds of BPCER = {' and '.join(map(_percent, LOW_RATES))} on validation."
    )
    few = measures.generators.loc[measures.generators["synthetic"] < MIN_IMAGES, "generator"].unique()
    about_few = (
        f"Not considered for the worst generator, with fewer than {MIN_IMAGES} images: {_names('generator', few)}."
    )
    sets = [Column("Synthetic images", lambda row: SETS[row["synthetic"]])]
    missing = _on_missing(table, ("average_precision", "apcer_at_val_eer", "bpcer_at_val_eer"))
    columns = [
        Column("Method", "title"),
        *(sets if table["synthetic"].nunique() > 1 else []),
        Column("AP", "average_precision", "spread", notes=[about_ranking]),
        Column("EER", "eer", "spread"),
        *(Column(f"TPR at {_percent(rate)} FPR", f"tpr_at_fpr_{rate}", "spread") for rate in LOW_RATES),
        Column("APCER", "apcer_at_val_eer", "spread", notes=[about_errors]),
        Column("APCER, worst generator", "apcer_max_at_val_eer", "spread", notes=[about_few] if len(few) else []),
        Column("BPCER", "bpcer_at_val_eer", "spread", notes=[*_on_low_rates(measures, real), *missing]),
    ]
    return shown_table("operating_points", "Operating points", table, columns)


def shown_calibration(table: pd.DataFrame) -> ShownTable:
    """:func:`calibration_table` as readers see it."""
    about_ece = (
        f"ECE (expected calibration error): how far the softmax confidence is from the accuracy, over {BINS} bins of "
        "equal width, of all test images; so it holds for their mix of real and synthetic, and of generators."
    )
    about_temperature = (
        "Temperature: what the logits are divided by, chosen for the smallest negative log-likelihood of the "
        "validation images; above 1, the detector is too sure of them. It changes no verdict. ECE after scaling is "
        "that of the test images with it."
    )
    columns = [
        Column("Method", "title"),
        Column("ECE", "ece", "spread", notes=[about_ece]),
        Column("Temperature", "temperature", "spread", 2, notes=[about_temperature]),
        Column("ECE after scaling", "ece_scaled", "spread", notes=_on_missing(table, CALIBRATION_FIGURES)),
    ]
    return shown_table("calibration", "Calibration", table, columns)


def shown_groups(table: pd.DataFrame, measures: Measures, titles: dict[str, str]) -> ShownTable:
    """:func:`group_table` as readers see it: one row per group and figure, one column per method."""
    columns = [
        # The first column stays in sight and names its row.
        Column("Group", lambda row: row["group"] or "(not named)", notes=_on_groups(table, measures)),
        Column("Column", lambda row: row["column"] or NONE),
        Column("Images", _images),
        Column("Figure", lambda row: row["figure"].upper()),
        *columns_per_method(titles),
    ]
    rows = pd.concat([per_method(table, GROUP_COLUMNS, figure).assign(figure=figure) for figure in GROUP_FIGURES])
    # Left out: errors of a class that the group lacks; and the AUROC of a generator, which has a table of its own.
    skipped = (
        ((rows["figure"] == "auroc") & (rows["column"] == "generator"))
        | ((rows["figure"] == "apcer") & (rows["synthetic"] == 0))
        | ((rows["figure"] == "bpcer") & (rows["real"] == 0))
    )
    without = rows.filter(regex="_mean$").isna().all(axis=1)
    rows = rows[~skipped.mask(rows["group"] == MEAN_OF_GROUPS, without)].sort_index(kind="stable")
    return shown_table("groups", "Errors by group of images", table, columns, rows)


def _on_low_rates(measures: Measures, real: int) -> list[str]:
    """Notes on the rates that need more real images than the test set has (``real``) or the validation set."""
    # A run without validation images has a warning of its own.
    val_real = measures.runs["val_real"]
    fewest = int(val_real[val_real > 0].min()) if val_real.any() else None
    sentences = []
    for rate in LOW_RATES:
        needed = f"{_percent(rate)} of real images needs {round(1 / rate):,} of them"
        if not resolves(real, rate):
            sentences.append(f"“–” for TPR at {_percent(rate)} FPR: {needed}, and the test set has {real:,}.")
        if fewest and not resolves(fewest, rate):
            sentences.append(
                f"No threshold of BPCER = {_percent(rate)}: {needed}, and the validation set has {fewest:,}."
            )
    return sentences


def _on_groups(table: pd.DataFrame, measures: Measures) -> list[str]:
    """The notes of the table by group."""
    sentences = [
        "AUROC is within a group; a group of one class is ranked with all test images of the other. APCER and BPCER "
        "are at the threshold of equal errors on validation. The mean of the groups is over those with the figure.",
    ]
    groups = measures.groups
    # A group of one class is compared with all images of the other.
    compared = [groups[label].where(groups[label] > 0, measures.runs[f"test_{label}"].max()) for label in LABELS]
    few = groups[np.minimum(*compared) < MIN_IMAGES].groupby("column", sort=False)["group"].unique()
    if len(few):
        named = "; ".join(_names(column, names) for column, names in few.items())
        sentences.append(f"“–” for {named}: fewer than {MIN_IMAGES} synthetic or real images.")
    if set(groups["column"]) - {"generator"}:
        sentences.append("Images with nothing in a column are in none of its groups.")
    runs = groups.groupby(["column", "group"], sort=False).size()
    partial = list(runs[runs < len(measures.runs)].index.unique("column"))
    if partial:
        sentences.append(f"Not all runs have these columns, or the same values in them: {', '.join(partial)}.")
    if measures.ungrouped:
        named = ", ".join(measures.ungrouped)
        sentences.append(f"Not grouped by {named}: more than {MAX_GROUPS} different values in the test images.")
    return sentences + _on_missing(table[table["column"] == ""], GROUP_FIGURES)


def _on_missing(table: pd.DataFrame, figures: Iterable[str]) -> list[str]:
    missing = table[[f"{name}_mean" for name in figures]].isna().any(axis=None)
    return ["“–”: the scores of at least one run do not allow the figure; the warnings say why."] if missing else []


def _names(column: str, groups: Iterable[str]) -> str:
    named = ", ".join(group or "(not named)" for group in groups)
    return named if column == "generator" else f"{column} {named}"


def _images(row: Mapping[str, Any]) -> str:
    if row["synthetic"] and row["real"]:
        return synthetic_and_real(row)
    return next((f"{row[label]:,} {label}" for label in LABELS if row[label]), NONE)


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"
