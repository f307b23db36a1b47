"""One look at every file of a data set: what it is, what it shows, and whether it can be used.

Every image is read, hashed and decoded once, in several processes: Pillow's decoders let go of Python's lock, but not
what is worked out of the pixels. All later checks use the tables made here, never the files.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import imagehash
import numpy as np
import pandas as pd
import torch
from PIL import ExifTags, Image, ImageChops, ImageOps

from saliency_entropy.data.forked import map_in_processes, may_fork
from saliency_entropy.data.images import FORMATS, LARGEST_PIXELS, DataFile, check_header, check_pixels, decode
from saliency_entropy.data.maps.human_maps import merged_map, on_grid
from saliency_entropy.data.maps.svg_strokes import draw_svg
from saliency_entropy.data.table import Manifest
from saliency_entropy.errors import UserError
from saliency_entropy.functional import spatial_entropy
from saliency_entropy.parallel import thread_count

THUMBNAIL = 12  # pixels a side: shows where eyes, mouth and background are, and little more
HASHED = 64  # pixels of the shorter side, at least, that are left of an image before it is hashed and averaged
COVERED = 25  # of 255: what a map must exceed where it counts as marked
SAME_ASPECT = 0.01  # by which the aspect ratios of an image and its map may differ, in fractions of the image's
COLOURED = 16  # levels of 255 that two channels of a map differ by, where it is not grey
# More than an image of LARGEST_PIXELS needs in any format: such a file is something else, not to be held in memory.
LARGEST_BYTES = 5 * LARGEST_PIXELS
CHUNK = 64  # rows a task: one of each would cost more than a look at a small image

IMAGE_FACTS = np.dtype(
    [
        ("bytes", np.int64),
        ("format", "S4"),
        ("mode", "S8"),
        ("width", np.int32),
        ("height", np.int32),
        ("quantization", "S12"),
        ("orientation", np.uint8),
        ("unusual", "S64"),
        ("content", "S64"),
        ("pixels", "S64"),
        ("phash", np.uint64),
        ("red", np.float32),
        ("green", np.float32),
        ("blue", np.float32),
    ]
)
MAP_FACTS = np.dtype([("unusual", "S64"), ("annotators", np.int32), ("entropy", np.float32), ("covered", np.float32)])

Progress = Callable[[int], object]
# Of some rows: facts; thumbnails or maps; position -> problem.
Part = tuple[np.ndarray, np.ndarray, dict[int, str]]
T = TypeVar("T")


@dataclass(frozen=True)
class ImageScan:
    """What every image of a manifest is.

    Attributes:
        facts: the index is the row of the manifest; columns

            - ``problem``: why it cannot be used, as :mod:`saliency_entropy.data.images` says it; "" if it can.
              What follows is "" or 0 (NaN for means) as far as it is not known of such a file;
            - ``bytes``: of the file;
            - ``format``: ``JPEG``, ``PNG``, ``WEBP`` or ``BMP``;
            - ``mode``: of Pillow, as stored (``RGB``, ``L``, ``P``, ...);
            - ``width``, ``height``: in pixels, as stored;
            - ``quantization``: of a JPEG, 12 hex digits of the SHA-256 of its quantisation tables; "" of others;
            - ``orientation``: of EXIF, 1 if there is none;
            - ``unusual``: what is readable but worth a warning, separated by ";": ``CMYK``, ``palette``, ``alpha``,
              ``EXIF-rotated``, ``grey``, ``several pictures``;
            - ``content``: SHA-256 of the file's bytes, in hex;
            - ``pixels``: SHA-256 of ``"<width>x<height> "`` and the RGB bytes, row by row, upright: the same for one
              picture in two files;
            - ``phash``: ``imagehash.phash``, the first bit the highest, of the upright picture, shrunk to 64
              pixels at least by averaging blocks;
            - ``red``, ``green``, ``blue``: means, 0 to 255, of the same.
        thumbnails: ``(n, 12, 12, 3)`` uint8, RGB, upright, bilinear; zeros where there is a problem.
    """

    facts: pd.DataFrame
    thumbnails: np.ndarray


@dataclass(frozen=True)
class MapScan:
    """What every human map of a manifest is. n is the number of rows with one.

    Attributes:
        facts: the index is the row of the manifest; columns

            - ``problem``: why it cannot be used (missing, damaged, constant, ...); "" if it can;
            - ``unusual``: what can be used but is worth a warning, separated by ";": ``colour``, ``other aspect``
              (the map's and its image's, both upright, differ by more than 1 %), ``several annotators``;
            - ``annotators``: the number of files;
            - ``entropy``: in nats, on the grid; NaN where there is a problem;
            - ``covered``: share of the merged map's pixels above 25 of 255; NaN where there is a problem.
        maps: ``(n, h, w)`` float32 in [0, 1], rows as in ``facts``; zeros where there is a problem.
    """

    facts: pd.DataFrame
    maps: np.ndarray


def scan_images(manifest: Manifest, workers: int | None = None, progress: Progress | None = None) -> ImageScan:
    """Look at every image file of a manifest.

    Args:
        manifest: whose column ``path`` names them.
        workers: processes (threads, where processes cannot share work: see :mod:`saliency_entropy.data.forked`); all
            cores that this process may use, if not given. With 1, this process does it itself.
        progress: called with the number of images that have been looked at since the last call.

    Returns:
        About 0.7 kB an image, and twice as much while it is made. A file that cannot be used raises nothing, see
        :attr:`ImageScan.facts`.

    Raises:
        UserError: a process was killed.
    """
    paths = manifest.table["path"]
    facts = np.zeros(len(paths), IMAGE_FACTS)
    thumbnails = np.zeros((len(paths), THUMBNAIL, THUMBNAIL, 3), np.uint8)
    problems: dict[int, str] = {}
    start = 0
    for some, pictures, why in _parts(_ImageTask(manifest), paths.array, workers):
        stop = start + len(some)
        facts[start:stop], thumbnails[start:stop] = some, pictures
        problems |= {start + at: sentence for at, sentence in why.items()}
        start = stop
        if progress:
            progress(len(some))
    return ImageScan(_table(facts, problems, paths.index), thumbnails)


def scan_maps(
    manifest: Manifest,
    grid: tuple[int, int] = (7, 7),
    blur: float = 0.0,
    binarise: float | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> MapScan:
    """Look at the human maps of every image that has some.

    Args:
        manifest: whose column ``human_map`` names them.
        grid: ``(h, w)``, of the CAM, in cells.
        blur: see :func:`~saliency_entropy.data.maps.human_maps.merged_map`.
        binarise: see there.
        workers: see :func:`scan_images`.
        progress: see there; it counts images, not maps.

    Returns:
        A map that cannot be used raises nothing, see :attr:`MapScan.facts`.

    Raises:
        UserError: ``blur`` or ``binarise`` is out of range, or a process was killed.
    """
    has_map = manifest.table["human_map"] != ""
    table = manifest.table.loc[has_map, ["path", "human_map"]]
    facts = np.zeros(len(table), MAP_FACTS)
    maps = np.zeros((len(table), *grid), np.float32)
    problems: dict[int, str] = {}
    start = 0
    items = list(table.itertuples(index=False, name=None))
    for some, arrays, why in _parts(_MapTask(manifest, grid, blur, binarise), items, workers):
        stop = start + len(some)
        facts[start:stop], maps[start:stop] = some, arrays
        problems |= {start + at: sentence for at, sentence in why.items()}
        start = stop
        if progress:
            progress(len(some))
    # Not in the processes: torch may hang in one that was forked from a process in which it ran.
    facts["entropy"] = spatial_entropy(torch.from_numpy(maps)).numpy()
    facts["entropy"][list(problems)] = np.nan
    return MapScan(_table(facts, problems, table.index), maps)


@dataclass(frozen=True)
class _ImageTask:
    manifest: Manifest

    def __call__(self, paths: Sequence[str]) -> Part:
        facts = np.zeros(len(paths), IMAGE_FACTS)
        facts["orientation"] = 1
        for mean in ("red", "green", "blue"):
            facts[mean] = np.nan
        thumbnails = np.zeros((len(paths), THUMBNAIL, THUMBNAIL, 3), np.uint8)
        problems = {}
        for at, path in enumerate(paths):
            try:
                thumbnails[at] = _look(self.manifest.file(path), facts[at])
            except UserError as error:
                problems[at] = str(error)
        return facts, thumbnails, problems


@dataclass(frozen=True)
class _MapTask:
    manifest: Manifest
    grid: tuple[int, int]
    blur: float
    binarise: float | None

    def __call__(self, items: Sequence[tuple[str, str]]) -> Part:
        facts = np.zeros(len(items), MAP_FACTS)
        facts["covered"] = np.nan
        maps = np.zeros((len(items), *self.grid), np.float32)
        problems = {}
        for at, (path, cell) in enumerate(items):
            files = self.manifest.map_files(cell)
            facts[at]["annotators"] = len(files)
            try:
                merged = merged_map(files, self.blur, self.binarise)
                maps[at] = on_grid(merged, self.grid, "; ".join(map(str, files)))
                facts[at]["unusual"] = _unusual_map(self.manifest.file(path), files)
            except UserError as error:
                problems[at] = str(error)
                continue
            facts[at]["covered"] = (np.asarray(merged) > COVERED).mean()
        return facts, maps, problems


@dataclass(frozen=True)
class _Content:
    """A file that has been read: a :class:`~saliency_entropy.data.images.DataFile` of the same name."""

    file: DataFile
    content: bytes

    @property
    def suffix(self) -> str:
        return self.file.suffix

    def open(self, _: str) -> BinaryIO:
        return io.BytesIO(self.content)

    def stat(self) -> os.stat_result:
        return self.file.stat()

    def __str__(self) -> str:
        return str(self.file)


def _look(file: DataFile, facts: np.void) -> np.ndarray:
    """Fill in one row of the facts, as far as they can be known; returns the thumbnail, or raises UserError."""
    file = _read(file, facts)
    check_header(file)
    try:
        with file.open("rb") as opened, Image.open(opened, formats=FORMATS) as image:
            _header_facts(image, facts)
            if facts["orientation"] != 1:
                ImageOps.exif_transpose(image, in_place=True)
            return _pixel_facts(image if image.mode == "RGB" else image.convert("RGB"), facts)
    except Exception:
        check_pixels(file)  # whatever Pillow raises of a damaged file, this says it in a sentence
        raise


def _read(file: DataFile, facts: np.void) -> DataFile:
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_BYTES)
            digest = hashlib.sha256(content)
            facts["bytes"] = len(content)
            whole = len(content) < LARGEST_BYTES
            while more := b"" if whole else opened.read(2**20):
                digest.update(more)
                facts["bytes"] += len(more)
    except OSError:
        return file  # check_header meets the same fault, and says it in a sentence
    facts["content"] = digest.hexdigest()
    return _Content(file, content) if whole else file


def _header_facts(image: Image.Image, facts: np.void) -> None:
    several = image.format == "MPO"  # a JPEG that carries further pictures
    facts["format"] = "JPEG" if several else image.format
    facts["mode"], facts["width"], facts["height"] = image.mode, image.width, image.height
    tables = getattr(image, "quantization", None)
    if tables:
        text = repr(sorted((number, list(table)) for number, table in tables.items()))
        facts["quantization"] = hashlib.sha256(text.encode()).hexdigest()[:12]
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    rotated = orientation in range(2, 9)
    facts["orientation"] = orientation if rotated else 1
    words = {
        "CMYK": image.mode == "CMYK",
        "palette": image.mode in ("P", "PA"),
        "alpha": image.has_transparency_data,
        "EXIF-rotated": rotated,
        "grey": image.mode in ("1", "L", "LA"),
        "several pictures": several,
    }
    facts["unusual"] = ";".join(word for word, found in words.items() if found)


def _pixel_facts(image: Image.Image, facts: np.void) -> np.ndarray:
    digest = hashlib.sha256(f"{image.width}x{image.height} ".encode())
    digest.update(np.asarray(image))
    facts["pixels"] = digest.hexdigest()
    # The rest needs no more than this, at a fraction of the time.
    factor = min(image.size) // HASHED
    if factor > 1:
        image = image.reduce(factor)
    facts["phash"] = np.packbits(imagehash.phash(image).hash).view(">u8")[0]
    levels = np.array(image.histogram()).reshape(3, 256)
    facts["red"], facts["green"], facts["blue"] = levels @ np.arange(256) / (image.width * image.height)
    return np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR))


def _unusual_map(image: DataFile, files: Sequence[DataFile]) -> str:
    """The words of a map that can be used."""
    layers = [draw_svg(file) if file.suffix.lower() == ".svg" else decode(file, "RGBA") for file in files]
    of_image = _upright_size(image)
    words = {
        "colour": any(layer.mode == "RGBA" and _coloured(layer) for layer in layers),
        "other aspect": of_image is not None and any(_other_aspect(layer.size, of_image) for layer in layers),
        "several annotators": len(files) > 1,
    }
    return ";".join(word for word, found in words.items() if found)


def _upright_size(file: DataFile) -> tuple[int, int] | None:
    """Width and height as a viewer shows them; None if the file cannot be used, which the scan of the images says."""
    try:
        check_header(file)
        with file.open("rb") as opened, Image.open(opened, formats=FORMATS) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
            return image.size[::-1] if turned else image.size
    except Exception:  # Pillow raises almost anything of a damaged file
        return None


def _other_aspect(size: tuple[int, int], of_image: tuple[int, int]) -> bool:
    return abs(size[0] * of_image[1] / (size[1] * of_image[0]) - 1) > SAME_ASPECT


def _coloured(layer: Image.Image) -> bool:
    """Whether taking its grey values loses something, as of a heat map; a stroke layer is its opacity."""
    *colours, alpha = layer.split()
    low, high = alpha.getextrema()
    if low < high:
        return False
    pairs = zip(colours, colours[1:] + colours[:1], strict=True)
    return any(ImageChops.difference(*pair).getextrema()[1] > COLOURED for pair in pairs)


def _parts(task: Callable[[Sequence[T]], Part], items: Sequence[T], workers: int | None) -> Iterator[Part]:
    """``task`` of every :data:`CHUNK` items in turn."""
    chunks = [list(items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)]
    workers = min(workers or thread_count(), len(chunks))
    if workers <= 1:
        yield from map(task, chunks)
    elif may_fork():
        yield from map_in_processes(task, chunks, workers, "set workers to a smaller number")
    else:
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(task, chunks)


def _table(facts: np.ndarray, problems: dict[int, str], index: pd.Index) -> pd.DataFrame:
    columns: dict[str, object] = {"problem": np.full(len(facts), "", dtype=object)}
    for at, sentence in problems.items():
        columns["problem"][at] = sentence
    for name in facts.dtype.names:
        column = facts[name]
        # One at a time: NumPy's text takes four bytes a character, the table's one.
        columns[name] = pd.array(column.astype(str), dtype="str") if column.dtype.kind == "S" else column
    return pd.DataFrame(columns, index)
