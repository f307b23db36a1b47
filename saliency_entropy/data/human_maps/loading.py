"""Human saliency maps, of where annotators looked, on the grid of a CAM."""

import hashlib
import importlib.metadata
import math
import struct
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageChops
from scipy.fft import dctn, idctn

from saliency_entropy.data.human_maps.svg_strokes import draw_svg
from saliency_entropy.data.images import EXTENSIONS, DataFile, decode
from saliency_entropy.errors import UserError

MAP_EXTENSIONS = (*EXTENSIONS, ".svg")
# What a map's cells depend on besides its files, Pillow and the options: the versions of what draws and blurs, and the
# rules for a layer's range and colours, without which a decode cache would serve the cells of versions without them.
DRAWN_WITH = {name: importlib.metadata.version(name) for name in ("resvg_py", "scipy")}
DRAWN_WITH |= {"range": "own", "colour": "refused"}
COLOURED = 16  # levels of 255; a pixel is not grey where two channels differ by more
# Levels by which colours may lie off one line: graded heat maps do by 55 to 300; one hue, as a JPEG of quality 75 with
# 128 pixels a side or more, by up to 38.
BENT = 48
# The share that eight colours have, at least, of a layer's visible pixels: 0.91 of six crossing translucent brushes, up
# to 0.85 of a heat map whose cold parts are transparent.
BRUSHES = 0.88
FIT = 8  # levels from a colour map on average: up to 5 in its own JPEGs (quality 50), 9 and more in other maps


def load_human_map(files: Sequence[DataFile], grid: tuple[int, int], **options: Any) -> np.ndarray:
    """One image's human saliency map on the CAM grid: :func:`merged_map`, then :func:`on_grid`.

    Like its image, which becomes a square, the map is squashed to the grid whatever its size and aspect: a point of
    the image and the same point of the map, in fractions of the sides, end in the same cell.

    Args:
        files: the map of each annotator.
        grid: ``(h, w)``, in cells.
        options: ``blur``, ``binarise`` and ``colormap`` of :func:`merged_map`.

    Returns:
        ``(h, w)`` float32, its least cell 0 and its greatest 1.

    Raises:
        UserError: as :func:`merged_map`, or the map is constant on the grid.
    """
    return on_grid(merged_map(files, **options), grid, _name(files))


def merged_map(
    files: Sequence[DataFile], blur: float = 0.0, binarise: float | None = None, colormap: str | None = None
) -> Image.Image:
    """The annotators' maps of one image as one grey map at full size.

    Each file is one annotator's layer. In a layer with an alpha channel that varies (a stroke layer), and in an SVG,
    the map is the opacity, whatever the colours; of any other image, it is the grey values (ITU-R 601 luma), which keep
    the order of one hue on black or white. Other colours are refused, or decoded by the colour map that they are of.

    Each layer is first scaled to its own range, its least level to 0 and its greatest to 255, rounded to the nearest:
    a mask stored as 0/1 is the same map as 0/255, and each annotator counts alike. So a map that is faint throughout
    is not taken for a less certain one. A layer from 0 to 255 stays as it is.

    Several layers are averaged, each pixel rounded to the nearest of 256 levels, halves up, at the size of the layer
    with the most pixels (the first of equals), to which the others are resized (bilinear). A constant layer marks
    nothing: among others it counts as zeros.

    Args:
        files: JPEG, PNG, WebP, BMP or SVG.
        blur: the standard deviation of a Gaussian, in fractions of the map's longer side, from 0 (none) to 0.5. The
            blurred map is scaled to a maximum of 255: else thin strokes would fall to a few of the 256 levels.
        binarise: after the blur, pixels of at least this fraction of the map's maximum, above 0 and below 1, become
            255 and the others 0; None: they stay.
        colormap: the name of the matplotlib colour map of the layers in colour: each pixel becomes the position, 0 to
            255, of the nearest of its 256 colours (Euclidean, in RGB), a transparent one 0.

    Returns:
        A grey (mode ``L``) image.

    Raises:
        UserError: an option is out of range; a file cannot be read (as :func:`~saliency_entropy.data.images.load_image`
            and :func:`~saliency_entropy.data.human_maps.svg_strokes.draw_svg`), is in colour, or in others than those
            of ``colormap``; the map is constant.
    """
    check_options(blur, binarise, colormap)
    if not files:
        raise UserError("a cell of column human_map names no file; name one, or leave the cell empty")
    return merged_layers([grey_layer(open_layer(file), file, colormap) for file in files], _name(files), blur, binarise)


def merged_layers(
    layers: Sequence[Image.Image], name: str, blur: float = 0.0, binarise: float | None = None
) -> Image.Image:
    """:func:`merged_map` of the :func:`grey_layer` of each annotator; ``name`` is that of the map, for messages."""
    image = _averaged([_in_full_range(layer) for layer in layers])
    _refuse_constant(image, name, "remove it from column human_map")
    if blur > 0:
        image = _blurred(image, blur * max(image.size))
        _refuse_constant(image, name, f"lower data.human_maps.blur, which is {blur}")
    if binarise is not None:
        threshold = binarise * image.getextrema()[1]
        image = image.point([255 * (level >= threshold) for level in range(256)])
        _refuse_constant(image, name, f"raise data.human_maps.binarise, which is {binarise}")
    return image


def check_options(blur: float = 0.0, binarise: float | None = None, colormap: str | None = None) -> None:
    """Raises UserError if one of the options of :func:`merged_map` is out of range."""
    if not _is_number(blur) or not 0 <= blur <= 0.5:
        raise UserError(f"data.human_maps.blur is {blur!r}; give a number from 0 to 0.5 (of the map's longer side)")
    if binarise is not None and (not _is_number(binarise) or not 0 < binarise < 1):
        raise UserError(
            f"data.human_maps.binarise is {binarise!r}; give a number between 0 and 1 (of the map's maximum), or null"
        )
    if colormap is not None:
        from matplotlib import colormaps  # here, since it takes a while, and few maps need it

        if str(colormap) not in colormaps:
            raise UserError(f"data.human_maps.colormap is {colormap!r}; name one of matplotlib's, such as jet")


def on_grid(image: Image.Image, grid: tuple[int, int], name: str) -> np.ndarray:
    """A grey image resized to the CAM grid, bilinear and in uint8, then min-max scaled: the CYBORG authors' order.

    Args:
        image: mode ``L``.
        grid: ``(h, w)``, in cells.
        name: of the map, for the message.

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


def keep_fraction(table: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """The table as if only some of the annotated training images had been annotated.

    The maps that are kept are drawn at random, from both labels alike. All maps that a smaller fraction keeps, a larger
    one keeps with the same seed, and the order of the rows does not matter.

    Args:
        table: columns ``path, label, split, human_map``, as in a manifest.
        fraction: of the training rows with a map, in [0, 1]; the nearest number of rows, halves up.
        seed: of the draw.

    Returns:
        A copy in which ``human_map`` of the other annotated training rows is "". Other splits keep their maps.

    Raises:
        UserError: ``fraction`` is out of range.
    """
    if not _is_number(fraction) or not 0 <= fraction <= 1:
        raise UserError(f"data.human_maps.fraction is {fraction!r}; give a number from 0 to 1")
    annotated = table[(table["split"] == "train") & (table["human_map"] != "")]
    # Each image draws its lot from its path alone: Python's own hash of a text differs from process to process.
    lots = [hashlib.sha256(f"{seed} {path}".encode()).hexdigest() for path in annotated["path"]]
    labels = annotated.assign(lot=lots).sort_values("lot").groupby("label")["lot"]
    # The rank of a row in its label, from 0 to 1: any first part of this order holds both labels in proportion.
    rank = (labels.cumcount() + 0.5) / labels.transform("size")
    order = rank.sort_values(kind="stable").index
    kept = math.floor(fraction * len(order) + 0.5)
    table = table.copy()
    table.loc[order[kept:], "human_map"] = ""
    return table


def open_layer(path: DataFile) -> Image.Image:
    """One annotator's file as RGBA, upright, or an SVG's opacity (``L``); raises UserError as :func:`merged_map`."""
    suffix = path.suffix.lower()
    if suffix == ".svg":
        return draw_svg(path)
    if suffix == ".svgz":
        raise UserError(f"{path} is a compressed SVG; unpack it to .svg (gzip -dc), and name that file")
    image = decode(path, "RGBA")
    if suffix in (".bmp", ".dib"):
        _refuse_unread_opacity(path)
        if np.ptp(image.getchannel("A").getextrema()) == 0:
            image.putalpha(255)
    return image


def grey_layer(image: Image.Image, path: DataFile, colormap: str | None) -> Image.Image:
    """What :func:`open_layer` returned as a map in mode ``L``; raises UserError as :func:`merged_map`."""
    if image.mode == "L":
        return image
    alpha = image.getchannel("A")
    low, high = alpha.getextrema()
    if high == 0:
        return alpha  # nothing was drawn; the colours under it mean nothing
    colours = image.convert("RGB")
    if low == 0:
        colours.paste(0, mask=alpha.point([255] + 255 * [0]))
    red, green, blue = colours.split()
    pairs = (red, green), (green, blue), (blue, red)
    coloured = any(ImageChops.difference(*pair).getextrema()[1] > COLOURED for pair in pairs)
    if coloured and colormap is not None:
        return _decoded(image, path, colormap)
    visible = None if low == high else np.asarray(image)[np.asarray(alpha) > 0]
    if coloured and (_is_bent(colours) if visible is None else _has_many_colours(visible)):
        raise UserError(
            f"{path} is in colour; save the map in grey or, if it is a heat map, name its colour map in matplotlib: "
            "+data.human_maps.colormap=jet"
        )
    if visible is None:
        return image.convert("L")
    # An image editor stores a graded grey map like this if black is made transparent: the opacity has lost the grades.
    # A hard brush draws in one grey, or in colours.
    hard, colourless = (visible[:, 3] == 255).all(), (visible[:, :3] == visible[:, :1]).all()
    if hard and colourless and np.ptp(visible[:, 0]) > 0:
        raise UserError(
            f"{path} has both grey levels and transparent pixels, so which of the two is the map is unclear; save it "
            "without transparency if its greys are, or in one colour if its strokes are"
        )
    return alpha


def _is_bent(colours: Image.Image) -> bool:
    """Whether the colours, averaged over blocks, which undoes what JPEG does to edges, lie off every line in RGB."""
    pixels = np.asarray(colours.reduce(max(1, min(colours.size) // 32)), dtype=np.float64).reshape(-1, 3)
    pixels -= pixels.mean(axis=0)
    axis = np.linalg.eigh(pixels.T @ pixels)[1][:, -1]
    return bool(np.linalg.norm(pixels - np.outer(pixels @ axis, axis), axis=1).max() > BENT)


def _has_many_colours(visible: np.ndarray) -> bool:
    """Whether these ``(n, 4)`` pixels have more colours, to 16 levels, than brushes give."""
    counts = np.sort(np.bincount((visible[visible[:, 3] >= 128, :3] >> 4) @ np.array([256, 16, 1])))
    return bool(counts[-8:].sum() < BRUSHES * counts.sum())


def _decoded(image: Image.Image, path: DataFile, colormap: str) -> Image.Image:
    """The positions of the pixels' colours in a colour map; see :func:`merged_map`."""
    from matplotlib import colormaps  # here, as in check_options
    from scipy.spatial import KDTree

    pixels = np.asarray(image)
    distances, levels = KDTree(255 * colormaps[colormap](np.arange(256) / 255)[:, :3]).query(pixels[..., :3])
    visible = pixels[..., 3] > 0
    if (off := distances[visible].mean()) > FIT:
        raise UserError(
            f"{path} is in colour, but not in the colours of {colormap} (they are {off:.0f} of 255 levels off); give "
            "data.human_maps.colormap the right name, or save the map in grey"
        )
    return Image.fromarray(np.where(visible, levels, 0).astype(np.uint8))


def _refuse_unread_opacity(path: DataFile) -> None:
    """Raises UserError if the fourth bytes of a BMP of 32 bits a pixel, which Pillow passes over unless a mask names
    them, are neither all 0 nor all 255: then they are an opacity, without which strokes lose their shape."""
    with path.open("rb") as file:
        content = file.read()
    if len(content) < 34:  # one pixel under the short header of OS/2, which has no opacity
        return
    begin, header, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", content, 10)
    if header < 40 or bits != 32 or compression:
        return
    fourth = content[begin : begin + 4 * abs(width * height)][3::4]
    if set(fourth) not in ({0}, {255}):
        raise UserError(f"{path} is a BMP with an opacity that programs read in different ways; save it as PNG")


def _in_full_range(layer: Image.Image) -> Image.Image:
    """The layer scaled to 0 to 255; a constant one stays, to be recognised as such."""
    low, high = layer.getextrema()
    if low == high or (low, high) == (0, 255):
        return layer
    return layer.point([round(255 * (min(max(level, low), high) - low) / (high - low)) for level in range(256)])


def _averaged(layers: list[Image.Image]) -> Image.Image:
    if len(layers) == 1:
        return layers[0]
    size = max((layer.size for layer in layers), key=math.prod)
    total = np.zeros(size[::-1], dtype=np.uint32)
    for layer in layers:
        low, high = layer.getextrema()
        if low < high:
            total += np.asarray(layer if layer.size == size else layer.resize(size, Image.Resampling.BILINEAR))
    count = len(layers)
    return Image.fromarray(((2 * total + count) // (2 * count)).astype(np.uint8))


def _blurred(image: Image.Image, sigma: float) -> Image.Image:
    """The image under a Gaussian of ``sigma`` pixels, mirrored at its borders, scaled to a maximum of 255."""
    # The cosine transform turns the blur into a product. A sum over neighbours would take ten times as long, as the
    # Gaussian that softens strokes spans half the map. This is the discrete Gaussian (Lindeberg, "Scale-space for
    # discrete signals", 1990): unlike a sampled one it has the variance sigma ** 2 however narrow it is.
    across, down = (np.exp(-(sigma**2) * (1 - np.cos(np.pi * np.arange(side) / side))) for side in image.size)
    blurred = idctn(dctn(np.asarray(image, dtype=np.float32)) * np.outer(down, across).astype(np.float32))
    # Rounding leaves traces below 0.
    return Image.fromarray((blurred * (255 / blurred.max())).clip(0).round().astype(np.uint8))


def _refuse_constant(image: Image.Image, name: str, remedy: str) -> None:
    low, high = image.getextrema()
    if low == high:
        raise UserError(f"{name} is a constant map (every pixel is {low}); {remedy}")


def _name(files: Sequence[DataFile]) -> str:
    return "; ".join(map(str, files))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
