"""Maps that are probably no human maps.

An annotator marks parts of an image, on a dark ground. The rules here are for warnings: a map of the background, say,
is unusual, but possible.
"""

import numpy as np
from PIL import Image

# Kind of implausible map -> what is said of such maps.
KINDS = {
    "inverted": "look inverted (a bright ground with dark marks)",
    "bright border": "are brightest at their border",
    "full rectangle": "are a rectangle over nearly all of the image",
    "image itself": "show the image itself",
    "same map": "are one and the same map",
}
LEAST_CELLS = 6  # a side; on a coarser grid, honest maps look like that, too


def implausible_shapes(maps: np.ndarray) -> dict[str, np.ndarray]:
    """Which maps have the shape of no human map, whatever their images.

    Args:
        maps: ``(n, h, w)``, non-negative, on a grid of :data:`LEAST_CELLS` a side or more.

    Returns:
        ``(n,)`` bool for each kind, of which a map is at most one; each map counts in its own range, from 0 to 1:

        - ``full rectangle``: all is above 0.95 but for the outer seventh, which is even along each side;
        - ``inverted``: the median is 0.6 or more, and three corners are 0.7 or more;
        - ``bright border``: three quarters of the outermost cells are 1.5 times as bright as the mean of the others.
    """
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    maps = (maps - low) / np.maximum(high - low, 1e-6)
    deep = round(min(maps.shape[1:]) / 7)
    sides = [side for turn in range(4) for side in np.rot90(maps, turn, (1, 2))[:, :deep, deep:-deep].swapaxes(0, 1)]
    even = np.max([np.ptp(side, axis=1) for side in sides], axis=0) <= 0.1
    rectangle = even & (maps[:, deep:-deep, deep:-deep].min(axis=(1, 2)) > 0.95)
    corners = np.sort(maps[:, [0, 0, -1, -1], [0, -1, 0, -1]], axis=1)
    inverted = ~rectangle & (np.median(maps, axis=(1, 2)) >= 0.6) & (corners[:, 1] >= 0.7)
    inside = np.pad(np.ones(np.subtract(maps.shape[1:], 2), bool), 1)
    border = np.quantile(maps[:, ~inside], 0.25, axis=1)
    around = ~rectangle & ~inverted & (border >= np.maximum(1.5 * maps[:, inside].mean(axis=1), 0.25))
    return {"inverted": inverted, "bright border": around, "full rectangle": rectangle}


def repeated(maps: np.ndarray) -> np.ndarray:
    """Which of the ``(n, h, w)`` maps stand for four images or more, and for a tenth of all: ``(n,)`` bool; none on a
    grid of less than :data:`LEAST_CELLS` a side."""
    _, which, counts = np.unique(maps, axis=0, return_inverse=True, return_counts=True)
    return (counts >= max(4, len(maps) / 10))[which] & (min(maps.shape[1:]) >= LEAST_CELLS)


def shows(human_map: np.ndarray, image: Image.Image) -> bool:
    """Whether a ``(h, w)`` map shows its image: it correlates with the image, in grey on its grid, by 0.98 or more."""
    grey = np.asarray(image.convert("L").resize(human_map.shape[::-1], Image.Resampling.BILINEAR))
    first, second = (pixels.astype(float).ravel() - pixels.mean() for pixels in (human_map, grey))
    return bool(first @ second >= 0.98 * np.linalg.norm(first) * np.linalg.norm(second) > 0)
