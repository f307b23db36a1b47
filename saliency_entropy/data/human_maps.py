"""Human saliency maps: where annotators looked, on the grid of a CAM."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from saliency_entropy.data.images import DataFile, decode
from saliency_entropy.errors import UserError


def load_human_map(files: Sequence[DataFile], grid: tuple[int, int]) -> np.ndarray:
    """One human saliency map on the CAM grid: see :func:`on_grid`.

    Args:
        files: the map of each annotator; colours become grey (ITU-R 601 luma).
        grid: ``(h, w)``, in cells.

    Returns:
        ``(h, w)`` float32, its least cell 0 and its greatest 1.

    Raises:
        UserError: as :func:`load_image`, or the map is constant.
    """
    (path,) = files
    return on_grid(_decode_map(path), grid, str(path))


def on_grid(image: Image.Image, grid: tuple[int, int], name: str) -> np.ndarray:
    """A grey image resized to the CAM grid, bilinear and in uint8, then min-max scaled: the CYBORG authors' order.

    Args:
        image: mode ``L``.
        grid: ``(h, w)``, in cells.
        name: the map's, for the message.

    Returns:
        ``(h, w)`` float32 in [0, 1].

    Raises:
        UserError: every cell is the same.
    """
    height, width = grid
    cells = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
    low, high = cells.min(), cells.max()
    if low == high:
        raise UserError(
            f"{name} is a constant map on the CAM grid of {height} x {width} cells (each is {low:.0f}); remove it "
            "from column human_map, or use a backbone with a finer grid"
        )
    return (cells - low) / (high - low)


def _decode_map(path: DataFile) -> Image.Image:
    image = decode(path, "L")
    low, high = image.getextrema()
    if low == high:
        raise UserError(f"{path} is a constant map (every pixel is {low}); remove it from column human_map")
    return image
