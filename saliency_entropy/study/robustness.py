"""How well the methods of a study stand corruptions of the images: AUROC and CAM entropy at four strengths of each."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes

from saliency_entropy.errors import in_one_line
from saliency_entropy.metrics import unseen_images
from saliency_entropy.page import wording
from saliency_entropy.scores.corruptions import NONE, STRENGTHS
from saliency_entropy.scores.tables import SUFFIX
from saliency_entropy.study.figures import STYLE, Figure, method_styles, plain
from saliency_entropy.study.run_figures import MIN_IMAGES, auroc_of, is_of_this_checkpoint
from saliency_entropy.study.runs import Run, Study
from saliency_entropy.study.tables import over_seeds, spread_column

FILE = f"test{SUFFIX}.parquet"
COLUMNS = ["path", "label", "generator", "corruption", "strength", "logit_synthetic", "cam_entropy"]
IMAGE_COLUMNS = ["corruption", "strength", "images", "fingerprint"]
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


@dataclass(frozen=True, eq=False)
class RobustnessTable:
    """What the runs reach on corrupted images.

    Attributes:
        numbers: a row a corruption, strength and method, the images as they are ("none", 0) first:
            ``corruption, strength, method, title, seeds, images``, and the ``_mean`` and ``_std`` over the seeds (of a
            sample; NaN with one) of ``auroc``, ``auroc_unseen`` (of generators not in training, against all real
            images), ``auroc_change`` and ``auroc_unseen_change`` (from the same run's AUROC of the images as they are),
            and ``cam_entropy``, the mean over the images in nats. An AUROC of fewer than 30 synthetic or real images is
            NaN, as is what one of the runs lacks. Empty if no run's scores can be used.
        measure: which AUROC is shown: ``auroc_unseen``, or ``auroc`` if every generator was trained on.
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
    found: dict[Run, pd.DataFrame] = {}
    missing, earlier, damaged = [], [], []
    for run in study.runs:
        try:
            if not _file(run).exists():
                missing.append(run.name)
            elif not is_of_this_checkpoint(run, _file(run)):
                earlier.append(run.name)
            else:
                found[run] = _figures(_scores(run), study.train_generators)
        # A file of something else makes the readers raise almost anything.
        except Exception as error:
            # Without the study's folder, which the page need not know.
            damaged.append(f"{run.name} ({in_one_line(error).replace(f'{study.folder}/', '')})")
    if len(missing) == len(study.runs):
        return None
    about = {run: _about(of_run) for run, of_run in found.items()}
    usual = Counter(about.values()).most_common(1)[0][0] if about else ""
    foreign = [run.name for run in found if about[run] != usual]
    alike = {run: of_run for run, of_run in found.items() if about[run] == usual}
    problems = _left_out(missing, earlier, damaged, foreign, next(iter(alike)).name if alike else "")
    if not alike:
        return RobustnessTable(pd.DataFrame(), "auroc", problems)
    rows = pd.concat(
        [of_run.assign(method=run.method, title=study.titles[run.method]) for run, of_run in alike.items()],
        ignore_index=True,
    )
    keys = ["corruption", "strength", "method", "title"]
    numbers = over_seeds(rows, [*keys, "images"], FIGURES)
    numbers = numbers[[*keys, "seeds", "images", *(name for name in numbers if name not in (*keys, "seeds", "images"))]]
    # By corruption and strength, not by method: a row is read beside its neighbours.
    first = next(iter(alike.values()))
    numbers = first[["corruption", "strength"]].merge(numbers, on=["corruption", "strength"], how="left")
    clean = first.iloc[0]
    measure = "auroc_unseen" if clean["unseen"] else "auroc"
    synthetic, real = int(clean["unseen"] or clean["synthetic"]), int(clean["real"])
    if 0 < min(synthetic, real) < MIN_IMAGES:
        of = " by unseen generators" if clean["unseen"] else ""
        problems.append(
            f"“–”: an AUROC of {synthetic:,} synthetic images{of} and {real:,} real ones would say little, with fewer "
            f"than {MIN_IMAGES} of either; experiments/evaluate.py with a larger corruption_images=, or null, scores "
            "more, if there are any."
        )
    elif not min(synthetic, real):
        problems.append("“–”: the images are all real or all synthetic.")
    broken = [run.name for run, of_run in alike.items() if of_run["not_finite"].any()]
    if broken:
        problems.append(f"“–” where scores are not finite, those of {wording.some(broken)}.")
    return RobustnessTable(numbers, measure, problems)


def shown_robustness(table: RobustnessTable) -> pd.DataFrame:
    """:attr:`RobustnessTable.numbers` as a reader sees them: a row a corruption and strength, a column a method; text
    only. Empty without any."""
    rows = []
    by_variant = table.numbers.groupby(["corruption", "strength"], sort=False) if len(table.numbers) else ()
    for (corruption, strength), own in by_variant:
        name, axis = WORDS.get(corruption, ("As they are", ""))
        cells = dict(zip(own["title"], spread_column(own, table.measure, 3), strict=True))
        rows.append({"Corruption": name, "Strength": _strength(axis, strength)} | cells)
    return pd.DataFrame(rows)


def robustness_notes(table: RobustnessTable) -> list[str]:
    """What a reader of the table must know."""
    if table.numbers.empty:
        return table.problems
    unseen = table.measure == "auroc_unseen"
    images = int(table.numbers["images"].max())
    return [
        f"AUROC of the same {images:,} test images, as they are and corrupted"
        + (", synthetic ones of generators that are not in training against all real ones" if unseen else "")
        + "; ± is the standard deviation over the seeds (n − 1). Of a sample, the AUROC of the images as they are is "
        "not quite that of all test images.",
        "Each corruption is applied to the image as the network gets it, decoded and resized, real and synthetic "
        "alike: pixels are those of the network’s input. The detectors were trained without augmentation.",
        *table.problems,
    ]


def images_shown(table: RobustnessTable) -> str:
    """Which test images the figures are of."""
    return "images, synthetic ones of unseen generators," if table.measure == "auroc_unseen" else "images"


@rc_context(STYLE)
def robustness_figure(robustness: RobustnessTable) -> Figure:
    """AUROC by strength, a panel a corruption, a line a method: the mean over the seeds in a band of one standard
    deviation. Each line begins with the images as they are, which stand left of the mildest strength.

    Args:
        robustness: with an AUROC of at least one corruption.
    """
    table, measure = robustness.numbers, robustness.measure
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


def _strength(axis: str, strength: float) -> str:
    """``quality 90``, ``0.5 px``."""
    if not axis:
        return ""
    name, _, unit = axis.partition(" / ")
    return f"{strength:g} {unit}" if unit else f"{name.lower()} {strength:g}"


def _file(run: Run) -> Path:
    return run.folder / "scores" / FILE


def _scores(run: Run) -> pd.DataFrame:
    """:data:`COLUMNS` of a run's file, names as categories. Raises ValueError if no image is as it is."""
    table = pd.read_parquet(_file(run), columns=COLUMNS)
    if table.empty or not (table["corruption"] == NONE).any():
        raise ValueError("it holds no image as it is")
    return table


def _left_out(missing: list[str], earlier: list[str], damaged: list[str], foreign: list[str], usual: str) -> list[str]:
    """A sentence for each reason for which runs are not in the table; ``usual`` is one that is."""
    again = "experiments/evaluate.py with corruptions=all"
    reasons = (
        (missing, "they have no scores of corrupted images", f"{again} scores them"),
        (
            earlier,
            "they were trained again after their corrupted images were scored",
            f"{again} and overwrite=true scores them",
        ),
        (damaged, f"their scores/{FILE} cannot be used", f"{again} and overwrite=true makes them again"),
        (
            foreign,
            f"they were scored on other images or corruptions than {usual}",
            f"{again} and overwrite=true makes them alike",
        ),
    )
    return [f"Left out, since {why}: {wording.some(runs)}; {remedy}." for runs, why, remedy in reasons if runs]


def _about(figures: pd.DataFrame) -> str:
    """The same for runs that were scored on the same images and corruptions."""
    return figures[IMAGE_COLUMNS].to_csv(index=False)


def _figures(scores: pd.DataFrame, train_generators: list[str]) -> pd.DataFrame:
    """A row a variant: its figures, and what tells whether another run's are of the same images."""
    rows = []
    for (corruption, strength), own in scores.groupby(["corruption", "strength"], observed=True, sort=False):
        own = own.astype({"label": "str", "generator": "str"})
        synthetic = (own["label"] == "synthetic").to_numpy()
        logits = own["logit_synthetic"].to_numpy()
        unseen = unseen_images(own, train_generators)
        real = ~synthetic
        # A sum of hashes: the same for the same images in any order.
        images = pd.util.hash_pandas_object(own["path"].astype("str"), index=False).to_numpy()
        rows.append(
            {
                "corruption": corruption,
                "strength": strength,
                "images": len(own),
                "fingerprint": images.sum(),
                "synthetic": synthetic.sum(),
                "unseen": unseen.sum(),
                "real": real.sum(),
                "not_finite": (~np.isfinite(logits)).sum(),
                "auroc": auroc_of(logits, synthetic, real),
                "auroc_unseen": auroc_of(logits, unseen, real),
                "cam_entropy": own["cam_entropy"].mean(skipna=False),
            }
        )
    figures = pd.DataFrame(rows)
    clean = figures[figures["corruption"] == NONE].iloc[0]
    for name in ("auroc", "auroc_unseen"):
        figures[f"{name}_change"] = figures[name] - clean[name]
    place = {name: at for at, name in enumerate([NONE, *STRENGTHS])}
    return figures.sort_values("corruption", key=lambda column: column.map(place), kind="stable").reset_index(drop=True)
