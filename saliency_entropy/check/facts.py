"""What is in a data set: counts, human maps, and the kinds of its files, as tables of numbers."""

import numpy as np
import pandas as pd

from saliency_entropy.check.scan import ImageScan, MapScan
from saliency_entropy.data.table import LABELS, SPLITS

PROPERTIES = {"format": "format", "size": "size / pixels", "mode": "mode", "quantization": "JPEG quantisation table"}


def image_counts(table: pd.DataFrame) -> pd.DataFrame:
    """The number of images of each kind.

    Returns:
        One row for each ``split``, ``label`` and ``origin`` (the generator of synthetic, the source of real images; ""
        where the table names none), with the number of ``images`` and of images ``with_map``. Splits and labels have
        their usual order, origins are sorted.
    """
    origin = table["source"].where(table["label"] == "real", table["generator"])
    kinds = pd.DataFrame(
        {
            "split": pd.Categorical(table["split"], SPLITS),
            "label": pd.Categorical(table["label"], LABELS),
            "origin": origin,
            "has_map": table["human_map"] != "",
        }
    )
    groups = kinds.groupby(["split", "label", "origin"], observed=True)["has_map"]
    counts = groups.agg(images="size", with_map="sum").reset_index()
    return counts.astype({"split": "str", "label": "str", "with_map": int})


def map_statistics(table: pd.DataFrame, scan: MapScan) -> pd.DataFrame:
    """Figures of the human maps that can be used, for all images and for each label.

    Returns:
        One row for each ``label`` ("" for both) that has maps: ``maps`` (the number of images with one),
        ``entropy_mean`` and ``entropy_std`` (standard deviation of a sample; NaN for one image) in nats on the grid,
        ``focus_area`` (exp of the mean) in cells, ``covered`` (mean share of a map that is marked), and
        ``several_annotators`` (the number of images with several maps).
    """
    rows = []
    for label, usable in _usable_maps(table, scan).items():
        own = scan.facts[usable]
        mean = own["entropy"].mean()
        several = int((own["annotators"] > 1).sum())
        rows.append((label, len(own), mean, own["entropy"].std(), np.exp(mean), own["covered"].mean(), several))
    columns = ["label", "maps", "entropy_mean", "entropy_std", "focus_area", "covered", "several_annotators"]
    floats = dict.fromkeys(["entropy_mean", "entropy_std", "focus_area", "covered"], float)
    return pd.DataFrame(rows, columns=columns).astype(floats)


def average_maps(table: pd.DataFrame, scan: MapScan) -> dict[str, np.ndarray]:
    """The mean of the human maps: label ("" for both) -> ``(h, w)`` in [0, 1]; labels without maps are left out."""
    return {label: scan.maps[usable].mean(axis=0) for label, usable in _usable_maps(table, scan).items()}


def _usable_maps(table: pd.DataFrame, scan: MapScan) -> dict[str, np.ndarray]:
    """Label ("" for both) -> which maps can be used, as a bool for each; labels without usable maps are left out."""
    usable = (scan.facts["problem"] == "").to_numpy()
    labels = table["label"].loc[scan.facts.index].to_numpy()
    chosen = {"": usable} | {label: usable & (labels == label) for label in LABELS}
    return {label: rows for label, rows in chosen.items() if rows.any()}


def file_kinds(table: pd.DataFrame, scan: ImageScan) -> pd.DataFrame:
    """How the images that can be used are stored, by label: a detector may learn a trait of one label's files instead
    of the picture.

    Returns:
        One row for each ``property`` (a key of :data:`PROPERTIES`) and ``value`` (``width x height`` as stored for a
        size, 12 digits of the hash for a quantisation table), with the number of ``real`` and of ``synthetic`` images;
        the most frequent value of a property first.
    """
    facts = scan.facts[scan.facts["problem"] == ""]
    labels = table["label"].loc[facts.index]
    values = facts.assign(size=facts["width"].astype(str) + " x " + facts["height"].astype(str))
    parts = []
    for name in PROPERTIES:
        column = values[name][values[name] != ""]
        counts = pd.crosstab(column, labels.loc[column.index]).reindex(columns=LABELS, fill_value=0)
        counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
        parts.append(counts.rename_axis("value").reset_index().assign(property=name))
    return pd.concat(parts, ignore_index=True)[["property", "value", *LABELS]]
