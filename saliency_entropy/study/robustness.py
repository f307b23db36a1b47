"""How well the methods of a study stand corruptions of the images: AUROC and CAM entropy at four strengths of each."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saliency_entropy.corruptions import NONE, STRENGTHS
from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.metrics import auroc, unseen_images
from saliency_entropy.score_tables import SUFFIX
from saliency_entropy.scoring_pass import CHECKPOINT
from saliency_entropy.study import wording
from saliency_entropy.study.figures import STYLE, method_styles
from saliency_entropy.study.runs import Run, Study
from saliency_entropy.study.tables import printable, spread_column

FILE = f"test{SUFFIX}.parquet"
COLUMNS = ["path", "label", "generator", "corruption", "strength", "logit_synthetic", "cam_entropy"]
FIGURES = ("auroc", "auroc_unseen", "auroc_change", "auroc_unseen_change", "cam_entropy")
# Corruption -> its heading, and the axis of its strength.
WORDS = {
    "jpeg": ("JPEG compression", "Quality"),
    "blur": ("Gaussian blur", "Standard deviation / px"),
    "resize": ("Smaller copy", "Scale"),
    "noise": ("Gaussian noise", "Standard deviation / grey levels"),
    "contrast": ("Less contrast", "Contrast"),
}
PANEL_COLUMNS = 3


def robustness_table(study: Study) -> pd.DataFrame | None:
    """A row a corruption, strength and method, the images as they are ("none", 0) first.

    Returns:
        ``corruption, strength, method, title, seeds, images``, and the ``_mean`` and ``_std`` over the seeds (of a
        sample; NaN with one) of ``auroc``, ``auroc_unseen`` (of generators not in training, against all real images),
        ``auroc_change`` and ``auroc_unseen_change`` (from the same run's AUROC of the images as they are), and
        ``cam_entropy``, the mean over the images in nats. NaN if one of the runs lacks the figure. None if no run has
        ``scores/test+corruptions.parquet``; a run that lacks it, or was trained again since, is left out, which
        :func:`robustness_notes` says.

    Raises:
        UserError: a file is damaged; or runs were scored on different images or corruptions.
    """
    rows: list[dict[str, object]] = []
    reference: tuple[Run, pd.DataFrame] | None = None
    for run in study.runs:
        scores = _scores(run)
        if scores is None:
            continue
        of_run = _figures(scores, study.train_generators)
        about = of_run[["corruption", "strength", "images", "fingerprint"]]
        if reference is None:
            reference = run, about
        elif not about.equals(reference[1]):
            raise UserError(
                f"{FILE} of {reference[0].folder} and of {run.folder} are of different images or corruptions; make all "
                "again: experiments/evaluate.py with corruptions=... and overwrite=true"
            )
        named = {"method": run.method, "title": study.titles[run.method]}
        rows += [row | named for row in of_run.to_dict("records")]
    if reference is None:
        return None
    grouped = pd.DataFrame(rows).groupby(["corruption", "strength", "method", "title", "images"], sort=False)
    table = {"seeds": grouped.size()}
    for name in FIGURES:
        table |= {f"{name}_mean": grouped[name].mean(skipna=False), f"{name}_std": grouped[name].std(skipna=False)}
    columns = ["corruption", "strength", "method", "title", "seeds", "images"]
    found = pd.DataFrame(table).reset_index()
    found = found[columns + [name for name in found if name not in columns]]
    # By corruption and strength, not by method: a row is read beside its neighbours.
    return reference[1][["corruption", "strength"]].merge(found, on=["corruption", "strength"], how="left")


def shown_robustness(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`robustness_table` as a reader sees it: a row a corruption and strength, a column a method; text only."""
    measure = _measure(table)
    rows = []
    for (corruption, strength), own in table.groupby(["corruption", "strength"], sort=False):
        name, axis = WORDS.get(corruption, ("As they are", ""))
        cells = dict(zip(own["title"], spread_column(own, measure, 3), strict=True))
        rows.append({"Corruption": name, "Strength": _strength(axis, strength)} | cells)
    return pd.DataFrame(rows)


def robustness_notes(study: Study, table: pd.DataFrame) -> list[str]:
    """What a reader of the table must know."""
    unseen = _measure(table) == "auroc_unseen"
    images = int(table["images"].max())
    sentences = [
        f"AUROC of the same {images:,} test images, as they are and corrupted"
        + (", synthetic ones of generators that are not in training against all real ones" if unseen else "")
        + "; ± is the standard deviation over the seeds (n − 1). Of a sample, the AUROC of the images as they are is "
        "not quite that of all test images.",
        "Each corruption is applied to the image as the network gets it, decoded and resized, real and synthetic "
        "alike: pixels are those of the network’s input. The detectors were trained without augmentation.",
    ]
    without = [run.name for run in study.runs if not _file(run).exists()]
    if without:
        sentences.append(
            f"Left out, since they have no scores of corrupted images: {wording.listed(without)}; "
            "experiments/evaluate.py with corruptions=all scores them."
        )
    earlier = [run.name for run in study.runs if _file(run).exists() and not _is_of_this_checkpoint(run)]
    if earlier:
        sentences.append(
            "Left out, since they were trained again after their corrupted images were scored: "
            f"{wording.listed(earlier)}; experiments/evaluate.py with corruptions=all and overwrite=true scores them."
        )
    if table["auroc_mean"].isna().any():
        sentences.append("“–”: at least one run has scores that are not finite, or the images are of one class.")
    return sentences


@rc_context(STYLE)
def robustness_figure(table: pd.DataFrame) -> Figure:
    """AUROC by strength, a panel a corruption, a line a method: the mean over the seeds in a band of one standard
    deviation. Each line begins with the images as they are, which stand left of the mildest strength.

    Args:
        table: of :func:`robustness_table`; of unseen generators, if there are any.
    """
    measure = _measure(table)
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
            title = printable(clean.at[method, "title"]).replace("$", r"\$")
            axes.plot(places, mean, color=style.colour, marker=style.marker, label=title)
            # One seed has no band.
            low, high = np.clip(mean - std, 0, 1), np.clip(mean + std, 0, 1)
            axes.fill_between(places, low, high, color=style.colour, alpha=0.12, linewidth=0)
        _label(axes, corruption, strengths)
    what = "unseen generators" if measure == "auroc_unseen" else "all generators"
    figure.supylabel(f"Test AUROC, {what}", fontsize=STYLE["font.size"])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def _label(axes: Axes, corruption: str, strengths: list[float]) -> None:
    heading, axis = WORDS[corruption]
    axes.axhline(0.5, color="#555555", linestyle="--", linewidth=1)
    axes.set_title(heading, fontsize=STYLE["font.size"])
    axes.set_xlabel(axis)
    axes.set_xticks(range(len(strengths) + 1), ["as is", *(f"{strength:g}" for strength in strengths)])


def _measure(table: pd.DataFrame) -> str:
    return "auroc" if table["auroc_unseen_mean"].isna().all() else "auroc_unseen"


def _strength(axis: str, strength: float) -> str:
    """``quality 90``, ``0.5 px``."""
    if not axis:
        return ""
    name, _, unit = axis.partition(" / ")
    return f"{strength:g} {unit}" if unit else f"{name.lower()} {strength:g}"


def _file(run: Run) -> Path:
    return run.folder / "scores" / FILE


def _is_of_this_checkpoint(run: Run) -> bool:
    digest = (pq.read_schema(_file(run)).metadata or {}).get(CHECKPOINT)
    return digest is None or run.has_checkpoint(digest.decode())


def _scores(run: Run) -> pd.DataFrame | None:
    """:data:`COLUMNS` of a run's file, names as categories; None if there is no such file, or it is of an earlier
    checkpoint."""
    path = _file(run)
    if not path.exists():
        return None
    try:
        if not _is_of_this_checkpoint(run):
            return None
        table = pd.read_parquet(path, columns=COLUMNS)
        if table.empty or not (table["corruption"] == NONE).any():
            raise ValueError("it holds no image as it is")
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path} is damaged ({in_one_line(error)}); delete it and give experiments/evaluate.py again"
        ) from None
    return table


def _figures(scores: pd.DataFrame, train_generators: list[str]) -> pd.DataFrame:
    """A row a variant: its figures, and what tells whether another run's are of the same images."""
    rows = []
    for (corruption, strength), own in scores.groupby(["corruption", "strength"], observed=True, sort=False):
        own = own.astype({"label": "str", "generator": "str"})
        synthetic = (own["label"] == "synthetic").to_numpy()
        logits = own["logit_synthetic"].to_numpy()
        unseen = unseen_images(own, train_generators)
        kept = ~synthetic | unseen
        # A sum of hashes: the same for the same images in any order.
        images = pd.util.hash_pandas_object(own["path"].astype("str"), index=False).to_numpy()
        rows.append(
            {
                "corruption": corruption,
                "strength": strength,
                "images": len(own),
                "fingerprint": images.sum(),
                "auroc": auroc(logits, synthetic),
                "auroc_unseen": auroc(logits[kept], synthetic[kept]) if unseen.any() else float("nan"),
                "cam_entropy": own["cam_entropy"].mean(skipna=False),
            }
        )
    figures = pd.DataFrame(rows)
    clean = figures[figures["corruption"] == NONE].iloc[0]
    for name in ("auroc", "auroc_unseen"):
        figures[f"{name}_change"] = figures[name] - clean[name]
    place = {name: at for at, name in enumerate([NONE, *STRENGTHS])}
    return figures.sort_values("corruption", key=lambda column: column.map(place), kind="stable").reset_index(drop=True)
