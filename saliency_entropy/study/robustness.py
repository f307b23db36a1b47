"""How well the methods of a study withstand corrupted images: AUROC and CAM entropy by corruption and strength."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context

from saliency_entropy.page.table import Column, ShownTable, shown_table
from saliency_entropy.run.console import typed
from saliency_entropy.run.ranking import RANKINGS, SUFFIXES
from saliency_entropy.scores.corruptions import NONE, STRENGTHS
from saliency_entropy.scores.score_table import SUFFIX
from saliency_entropy.study.figures import STYLE, Figure, method_styles, plain
from saliency_entropy.study.run_figures import MIN_IMAGES, RankedScores
from saliency_entropy.study.runs import Study
from saliency_entropy.study.score_files import comparable_figures, not_finite
from saliency_entropy.study.tables import MEASURES, RANKED_BY, columns_per_method, over_seeds, per_method_and_score

NAME = f"test{SUFFIX}"
FILE = f"{NAME}.parquet"
KEYS = ["corruption", "strength", "method", "title"]  # of the table's rows
COLUMNS = ["path", "label", "generator", "corruption", "strength", "logit_real", "logit_synthetic", "cam_entropy"]
IMAGE_COLUMNS = ["corruption", "strength", "images", "fingerprint"]
AREAS = tuple(f"{name}{suffix}" for name in ("auroc", "auroc_unseen") for suffix in SUFFIXES.values())
FIGURES = (*AREAS, *(f"{name}_change" for name in AREAS), "cam_entropy")
# Corruption -> its heading, and the axis of its strength.
WORDS = {
    NONE: ("As they are", ""),
    "jpeg": ("JPEG compression", "Quality"),
    "blur": ("Gaussian blur", "Standard deviation / px"),
    "resize": ("Smaller copy", "Scale"),
    "noise": ("Gaussian noise", "Standard deviation / grey levels"),
    "contrast": ("Less contrast", "Contrast"),
}
PANEL_COLUMNS = 3


@dataclass(frozen=True, eq=False)
class RobustnessTable:
    """The figures of the runs on corrupted images.

    Attributes:
        numbers: one row per corruption, strength and method, the images as they are ("none", 0) first:
            ``corruption, strength, method, title, seeds, images``, and the ``_mean`` and ``_std`` over the seeds (of a
            sample; NaN with one) of ``auroc``, ``auroc_unseen`` (of generators not in training, against all real
            images), both also with ``_margin``, of each the ``_change`` from the same run's AUROC of the images as they
            are, and ``cam_entropy``, the mean over the images in nats. An AUROC of fewer than 30 images of either is
            NaN, as is what one of the runs lacks. Empty if no run's scores can be used.
        measure: the AUROC that is shown: ``auroc_unseen``, or ``auroc`` if every generator was trained on.
        problems: sentences on runs that are left out, and on what the images do not allow.
    """

    numbers: pd.DataFrame
    measure: str
    problems: list[str]

    @property
    def has_auroc(self) -> bool:
        return len(self.numbers) > 0 and bool(self.numbers[f"{self.measure}_mean"].notna().any())


def robustness_table(study: Study) -> RobustnessTable | None:
    """What the runs' ``scores/test+corruptions.parquet`` say; None if no run has this file.

    A run that lacks it or was trained again since, or whose file is damaged or of other images or corruptions than most
    runs' files, is left out, and named in :attr:`RobustnessTable.problems`.
    """
    if not any((run.folder / "scores" / FILE).exists() for run in study.runs):
        return None
    read = partial(_figures, train_generators=study.train_generators, relatives=study.relatives)
    what, options = "images or corruptions", "corruptions=all"
    found, problems = comparable_figures(study, NAME, read, IMAGE_COLUMNS, what, options=options)
    if not found:
        return RobustnessTable(pd.DataFrame(columns=[*KEYS, "images"]), "auroc", problems)
    numbers = over_seeds(pd.concat(found.values()), [*KEYS, "images"], FIGURES)
    numbers.insert(len(KEYS), "seeds", numbers.pop("seeds"))
    # In the order of corruptions and strengths, not of methods: a row is read beside its neighbours.
    first = next(iter(found.values()))
    numbers = first[["corruption", "strength"]].merge(numbers, on=["corruption", "strength"], how="left")
    clean = first.iloc[0]
    measure = "auroc_unseen" if clean["unseen"] else "auroc"
    synthetic, real = int(clean["unseen"] or clean["synthetic"]), int(clean["real"])
    if 0 < min(synthetic, real) < MIN_IMAGES:
        of = " by unseen generators" if clean["unseen"] else ""
        problems.append(
            f"“–”: an AUROC of {synthetic:,} synthetic images{of} and {real:,} real ones would say little, with fewer "
            f"than {MIN_IMAGES} of either; {typed('evaluate')} with a larger corruption_images=, or null, scores "
            "more, if there are any."
        )
    elif not min(synthetic, real):
        problems.append("“–”: the images are all real or all synthetic.")
    return RobustnessTable(numbers, measure, problems + not_finite(found))


def shown_robustness(table: RobustnessTable) -> ShownTable:
    """:attr:`RobustnessTable.numbers` as readers see them: one row per corruption, strength and score, one column
    per method."""
    numbers = table.numbers
    of_unseen = ", synthetic ones of generators that are not in training against all real ones"
    sentences = [
        f"AUROC of the same {numbers['images'].max():,} test images, as they are and corrupted"
        f"{of_unseen if table.measure == 'auroc_unseen' else ''}; ± is the standard deviation over the seeds (n − 1). "
        "Of a sample, the AUROC of the images as they are is not quite that of all test images.",
        "Each corruption is applied to the image as the network gets it, decoded and resized, real and synthetic "
        "alike: pixels are those of the network’s input. The detectors were trained without augmentation.",
    ]
    columns = [
        Column(
            "Corruption",
            lambda row: WORDS[row["corruption"]][0],
            notes=[*(sentences if len(numbers) else []), *table.problems],
        ),
        Column("Strength", _strength),
        RANKED_BY,
        *columns_per_method(dict(zip(numbers["method"], numbers["title"], strict=True))),
    ]
    rows = per_method_and_score(numbers, ["corruption", "strength"], table.measure)
    return shown_table("robustness", "AUROC of corrupted images", numbers, columns, rows)


@rc_context(STYLE)
def robustness_figure(robustness: RobustnessTable, score: str = "logit") -> Figure:
    """AUROC by strength, one panel per corruption, one line per method: the mean over the seeds in a band of one
    standard deviation. Each line begins with the images as they are, which stand left of the mildest strength.

    Args:
        robustness: with an AUROC of at least one corruption.
        score: what the images are ranked by.
    """
    table, measure = robustness.numbers, f"{robustness.measure}{SUFFIXES[score]}"
    corruptions = [name for name in table["corruption"].unique() if name != NONE]
    clean = table[table["corruption"] == NONE].set_index("method")
    width = min(PANEL_COLUMNS, len(corruptions))
    height = math.ceil(len(corruptions) / width)
    figure = Figure(figsize=(1.6 + 2.4 * width, 0.6 + 2.3 * height), layout="constrained")
    panels = figure.subplots(height, width, sharey=True, squeeze=False).ravel()
    for axes in panels[len(corruptions) :]:
        axes.set_visible(False)
    for axes, corruption in zip(panels, corruptions, strict=False):
        own = table[table["corruption"] == corruption]
        strengths = list(own["strength"].unique())
        for method, style in method_styles(list(clean.index)).items():
            line = own[own["method"] == method].set_index("strength").loc[strengths]
            mean, std = (
                np.array([clean.at[method, name], *line[name]]) for name in (f"{measure}_mean", f"{measure}_std")
            )
            places = np.arange(len(mean))
            axes.plot(places, mean, color=style.colour, marker=style.marker, label=plain(clean.at[method, "title"]))
            # One seed has no band.
            low, high = np.clip(mean - std, 0, 1), np.clip(mean + std, 0, 1)
            axes.fill_between(places, low, high, color=style.colour, alpha=0.12, linewidth=0)
        heading, axis = WORDS[corruption]
        axes.axhline(0.5, color="#555555", linestyle="--", linewidth=1)
        axes.set_title(heading, fontsize=STYLE["font.size"])
        axes.set_xlabel(axis)
        axes.set_xticks(range(len(strengths) + 1), ["as is", *(f"{strength:g}" for strength in strengths)])
    figure.supylabel(f"Test {MEASURES[robustness.measure]}, by {RANKINGS[score]}", fontsize=STYLE["font.size"])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def _strength(row: Mapping[str, Any]) -> str:
    """``quality 90``, ``0.5 px``."""
    name, _, unit = WORDS[row["corruption"]][1].partition(" / ")
    if not name:
        return ""
    return f"{row['strength']:g} {unit}" if unit else f"{name.lower()} {row['strength']:g}"


def _figures(path: Path, train_generators: list[str], relatives: list[str]) -> pd.DataFrame:
    """One row per variant in a run's file: its figures, and a fingerprint of its images.

    Raises:
        ValueError: no image is as it is.
    """
    scores = pd.read_parquet(path, columns=COLUMNS)
    if not (scores["corruption"] == NONE).any():
        raise ValueError("it holds no image as it is")
    rows = []
    for (corruption, strength), own in scores.groupby(["corruption", "strength"], observed=True, sort=False):
        own = own.astype({"label": "str", "generator": "str"})
        scores = RankedScores(own, train_generators, relatives)
        finite = np.isfinite(own[["logit_real", "logit_synthetic"]]).all(axis=1)
        real = ~scores.synthetic
        # A sum of hashes: the same for the same images in any order.
        images = pd.util.hash_pandas_object(own["path"].astype("str"), index=False).to_numpy()
        rows.append(
            {
                "corruption": corruption,
                "strength": strength,
                "images": len(own),
                "fingerprint": images.sum(),
                "synthetic": scores.synthetic.sum(),
                "unseen": scores.unseen.sum(),
                "real": real.sum(),
                "not_finite": (~finite).sum(),
                **scores.aurocs(scores.synthetic, real),
                **scores.aurocs(scores.unseen, real, "auroc_unseen"),
                "cam_entropy": own["cam_entropy"].mean(skipna=False),
            }
        )
    figures = pd.DataFrame(rows)
    clean = figures[figures["corruption"] == NONE].iloc[0]
    for name in AREAS:
        figures[f"{name}_change"] = figures[name] - clean[name]
    place = {name: at for at, name in enumerate([NONE, *STRENGTHS])}
    return figures.sort_values("corruption", key=lambda column: column.map(place), kind="stable").reset_index(drop=True)
