"""A class activation map laid over its image."""

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

HALF = 127  # of the map's values from 0 to 255
BAR = 44  # pixels of the colour bar and its figures


def cam_figure(image: np.ndarray, cam: np.ndarray) -> Image.Image:
    """The image, beside it its overlay with a white contour where the map reaches half its maximum, and a colour bar.

    Args:
        image: ``(H, W, 3)`` uint8 RGB, as the network sees it.
        cam: ``(h, w)`` in [0, 1].

    Returns:
        RGB picture of ``2 W + 44`` by ``H`` pixels.
    """
    height, width = image.shape[:2]
    inside = np.pad(_enlarged(cam, width, height) > HALF, 1, mode="edge")
    middle = inside[1:-1, 1:-1]
    # The outermost cells of the inside: those with a neighbour outside.
    inner = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    overlay = np.array(cam_overlay(image, cam))
    overlay[middle & ~inner] = 255
    figure = Image.new("RGB", (2 * width + BAR, height), "white")
    figure.paste(Image.fromarray(image), (0, 0))
    figure.paste(Image.fromarray(overlay), (width, 0))
    values = np.linspace(1, 0, height - 8)[:, None].repeat(12, axis=1)
    bar = (colormaps["plasma"](values)[..., :3] * 255).round().astype(np.uint8)
    figure.paste(Image.fromarray(bar), (2 * width + 6, 4))
    draw = ImageDraw.Draw(figure)
    for value, anchor in ((1, "lt"), (0.5, "lm"), (0, "lb")):
        draw.text((2 * width + 22, 4 + (1 - value) * (height - 8)), f"{value:g}", "black", anchor=anchor)
    return figure


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
    colours = colormaps["plasma"](_enlarged(cam, width, height))[..., :3] * 255
    return Image.fromarray(((1 - strength) * image + strength * colours).round().astype(np.uint8))


def _enlarged(cam: np.ndarray, width: int, height: int) -> np.ndarray:
    cells = Image.fromarray((np.clip(cam, 0, 1) * 255).astype(np.uint8))
    return np.asarray(cells.resize((width, height), Image.Resampling.BILINEAR))
