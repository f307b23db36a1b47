"""Negative controls: maps in the place of an image's own human map, to tell what the human content of a map adds.

What a method gains with such maps, too, it does not owe to where people looked in the image.
"""

import numpy as np
import pandas as pd
import torch

from saliency_entropy.data.table import REPEATED
from saliency_entropy.errors import UserError
from saliency_entropy.functional import min_max, spatial_entropy

CONTROLS = ("none", "shuffled", "centre", "uniform", "inverted")


def check_control(control: str) -> None:
    """Raises UserError for another word than one of :data:`CONTROLS`."""
    if control not in CONTROLS:
        raise UserError(f"data.human_maps.control is {control!r}; choose one of {', '.join(CONTROLS)}")


def with_shuffled_maps(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The table with the human maps of training, and of validation, dealt out anew among the images of the split that
    have one; none keeps its own.

    Args:
        table: columns ``path, split, human_map``, as in a manifest.
        seed: of the order, in which each image is given the map of the next.

    Raises:
        UserError: a split has a single map.
    """
    table = table.copy()
    for split, own in table[(table["human_map"] != "") & table["split"].isin(REPEATED)].groupby("split"):
        if len(own) == 1:
            raise UserError(
                f"data.human_maps.control is shuffled, but split {split} has one human map only, which no other image "
                "can take; choose another control, or add maps"
            )
        order = own.index[np.random.default_rng(seed).permutation(len(own))]
        table.loc[order, "human_map"] = np.roll(table.loc[order, "human_map"], -1)
    return table


def constant_control(control: str, maps: np.ndarray) -> np.ndarray:
    """The one map that ``uniform`` or ``centre`` gives every image in the place of its own.

    ``uniform`` is constant at the mean over the cells of all maps: the human saliency term then asks for that level in
    every cell, and for no place; its entropy is the greatest, ln(h w). ``centre`` is a Gaussian in the middle of the
    grid, as wide as makes its entropy the mean of the maps' (the nearest there is), min-max scaled.

    Args:
        control: ``uniform`` or ``centre``.
        maps: ``(n, h, w)`` in [0, 1], those of the training images.

    Returns:
        ``(h, w)`` float32 in [0, 1].
    """
    if control == "uniform":
        return np.full(maps.shape[1:], maps.mean(), dtype=np.float32)
    y, x = (np.arange(cells) - (cells - 1) / 2 for cells in maps.shape[1:])
    widths = np.geomspace(0.1, max(maps.shape[1:]), 1000)[:, None, None]
    blobs = min_max(torch.from_numpy(np.exp(-(y[:, None] ** 2 + x**2) / (2 * widths**2))))
    wanted = spatial_entropy(torch.from_numpy(maps)).mean()
    return blobs[(spatial_entropy(blobs) - wanted).abs().argmin()].numpy().astype(np.float32)
