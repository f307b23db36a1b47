"""Human saliency maps, of where annotators looked, on the grid of a CAM."""

import hashlib
import importlib.metadata
import math
import struct
from collections.abc import Sequence
from numbers import Real

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn, idctn

from saliency_entropy.data.human_maps.svg_strokes import draw_svg
from saliency_entropy.data.images import EXTENSIONS, DataFile, decode
from saliency_entropy.errors import UserError

MAP_EXTENSIONS = (*EXTENSIONS, ".svg")
# What a map's cells depend on besides its files, Pillow and the options: the versions of what draws and blurs, and the
# rule for a layer's range, without which a decode cache would serve the cells of versions that left it as it was.
DRAWN_WITH = {name: importlib.metadata.version(name) for name in ("resvg_py", "scipy")} | {"range": "own"}


def load_human_map(
    files: Sequence[DataFile], grid: tuple[int, int], blur: float = 0.0, binarise: float | None = None
) -> np.ndarray:
    """One image's human saliency map on the CAM grid: :func:`merged_map`, then :func:`on_grid`.

    Like its image, which becomes a square, the map is squashed to the grid whatever its size and aspect: a point of
    the image and the same point of the map, in fractions of the sides, end in the same cell.

    Args:
        files: the map of each annotator.
        grid: ``(h, w)``, in cells.
        blur: see :func:`merged_map`.
        binarise: see :func:`merged_map`.

    Returns:
        ``(h, w)`` float32, its least cell 0 and its greatest 1.

    Raises:
        UserError: as :func:`merged_map`, or the map is constant on the grid.
    """
    return on_grid(merged_map(files, blur, binarise), grid, _name(files))


def merged_map(files: Sequence[DataFile], blur: float = 0.0, binarise: float | None = None) -> Image.Image:
    """The annotators' maps of one image as one grey map at full size.

    Each file is one annotator's layer. In a layer with an alpha channel that varies (a stroke layer), and in an SVG,
    the map is the opacity, whatever the colours; of any other image, it is the grey values (ITU-R 601 luma).

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

    Returns:
        A grey (mode ``L``) image.

    Raises:
        UserError: an option is out of range; a file cannot be read (as :func:`~saliency_entropy.data.images.load_image`
            and :func:`~saliency_entropy.data.human_maps.svg_strokes.draw_svg`); the map is constant.
    """
    check_options(blur, binarise)
    if not files:
        raise UserError("a cell of column human_map names no file; name one, or leave the cell empty")
    name = _name(files)
    image = _averaged([_in_full_range(read_layer(file)) for file in files])
    _refuse_constant(image, name, "remove it from column human_map")
    if blur > 0:
        image = _blurred(image, blur * max(image.size))
        _refuse_constant(image, name, f"lower data.human_maps.blur, which is {blur}")
    if binarise is not None:
        threshold = binarise * image.getextrema()[1]
        image = image.point([255 * (level >= threshold) for level in range(256)])
        _refuse_constant(image, name, f"raise data.human_maps.binarise, which is {binarise}")
    return image


def check_options(blur: float, binarise: float | None) -> None:
    """Raises UserError if one of the options of :func:`merged_map` is out of range."""
    if not _is_number(blur) or not 0 <= blur <= 0.5:
        raise UserError(f"data.human_maps.blur is {blur!r}; give a number from 0 to 0.5 (of the map's longer side)")
    if binarise is not None and (not _is_number(binarise) or not 0 < binarise < 1):
        raise UserError(
            f"data.human_maps.binarise is {binarise!r}; give a number between 0 and 1 (of the map's maximum), or null"
        )


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


def read_layer(path: DataFile) -> Image.Image:
    """One annotator's map in mode ``L``, in the range of its file; raises UserError as :func:`merged_map`."""
    suffix = path.suffix.lower()
    if suffix == ".svg":
        return draw_svg(path)
    if suffix == ".svgz":
        raise UserError(f"{path} is a compressed SVG; unpack it to .svg (gzip -dc), and name that file")
    image = decode(path, "RGBA")
    alpha = image.getchannel("A")
    low, high = alpha.getextrema()
    if suffix in (".bmp", ".dib"):
        _refuse_unread_opacity(path)
    elif high == 0:
        return alpha  # nothing was drawn; the colours under it mean nothing
    if low == high:
        return image.convert("L")
    # An image editor stores a graded grey map like this if black is made transparent: the opacity has lost the grades.
    # A hard brush draws in one grey, or in colours.
    visible = np.asarray(image)[np.asarray(alpha) > 0]
    hard, colourless = (visible[:, 3] == 255).all(), (visible[:, :3] == visible[:, :1]).all()
    if hard and colourless and np.ptp(visible[:, 0]) > 0:
        raise UserError(
            f"{path} has both grey levels and transparent pixels, so which of the two is the map is unclear; save it "
            "without transparency if its greys are, or in one colour if its strokes are"
        )
    return alpha


def _refuse_unread_opacity(path: DataFile) -> None:
    """Raises UserError if the fourth bytes of a BMP of 32 bits a pixel, which Pillow passes over unless a mask names
    them, are neither all 0 nor all 255: then they are an opacity, without which strokes lose their shape."""
    with path.open("rb") as file:
        content = file.read()
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
