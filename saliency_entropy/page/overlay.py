"""A class activation map laid over its image."""

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFilter

STRENGTH = 0.45  # share of the map in an overlay, unless another is given


def cam_figure(image: np.ndarray, cam: np.ndarray) -> Image.Image:
    """An image ``(H, W, 3)``, its :func:`cam_overlay` with a white contour where the map reaches one half, and a bar of
    the colours, in a picture of ``2 W + 44`` by ``H`` pixels."""
    height, width = image.shape[:2]
    inside = Image.fromarray(_enlarged(cam, width, height)).point(lambda value: 255 * (value > 127))
    overlay = np.array(cam_overlay(image, cam))
    overlay[np.asarray(inside) > np.asarray(inside.filter(ImageFilter.MinFilter(3)))] = 255  # its outermost cells
    bar = colormaps["plasma"](np.linspace(1, 0, height - 8)[:, None].repeat(12, axis=1))[..., :3] * 255
    figure = Image.new("RGB", (2 * width + 44, height), "white")
    for picture, place in ((image, (0, 0)), (overlay, (width, 0)), (bar.round().astype(np.uint8), (2 * width + 6, 4))):
        figure.paste(Image.fromarray(picture), place)
    draw = ImageDraw.Draw(figure)
    for value, anchor in ((1, "lt"), (0.5, "lm"), (0, "lb")):
        draw.text((2 * width + 22, 4 + (1 - value) * (height - 8)), f"{value:g}", "black", anchor=anchor)
    return figure


def cam_overlay(image: np.ndarray, cam: np.ndarray, strength: float = STRENGTH) -> Image.Image:
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
