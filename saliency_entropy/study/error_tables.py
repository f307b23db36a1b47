"""Tables of errors: how often the methods of a study err, in which images, and how well they know when."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from saliency_entropy.calibration.operating_points import rate_interval, resolves
from saliency_entropy.calibration.temperature import BINS
from saliency_entropy.data.group_names import MAX_GROUPS
from saliency_entropy.data.table import LABELS
from saliency_entropy.page import wording
from saliency_entropy.page.table import Column, ShownTable, shown_table
from saliency_entropy.page.wording import NONE
from saliency_entropy.study.run_figures import (
    APCER_FIGURES,
    BPCER_FIGURES,
    CALIBRATION_FIGURES,
    GROUP_FIGURES,
    LOW_RATES,
    MIN_ERRORS,
    MIN_IMAGES,
    RANKING_FIGURES,
    THRESHOLDS,
)
from saliency_entropy.study.tables import (
    GROUP_COLUMNS,
    RANKED_BY,
    Measures,
    columns_per_method,
    over_seeds,
    per_method,
    synthetic_and_real,
)

OPERATING_FIGURES = (*RANKING_FIGURES, *APCER_FIGURES, *BPCER_FIGURES)
SETS = {"all": "all", "unseen": "unseen generators"}
FIGURE_TITLES = {"auroc": "AUROC, logit 1", "auroc_margin": "AUROC, margin", "apcer": "APCER", "bpcer": "BPCER"}
ALL_IMAGES, MEAN_OF_GROUPS = "(all images)", "(mean of the groups)"


def operating_point_table(measures: Measures) -> pd.DataFrame:
    """One row per method and set of synthetic images, all or those of unseen generators, against all real images.

    Returns:
        ``method, title, seeds, synthetic`` (the set: all or unseen), ``images`` and ``real`` (numbers of synthetic and
        real images), and the ``_mean`` and ``_std`` over the seeds of ``average_precision``, ``eer``,
        ``tpr_at_fpr_<rate>`` and the ends ``_low, _high`` of its 95 % interval over the images, and at each threshold
        that was fixed on validation, ``val_eer`` (equal errors) and ``val_bpcer_<rate>``: ``apcer_at_<threshold>``,
        ``apcer_max_at_<threshold>`` (the highest of a generator with at least 30 images; ``apcer_max_images_at_...``,
        how many) and ``bpcer_at_<threshold>``, with the ends ``_low, _high`` of their intervals over the images. All in
        [0, 1]; NaN if one of the runs lacks the figure.
    """
    tables = []
    for name in SETS if measures.measure == "auroc_unseen" else ("all",):
        suffix = "" if name == "all" else f"_{name}"
        figures = {f"{figure}{suffix}": figure for figure in (*RANKING_FIGURES, *APCER_FIGURES)}
        renamed = measures.runs.drop(columns=list(figures.values()) if suffix else []).rename(columns=figures)
        images = renamed["test_synthetic" if name == "all" else "test_unseen"]
        renamed = renamed.assign(synthetic=name, images=images, real=renamed["test_real"])
        tables.append(over_seeds(renamed, ["method", "title", "synthetic", "images", "real"], OPERATING_FIGURES))
    # Both sets of a method stand together.
    table = pd.concat(tables).sort_index(kind="stable").reset_index(drop=True)
    table.columns = [re.sub("(_low|_high)_mean$", r"\1", name) for name in table]
    for name in THRESHOLDS:
        counts = {"apcer": "images", "apcer_max": f"apcer_max_images_at_{name}_mean", "bpcer": "real"}
        for kind, images in counts.items():
            rates = zip(table[f"{kind}_at_{name}_mean"], table[images], strict=True)
            table[[f"{kind}_at_{name}_low", f"{kind}_at_{name}_high"]] = [rate_interval(*rate) for rate in rates]
    return table


def calibration_table(measures: Measures) -> pd.DataFrame:
    """One row per method: ``method, title, seeds``, and the ``_mean`` and ``_std`` over the seeds of ``ece`` (expected
    calibration error of the test images, in [0, 1]), ``ece_floor`` (about that of a perfect one), ``temperature``
    (fitted on validation) and ``ece_scaled`` (after dividing the logits by it). NaN if a run lacks the figure."""
    return over_seeds(measures.runs, ["method", "title"], CALIBRATION_FIGURES)


def group_table(measures: Measures) -> pd.DataFrame:
    """One row per group of test images and method.

    Groups are all images, the generators, and the values of the manifest's other columns; the groups of a column are
    followed by their mean, which is over those that have the figure, if there are several.

    Returns:
        ``column, group, synthetic, real, against`` as in :attr:`Measures.groups`, ``method, seeds``, and the ``_mean``
        and ``_std`` over the seeds of ``auroc``, ``auroc_margin``, ``apcer`` and ``bpcer``; NaN if one of the runs
        lacks the figure.
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
    """What ranks images in :func:`operating_point_table` by both scores, as readers see it."""
    about = (
        "AP (average precision), EER (equal error rate) and TPR (true positive rate at a false positive rate no higher "
        "than the one named) rank the test images as AUROC does, against all real ones. AP by chance: the share of "
        "synthetic images, which a constant score reaches. 95 % interval of the TPR: if other images were judged, real "
        "ones at the threshold included (Clopper and Pearson’s, the mean of its ends over the seeds)."
    )
    columns = [
        Column("Method", "title"),
        *_sets(table),
        RANKED_BY,
        Column("AP", "average_precision", "spread", notes=[about]),
        Column("AP by chance", lambda row: wording.number(row["images"] / (row["images"] + row["real"]))),
        Column("EER", "eer", "spread", notes=_on_missing(table, ("average_precision",))),
    ]
    for rate in LOW_RATES:
        name = f"tpr_at_fpr_{rate}"
        columns += [
            Column(f"TPR at {_percent(rate)} FPR", name, "spread"),
            Column(f"95 %, {_percent(rate)} FPR", f"{name}_", "interval", notes=_on_tpr(measures, rate)),
        ]
    return shown_table("operating_points", "Ranking of test images", table, columns)


def shown_error_rates(table: pd.DataFrame, measures: Measures) -> ShownTable:
    """The errors in :func:`operating_point_table`, at the threshold of equal errors on validation, as readers see
    them; they do not depend on the ranking."""
    about = (
        "APCER (synthetic images taken for real: of all together, and of the worst generator) and BPCER (real images "
        "called synthetic) are those of ISO/IEC 30107-3, judged by the margin at the threshold where both errors are "
        f"equal on the validation images, of {MIN_IMAGES} images at least. 95 % interval: if other images were judged "
        "(Clopper and Pearson’s, at the mean rate); the worst of several is the higher for being chosen. The CSV has "
        f"them also at the thresholds of BPCER = {' and '.join(map(_percent, LOW_RATES))} on validation."
    )
    few = measures.generators.loc[measures.generators["synthetic"] < MIN_IMAGES, "generator"].unique()
    about_few = (
        f"Not considered for the worst generator, with fewer than {MIN_IMAGES} images: {_names('generator', few)}."
    )
    missing = _on_missing(table, ("apcer_at_val_eer", "bpcer_at_val_eer"))
    columns = [
        Column("Method", "title"),
        *_sets(table),
        Column("Images", lambda row: f"{row['images']:,} + {row['real']:,}"),
        Column("APCER", "apcer_at_val_eer", "spread", notes=[about]),
        Column("95 %, APCER", "apcer_at_val_eer_", "interval"),
        Column("APCER, worst generator", "apcer_max_at_val_eer", "spread", notes=[about_few] if len(few) else []),
        Column("95 %, worst generator", "apcer_max_at_val_eer_", "interval"),
        Column("BPCER", "bpcer_at_val_eer", "spread", notes=[*_on_thresholds(measures), *missing]),
        Column("95 %, BPCER", "bpcer_at_val_eer_", "interval"),
    ]
    once = table.drop_duplicates(["method", "synthetic"])
    names = [name for name in once if "cer" in name]
    numbers = once[["method", "title", "synthetic", "images", "real", "seeds", *names]]
    return shown_table("error_rates", "Error rates", numbers, columns)


def shown_calibration(table: pd.DataFrame) -> ShownTable:
    """:func:`calibration_table` as readers see it."""
    about_ece = (
        f"ECE (expected calibration error): how far the softmax confidence is from the accuracy, over {BINS} bins of "
        "equal width, of all test images; so it holds for their mix of real and synthetic, and of generators. If "
        "perfect: about what a perfectly calibrated detector of the same confidences would show on as many images."
    )
    about_temperature = (
        "Temperature: what the logits are divided by, chosen for the smallest negative log-likelihood of the "
        "validation images; above 1, the detector is too sure of them. It changes no verdict. ECE after scaling is "
        "that of the test images with it."
    )
    columns = [
        Column("Method", "title"),
        Column("ECE", "ece", "spread", notes=[about_ece]),
        Column("ECE if perfect", "ece_floor", "spread"),
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
        Column("Figure", lambda row: FIGURE_TITLES[row["figure"]]),
        *columns_per_method(titles),
    ]
    rows = pd.concat([per_method(table, GROUP_COLUMNS, figure).assign(figure=figure) for figure in GROUP_FIGURES])
    # Left out: errors of a class that the group lacks; and the AUROC of a generator, which has a table of its own.
    skipped = (
        (rows["figure"].str.startswith("auroc") & (rows["column"] == "generator"))
        | ((rows["figure"] == "apcer") & (rows["synthetic"] == 0))
        | ((rows["figure"] == "bpcer") & (rows["real"] == 0))
    )
    without = rows.filter(regex="_mean$").isna().all(axis=1)
    rows = rows[~skipped.mask(rows["group"] == MEAN_OF_GROUPS, without)].sort_index(kind="stable")
    return shown_table("groups", "Errors by group of images", table, columns, rows)


def _sets(table: pd.DataFrame) -> list[Column]:
    """The column that tells sets of synthetic images apart, if there are several."""
    several = table["synthetic"].nunique() > 1
    return [Column("Synthetic images", lambda row: SETS[row["synthetic"]])] if several else []


def _on_tpr(measures: Measures, rate: float) -> list[str]:
    """A note if the test set has too few real images for a true positive rate at this rate of false ones."""
    real = int(measures.runs["test_real"].iloc[0])
    if resolves(real, rate, MIN_ERRORS):
        return []
    return [
        f"“–” for TPR at {_percent(rate)} FPR: for {MIN_ERRORS} real images beyond the threshold it needs "
        f"{round(MIN_ERRORS / rate):,} of them, and the test set has {real:,}."
    ]


def _on_thresholds(measures: Measures) -> list[str]:
    """Notes on the thresholds that need more real images than the validation set has."""
    # A run without validation images has a warning of its own.
    val_real = measures.runs["val_real"]
    fewest = int(val_real[val_real > 0].min()) if val_real.any() else None
    return [
        f"No threshold of BPCER = {_percent(rate)}: {_percent(rate)} of real images needs {round(1 / rate):,} of them, "
        f"and the validation set has {fewest:,}."
        for rate in LOW_RATES
        if fewest and not resolves(fewest, rate)
    ]


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
