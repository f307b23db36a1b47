"""Images that are in a data set more than once."""

import numpy as np
import pandas as pd

from saliency_entropy.data.check.scan import ImageScan

KINDS = ("same file", "same picture", "near")
DISTANCE = 7  # of 64 bits


def find_duplicates(table: pd.DataFrame, scan: ImageScan, largest_distance: int = DISTANCE) -> pd.DataFrame:
    """Groups of images that show the same.

    Args:
        table: the manifest's.
        scan: of all its images; those with a problem are left out.
        largest_distance: in bits of the perceptual hash, 0 to 11.

    Returns:
        One row an image that has a duplicate, sorted by group and row:

        - ``group``: 0, 1, ... in the order of their first rows;
        - ``row``: of the manifest;
        - ``kind``: what it has in common with the first of its group: ``same file``, ``same picture`` (in another
          file) or ``near``. The first has the kind of the closest of the others;
        - ``distance``: of their perceptual hashes, in bits;
        - ``file``, ``picture``: the first row with the same bytes, and with the same pixels.
    """
    facts = scan.facts[scan.facts["problem"] == ""]
    rows = facts.index.to_numpy()
    file = _first(facts["content"])
    picture = _first(facts["pixels"])
    found = pd.DataFrame({"group": picture, "row": rows, "file": file, "picture": picture})
    found = found[found["group"].duplicated(keep=False)]
    found["group"] = pd.factorize(found["group"])[0]
    found = found.sort_values(["group", "row"], ignore_index=True)
    first = found.groupby("group")["file"].transform("first")
    found["kind"] = np.where(found["file"] == first, KINDS[0], KINDS[1])
    found["distance"] = 0
    return found[["group", "row", "kind", "distance", "file", "picture"]]


def across(table: pd.DataFrame, duplicates: pd.DataFrame) -> pd.DataFrame:
    """The groups of duplicates whose images are of several splits or labels.

    Args:
        table: the manifest's.
        duplicates: of :func:`find_duplicates`.

    Returns:
        One row a group: ``group``; ``kind``, the closest that two images of different splits or labels have in common;
        ``splits`` and ``labels``, sorted, separated by "+" (``test+train``); ``rows``, the list of rows.
    """
    of = duplicates.join(table[["split", "label"]], on="row")
    groups = of.groupby("group")
    found = pd.DataFrame(
        {
            "splits": groups["split"].agg(lambda words: "+".join(sorted(set(words)))),
            "labels": groups["label"].agg(lambda words: "+".join(sorted(set(words)))),
            "rows": groups["row"].agg(list),
        }
    )
    crossing = found[found["splits"].str.contains("+", regex=False) | found["labels"].str.contains("+", regex=False)]
    return crossing.assign(kind="same file").reset_index()[["group", "kind", "splits", "labels", "rows"]]


def shared_base_names(table: pd.DataFrame) -> pd.DataFrame:
    """Base names, without suffix, that several images share: maps could not be joined to them by it.

    Returns:
        One row a name, sorted: ``name``, and ``rows``, the list of rows.
    """
    names = table["path"].str.rsplit("/", n=1).str[-1].str.replace(r"(?<=.)\.[^.]*$", "", regex=True)
    shared = names[names.duplicated(keep=False)]
    rows = shared.index.to_series().groupby(shared.to_numpy()).agg(list)
    return pd.DataFrame({"name": rows.index, "rows": rows.to_numpy()})


def _first(values: pd.Series) -> np.ndarray:
    """Of each value, the first row that has it."""
    return values.index.to_series().groupby(values.to_numpy()).transform("first").to_numpy()
