"""The AUROC of the runs for each choice of synthetic test images, which the page of a report draws."""

from typing import Any, TypedDict

import numpy as np
import pandas as pd
from matplotlib.cbook import boxplot_stats

from saliency_entropy.run.ranking import RANKINGS, SUFFIXES
from saliency_entropy.study.figures import MIN_BOX, method_styles
from saliency_entropy.study.run_figures import MIN_IMAGES
from saliency_entropy.study.tables import GENERATOR_COLUMNS, Measures

Figure = tuple[str, int, float]  # method, seed, AUROC
SEEN = {"yes": ", in training", "no": ", unseen", "relative": ", relative of one in training", "not known": ""}


class Choice(TypedDict):
    """A set of synthetic images and the real ones that they are compared with.

    ``name``; ``images``, a sentence on their numbers; and a list each for the methods, in order: ``auroc``, ``(seed,
    AUROC)`` of the runs that have one, and ``boxes``, what a box plot draws of these (``q1, med, q3, whislo, whishi``),
    their ``mean``, ``std`` (None of one run), ``low`` and ``high``; None without a run.
    """

    name: str
    images: str
    auroc: list[list[tuple[int, float]]]
    boxes: list[dict[str, float | None] | None]


class GeneratorChoice(TypedDict):
    """What a page needs to draw: ``methods`` with title and colour, ``choices``, and ``min_box``, the number of runs
    from which on a method is drawn as a box."""

    methods: list[dict[str, str]]
    choices: list[Choice]
    min_box: int


def generator_choice(measures: Measures, titles: dict[str, str]) -> GeneratorChoice | None:
    """All generators, the unseen ones, and each on its own, by both scores; None where the test images have no
    AUROC."""
    runs, generators = measures.runs, measures.generators
    if runs["auroc"].isna().all() or generators.empty:
        return None
    real = int(runs["test_real"].iloc[0])
    choices: list[Choice] = []
    for score, suffix in SUFFIXES.items():
        by, figures = f", by {RANKINGS[score]}", _figures(runs, f"auroc{suffix}")
        choices.append(_choice(f"all generators{by}", int(runs["test_synthetic"].iloc[0]), real, figures, titles))
        if measures.measure == "auroc_unseen":
            unseen = _figures(runs, f"auroc_unseen{suffix}")
            choices.append(_choice(f"unseen generators{by}", unseen_synthetic(measures), real, unseen, titles))
        # Not by pandas' groupby, which takes milliseconds a group.
        by_choice: dict[tuple[Any, ...], list[Figure]] = {}
        keys = zip(*(generators[column].tolist() for column in GENERATOR_COLUMNS), strict=True)
        for key, figure in zip(keys, _figures(generators, f"auroc{suffix}"), strict=True):
            by_choice.setdefault(key, []).append(figure)
        for (name, seen, against, synthetic, real_images), own in by_choice.items():
            called = (name or "(generator not named)") + SEEN[seen]
            if against:
                called += f", against {against.replace('+', ' + ')}"
            choices.append(_choice(f"{called}{by}", synthetic, real_images, own, titles))
    styles = method_styles(list(titles))
    return {
        "methods": [{"title": title, "colour": styles[method].colour} for method, title in titles.items()],
        "choices": choices,
        "min_box": MIN_BOX,
    }


def unseen_synthetic(measures: Measures) -> int:
    """The number of synthetic test images by generators that are not in training."""
    rows = measures.generators
    rows = rows[(rows["seen"] == "no") & (rows["against"] == "")]
    # Every run has the same generators.
    return int(rows.drop_duplicates("generator")["synthetic"].sum())


def _figures(rows: pd.DataFrame, column: str) -> list[Figure]:
    return list(zip(rows["method"].tolist(), rows["seed"].tolist(), rows[column].tolist(), strict=True))


def _choice(name: str, synthetic: int, real: int, figures: list[Figure], titles: dict[str, str]) -> Choice:
    images = f"{synthetic:,} synthetic and {real:,} real test images."
    auroc = [
        [(seed, round(value, 4)) for of, seed, value in figures if of == method and not np.isnan(value)]
        for method in titles
    ]
    boxes = [_box(np.array([value for _, value in own])) if own else None for own in auroc]
    if not any(auroc):
        images += f" No AUROC with fewer than {MIN_IMAGES} of either."
    elif min(synthetic, real) < MIN_IMAGES:
        images += f" With fewer than {MIN_IMAGES} of either it says more about these images than about generators."
    return {"name": name, "images": images, "auroc": auroc, "boxes": boxes}


def _box(values: np.ndarray) -> dict[str, float | None]:
    box = boxplot_stats(values)[0]
    figures: dict[str, float | None] = {
        name: float(box[name]) for name in ("q1", "med", "q3", "whislo", "whishi", "mean")
    }
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return figures | {"std": std, "low": float(values.min()), "high": float(values.max())}
