"""AUROC on further sets of images, which ``experiments/evaluate.py`` scored for every run after its training."""

from pathlib import Path

import numpy as np
import pandas as pd

from saliency_entropy.page.table import Column, ShownTable, shown_table
from saliency_entropy.run.console import typed
from saliency_entropy.scores.score_table import SUFFIX
from saliency_entropy.study import tables
from saliency_entropy.study.run_figures import AUROCS, MIN_IMAGES, RankedScores
from saliency_entropy.study.runs import Study
from saliency_entropy.study.score_files import comparable_figures, not_finite

OWN = ("test", "val")  # what every run scores itself
COLUMNS = ["path", "label", "generator", "logit_real", "logit_synthetic"]
KEYS = ["set", "generator", "synthetic", "real", "method", "title"]


def other_sets_table(study: Study) -> ShownTable | None:
    """AUROC on the sets of the runs' ``scores/<set>.parquet``: one row per set, generator and score, one column per
    method.

    The numbers have one row per set, generator ("" for all together) and method: ``set, generator, synthetic, real``
    (numbers of images), ``method, title, seeds, auroc_mean, auroc_std`` (all real images of the set against the
    synthetic ones; NaN with fewer than 30 of either), and with ``_margin`` those by the margin. They are empty if no
    file can be used.

    Returns:
        None if the runs have no further sets.
    """
    files = {path.stem for run in study.runs for path in (run.folder / "scores").glob("[!.]*.parquet")}
    names = sorted(name for name in files if name not in OWN and not name.endswith(SUFFIX))
    if not names:
        return None
    found, problems = [], []
    for name in names:
        figures, left_out = comparable_figures(study, name, _figures, ["fingerprint"], of_set=f" of set {name}")
        found += [of_run.assign(set=name) for of_run in figures.values()]
        problems += [*left_out, *not_finite(figures, f" in set {name}")]
    numbers = tables.over_seeds(pd.concat(found), KEYS, AUROCS.values()) if found else pd.DataFrame(columns=KEYS)
    rows = tables.per_method_and_score(numbers, KEYS[:4], "auroc")
    sentences = [
        f"AUROC on the sets of images that {typed('evaluate')} scored beside the test images: synthetic + real "
        "ones; ± is the standard deviation over the seeds (n − 1). These images are in no other table or "
        "figure."
    ]
    if rows.filter(regex="_mean$").isna().any(axis=None):
        sentences.append(
            f"“–”: fewer than {MIN_IMAGES} synthetic or real images, scores that are not finite, or no run of the "
            "method."
        )
    columns = [
        Column("Set", "set", notes=[*sentences, *problems]),
        Column("Generator", lambda row: row["generator"] or "(all)"),
        Column("Images", tables.synthetic_and_real),
        tables.RANKED_BY,
        *tables.columns_per_method(dict(zip(numbers["method"], numbers["title"], strict=True))),
    ]
    return shown_table("other_sets", "AUROC on other images", numbers, columns, rows)


def _figures(path: Path) -> pd.DataFrame:
    """One row for all synthetic images, and one for each generator if there are several."""
    scores = pd.read_parquet(path, columns=COLUMNS).fillna({"generator": ""})
    images = scores[["path", "label", "generator"]].astype("str")
    ranked = RankedScores(scores, [])
    named = {name: mask for name, mask in ranked.generators.items() if name}
    masks = {"": ranked.synthetic} | (named if len(named) > 1 else {})
    return pd.DataFrame(
        {
            "generator": generator,
            "synthetic": int(mask.sum()),
            "real": int((~ranked.synthetic).sum()),
            **ranked.aurocs(mask, ~ranked.synthetic),
            # A sum of hashes: the same for the same images in any order.
            "fingerprint": pd.util.hash_pandas_object(images, index=False).to_numpy().sum(),
            "not_finite": not np.isfinite(scores[["logit_real", "logit_synthetic"]]).all(axis=None),
        }
        for generator, mask in masks.items()
    )
