"""What is in a data set: counts, human maps, and the kinds of its files, as tables of numbers."""

import numpy as np
import pandas as pd

from saliency_entropy.check.scan import ImageScan, MapScan
from saliency_entropy.data.table import LABELS, SPLITS

PROPERTIES = {"format": "format", "size": "size / pixels", "mode": "mode", "quantization": "JPEG quantisation table"}


def image_counts(table: pd.DataFrame) -> pd.DataFrame:
    """How many images there are of each kind.

    Args:
        table: the manifest's.

    Returns:
        A row a ``split, label`` and ``origin`` (the generator of synthetic, the source of real images; "" where it is
        not named), with the number of ``images``, and of those with a human map, ``with_map``. Splits and labels in
        their usual order, origins sorted.
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
    """What the human maps that can be used are like, of all images and of each label.

    Args:
        table: the manifest's.
        scan: of its human maps.

    Returns:
        A row a ``label`` ("" for both), where it has any: ``maps`` (of how many images), ``entropy_mean`` and
        ``entropy_std`` (over the images, of a sample; NaN with one) in nats on the grid, ``focus_area`` (exp of the
        mean) in cells, ``covered`` (mean share of a map that is marked), ``several_annotators`` (of how many images).
    """
    usable = scan.facts[scan.facts["problem"] == ""]
    labels = table["label"].loc[usable.index]
    rows = []
    for label in ("", *LABELS):
        own = usable[labels == label] if label else usable
        if own.empty:
            continue
        rows.append(
            {
                "label": label,
                "maps": len(own),
                "entropy_mean": float(own["entropy"].mean()),
                "entropy_std": float(own["entropy"].std(ddof=1)),
                "focus_area": float(np.exp(own["entropy"].mean())),
                "covered": float(own["covered"].mean()),
                "several_annotators": int((own["annotators"] > 1).sum()),
            }
        )
    columns = ["label", "maps", "entropy_mean", "entropy_std", "focus_area", "covered", "several_annotators"]
    return pd.DataFrame(rows, columns=columns)


def average_maps(table: pd.DataFrame, scan: MapScan) -> dict[str, np.ndarray]:
    """The mean of the human maps: label ("" for both) -> ``(h, w)`` in [0, 1]; labels without maps are left out."""
    usable = (scan.facts["problem"] == "").to_numpy()
    labels = table["label"].loc[scan.facts.index].to_numpy()
    chosen = {label: usable & (labels == label) if label else usable for label in ("", *LABELS)}
    return {label: scan.maps[rows].mean(axis=0) for label, rows in chosen.items() if rows.any()}


def file_kinds(table: pd.DataFrame, scan: ImageScan) -> pd.DataFrame:
    """What the images are stored as, by label: what one label alone has, a detector may learn instead of the picture.

    Args:
        table: the manifest's.
        scan: of its images; those with a problem are left out.

    Returns:
        A row a ``property`` (a key of :data:`PROPERTIES`) and ``value`` (a size is ``width x height`` as stored, a
        quantisation table 12 digits of its hash), with the number of ``real`` and of ``synthetic`` images; the most
        frequent value of a property first.
    """
    facts = scan.facts[scan.facts["problem"] == ""]
    labels = table["label"].loc[facts.index]
    values = facts.assign(size=facts["width"].astype(str) + " x " + facts["height"].astype(str))
    parts = []
    for name in PROPERTIES:
        column = values[name][values[name] != ""]
        counts = pd.crosstab(column, labels.loc[column.index]).reindex(columns=LABELS, fill_value=0)
        counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
        parts.append(
            pd.DataFrame(
                {"property": name, "value": counts.index} | {label: counts[label].to_numpy() for label in LABELS}
            )
        )
    return pd.concat(parts, ignore_index=True)
