"""How well traits that have nothing to do with how an image was made tell real and synthetic images apart.

A detector learns whatever tells the classes apart. Where the real images are JPEG and the synthetic ones PNG, or where
one class was scaled or compressed differently, it may learn the traces of that and nothing else, and its scores say
nothing about other images. No trait measured here should, alone, tell the classes apart much better than chance.
"""

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from saliency_entropy.check.scan import ImageScan
from saliency_entropy.data.table import SPLITS

WARN = 0.6  # an AUROC above this is worth a warning
FOLDS = 5
FEWEST = 20  # images of a class: four a fold
FEWEST_OF_GENERATOR = 30
# Shortcut -> the columns of the scan's facts that it consists of.
CATEGORIES = {"file format": ["format"], "JPEG quantisation table": ["quantization"]}
NUMBERS = {"file size": ["bytes"], "image size": ["width", "height"], "mean colour": ["red", "green", "blue"]}
THUMBNAIL = "thumbnail"
SHORTCUTS = (*CATEGORIES, *NUMBERS, THUMBNAIL)


def audit_shortcuts(table: pd.DataFrame, scan: ImageScan, seed: int = 0, most_images: int = 20_000) -> pd.DataFrame:
    """How well each shortcut alone tells the synthetic images of a split from the real ones.

    Each figure is the mean AUROC of a five-fold cross-validation within the split: a model that was fitted to four
    fifths of the images scores the others. The model is gradient-boosted trees for numbers, and logistic regression for
    categories (one-hot) and for the standardised pixels of the 12 x 12 thumbnails. Of files with the same bytes and
    label only the first counts, so that no fold holds a copy of an image that the model was fitted to.

    Args:
        table: the manifest's table.
        scan: the scan of all its images; those with a problem are left out.
        seed: seed of the draws and the folds; the same seed gives the same figures.
        most_images: the largest number of images that a figure is measured on; from more images, so many are drawn at
            random, half of each class if the classes are large enough.

    Returns:
        One row for each split that has images, generator and shortcut:

        - ``split``;
        - ``generator``: "" for all synthetic images; and in ``test`` each generator with 30 images or more, against
          all real images there;
        - ``shortcut``: one of :data:`SHORTCUTS`;
        - ``auroc``: about 0.5 if there is no such shortcut; NaN where a class has fewer than 20 images;
        - ``images``: the number of images that were used, or would have been;
        - ``warn``: whether ``auroc`` is above 0.6;
        - ``note``: why there is no figure, or from how many images the used ones were drawn; "" otherwise.
    """
    facts = scan.facts.loc[table.index]
    at = scan.facts.index.get_indexer(table.index)
    counts = (facts["problem"] == "") & ~facts.assign(label=table["label"])[["content", "label"]].duplicated()
    synthetic = (table["label"] == "synthetic").to_numpy()
    rows = []
    for split, generator, chosen in _comparisons(table, counts):
        places = np.flatnonzero(chosen)
        note = ""
        fewest = min(synthetic[places].sum(), (~synthetic[places]).sum())
        if fewest < FEWEST:
            note = f"not measured: one class has {fewest} images, and {FEWEST} are needed"
        elif len(places) > most_images:
            note = f"{most_images} images drawn at random of {len(places)}"
            places = _draw(places, synthetic, seed, most_images)
        for shortcut in SHORTCUTS:
            auroc = np.nan
            if fewest >= FEWEST:
                columns = CATEGORIES.get(shortcut) or NUMBERS.get(shortcut)
                known = facts[columns].iloc[places] if columns else scan.thumbnails[at[places]].reshape(len(places), -1)
                auroc = _auroc(_model(shortcut, seed), known, synthetic[places], seed)
            rows.append((split, generator, shortcut, auroc, len(places), auroc > WARN, note))
    found = pd.DataFrame(rows, columns=["split", "generator", "shortcut", "auroc", "images", "warn", "note"])
    return found.astype({"warn": bool})  # where there is no image, pandas does not know


def _comparisons(table: pd.DataFrame, counts: pd.Series) -> list[tuple[str, str, pd.Series]]:
    """The (split, generator, images that are compared) of every figure; the images as a bool for each row."""
    found = []
    for split in SPLITS:
        inside = table["split"] == split
        if not inside.any():
            continue
        found.append((split, "", inside & counts))
        if split != "test":
            continue
        of_test = table[inside & counts & (table["label"] == "synthetic") & (table["generator"] != "")]
        sizes = of_test["generator"].value_counts().sort_index()
        for generator in sizes.index[sizes >= FEWEST_OF_GENERATOR]:
            wanted = (table["label"] == "real") | (table["generator"] == generator)
            found.append((split, generator, inside & counts & wanted))
    return found


def _draw(places: np.ndarray, synthetic: np.ndarray, seed: int, count: int) -> np.ndarray:
    """``count`` of the places, drawn at random, half of each class as far as the smaller class reaches."""
    random = np.random.default_rng(seed)
    classes = [places[~synthetic[places]], places[synthetic[places]]]
    smaller = min(count // 2, *map(len, classes))
    sizes = [smaller if len(own) == min(map(len, classes)) else count - smaller for own in classes]
    return np.sort(np.concatenate([random.choice(own, size, False) for own, size in zip(classes, sizes, strict=True)]))


def _model(shortcut: str, seed: int) -> ClassifierMixin:
    if shortcut in CATEGORIES:
        return make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    if shortcut in NUMBERS:
        return HistGradientBoostingClassifier(
            max_iter=30, max_leaf_nodes=8, min_samples_leaf=10, early_stopping=False, random_state=seed
        )
    # Strong regularisation: the 432 pixels resemble their neighbours, and there are often fewer images than pixels.
    return make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))


def _auroc(model: ClassifierMixin, known: pd.DataFrame | np.ndarray, synthetic: np.ndarray, seed: int) -> float:
    # Averaged over the folds, not of all scores at once: the score of a constant model differs from fold to fold.
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    # Threads that wait for each other cost more than they save on so little, the more so on a machine that is busy.
    with threadpool_limits(1, user_api="openmp"):
        return float(cross_val_score(model, known, synthetic, cv=folds, scoring="roc_auc").mean())
