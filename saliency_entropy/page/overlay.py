"""A class activation map laid over its image."""

import numpy as np
from matplotlib import colormaps
from PIL import Image


def cam_overlay(image: np.ndarray, cam: np.ndarray, strength: float = 0.45) -> Image.Image:
    """The image with the map over it, from dark violet (0) to yellow (1), as in the paper's figures.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        cam: ``(h, w)`` in [0, 1], enlarged to the image bilinearly.
        strength: share of the map in the mixture, 0 to 1.

    Returns:
        RGB picture of the image's size.
    """
    height, width = image.shape[:2]
    cells = Image.fromarray((np.clip(cam, 0, 1) * 255).astype(np.uint8))
    enlarged = np.asarray(cells.resize((width, height), Image.Resampling.BILINEAR))
    colours = colormaps["plasma"](enlarged)[..., :3] * 255
    return Image.fromarray(((1 - strength) * image + strength * colours).round().astype(np.uint8))
