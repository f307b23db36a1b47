"""One look at every file of a data set: what it is, what it shows, and whether it can be used.

Every image is read, hashed and decoded once, in several processes: Pillow's decoders let go of Python's lock, but what
is computed from the pixels does not. All later checks use the tables made here, never the files.
"""

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import imagehash
import numpy as np
import pandas as pd
import torch
from PIL import ExifTags, Image

from saliency_entropy.cpu.cores import thread_count
from saliency_entropy.data.forked import map_in_processes, may_fork
from saliency_entropy.data.human_maps.implausible import implausible_shapes, repeated, shows
from saliency_entropy.data.human_maps.loading import check_options, grey_layer, merged_layers, on_grid, open_layer
from saliency_entropy.data.images import LARGEST_PIXELS, DataFile, Digested, opened, upright
from saliency_entropy.data.table import Manifest
from saliency_entropy.errors import UserError
from saliency_entropy.functional import spatial_entropy

THUMBNAIL = 12  # pixels a side: shows where eyes, mouth and background are, and little more
HASHED = 64  # pixels, at least, that the shorter side of an image keeps when it is shrunk to be hashed and averaged
COVERED = 25  # level of 255; a map counts as marked above it
SAME_ASPECT = 0.01  # the largest difference between the aspect ratios of an image and its map, relative to the image's
SHAPE_GRID = 14, 14  # cells, on which a map's shape is judged; see implausible.py
NARROW = 230  # levels; lossy maps and soft blobs span nine tenths of 255, a mask stored as 0/1 or 0/100 does not
# More than an image of LARGEST_PIXELS needs in any format: such a file is something else, not to be held in memory.
LARGEST_BYTES = 5 * LARGEST_PIXELS
CHUNK = 64  # rows a task: a task for each row would cost more than a look at a small image

# Column of the facts -> its type, and its value as long as nothing is known of a file.
IMAGE_FACTS = {
    "bytes": (np.int64, 0),
    "format": ("S4", b""),
    "mode": ("S8", b""),
    "width": (np.int32, 0),
    "height": (np.int32, 0),
    "quantization": ("S12", b""),
    "orientation": (np.uint8, 1),
    "unusual": ("S64", b""),
    "content": ("S64", b""),
    "pixels": ("S64", b""),
    "phash": (np.uint64, 0),
    "red": (np.float32, np.nan),
    "green": (np.float32, np.nan),
    "blue": (np.float32, np.nan),
}
MAP_FACTS = {"unusual": ("S128", b""), "annotators": (np.int32, 0), "covered": (np.float32, np.nan)}

Progress = Callable[[int], object]
T = TypeVar("T")


@dataclass(frozen=True)
class ImageScan:
    """What every image of a manifest is.

    Attributes:
        facts: the index is the row of the manifest; columns

            - ``problem``: why the image cannot be used, as :mod:`saliency_entropy.data.images` says it; "" if it can.
              The columns below are "" or 0 (NaN for means) as far as they are not known of an unusable file;
            - ``bytes``: the size of the file;
            - ``format``: ``JPEG``, ``PNG``, ``WEBP`` or ``BMP``;
            - ``mode``: Pillow's mode of the stored image (``RGB``, ``L``, ``P``, ...);
            - ``width``, ``height``: in pixels, as stored;
            - ``quantization``: 12 hex digits of the SHA-256 of a JPEG's quantisation tables; "" for other formats;
            - ``orientation``: the EXIF orientation, 1 if the file has none;
            - ``unusual``: readable traits that are worth a warning, separated by ";": ``CMYK``, ``palette``,
              ``alpha``, ``EXIF-rotated``, ``grey``, ``several pictures``;
            - ``content``: SHA-256 of the file's bytes, in hex;
            - ``pixels``: SHA-256 of ``"<width>x<height> "`` and the RGB bytes, row by row, upright: the same for one
              picture in two files;
            - ``phash``: ``imagehash.phash`` of the upright picture, shrunk by averaging blocks to a shorter side of
              64 pixels or more; the first bit is the highest;
            - ``red``, ``green``, ``blue``: means of the shrunk picture, 0 to 255.
        thumbnails: ``(n, 12, 12, 3)`` uint8, RGB, upright, bilinear; zeros where there is a problem.
    """

    facts: pd.DataFrame
    thumbnails: np.ndarray


@dataclass(frozen=True)
class MapScan:
    """What every human map of a manifest is; n is the number of rows that have one.

    Attributes:
        facts: the index is the row of the manifest; columns

            - ``problem``: why the map cannot be used (missing, damaged, constant, ...); "" if it can;
            - ``unusual``: traits of a usable map that are worth a warning, separated by ";": ``other aspect`` (the
              aspect ratios of the upright map and image differ by more than 1 %), ``narrow range`` (a layer, before it
              is scaled, spans less than :data:`NARROW` of 255 levels), ``several annotators``, and those of
              :data:`~saliency_entropy.data.human_maps.implausible.KINDS` (``image itself`` of a refused map, too);
            - ``annotators``: the number of files;
            - ``entropy``: in nats, on the grid; NaN where there is a problem;
            - ``covered``: share of the merged map's pixels above 25 of 255; NaN where there is a problem.
        maps: ``(n, h, w)`` float32 in [0, 1], rows as in ``facts``; zeros where there is a problem.
    """

    facts: pd.DataFrame
    maps: np.ndarray


def scan_images(manifest: Manifest, workers: int | None = None, progress: Progress = lambda count: None) -> ImageScan:
    """Look at every image file of a manifest.

    Args:
        manifest: the table whose column ``path`` names the images.
        workers: processes (threads, where processes cannot share work: see :mod:`saliency_entropy.data.forked`); by
            default one for each core that this process may use. With 1, this process looks at every file itself.
        progress: called with the number of images that have been looked at since the last call.

    Returns:
        About 0.7 kB an image, and twice as much while the scan lasts. A file that cannot be used does not raise an
        error, see :attr:`ImageScan.facts`.

    Raises:
        UserError: a process was killed.
    """
    paths = manifest.table["path"]
    facts, thumbnails = _scan(
        lambda path, facts: _look_at_image(manifest.file(path), facts),
        paths,
        IMAGE_FACTS,
        np.zeros((len(paths), THUMBNAIL, THUMBNAIL, 3), np.uint8),
        workers,
        progress,
    )
    return ImageScan(facts, thumbnails)


def scan_maps(
    manifest: Manifest,
    images: ImageScan,
    grid: tuple[int, int] = (7, 7),
    workers: int | None = None,
    progress: Progress = lambda count: None,
    colormap: str | None = None,
    **options: Any,
) -> MapScan:
    """Look at the human maps of every image that has any; each file is read once.

    Args:
        manifest: the table whose column ``human_map`` names the maps.
        images: the scan of its images.
        grid: ``(h, w)`` of the CAM, in cells.
        workers, progress: see :func:`scan_images`; images are counted, not maps.
        colormap, options: see :func:`~saliency_entropy.data.human_maps.loading.merged_map`.

    Returns:
        A map that cannot be used does not raise an error, see :attr:`MapScan.facts`.

    Raises:
        UserError: an option is out of range, or a process was killed.
    """
    check_options(colormap=colormap, **options)
    rows = manifest.table.index[manifest.table["human_map"] != ""]

    def look(row: int, facts: np.void) -> np.ndarray:
        files = manifest.map_files(manifest.table.at[row, "human_map"])
        facts["annotators"] = len(files)
        pictures = [open_layer(file) for file in files]
        image, name = images.facts.loc[row], "; ".join(map(str, files))
        thumbnail = Image.fromarray(images.thumbnails[images.facts.index.get_loc(row)])
        small = [picture.convert("L").resize(thumbnail.size, Image.Resampling.BILINEAR) for picture in pictures]
        traits = {"image itself": any(shows(np.asarray(layer), thumbnail) for layer in small)}
        facts["unusual"] = _words(traits)  # it may be why the map is refused
        layers = [grey_layer(*layer, colormap) for layer in zip(pictures, files, strict=True)]
        merged = merged_layers(layers, name, **options)
        cells = on_grid(merged, grid, name)
        upright = -1 if image["orientation"] > 4 else 1
        aspect = (image["width"] / (image["height"] or math.nan)) ** upright
        facts["unusual"] = _words(traits | _unusual_traits(layers, aspect))
        facts["covered"] = (np.asarray(merged) > COVERED).mean()
        return cells

    items = pd.Series(rows, rows, dtype=object)
    facts, maps = _scan(look, items, MAP_FACTS, np.zeros((len(rows), *grid), np.float32), workers, progress)
    usable = facts.index[facts["problem"] == ""]
    same = usable[repeated(maps[facts["problem"] == ""])]
    facts.loc[same, "unusual"] = (facts.loc[same, "unusual"] + ";same map").str.lstrip(";")
    # Not in the processes: torch may hang in one that was forked from a process in which it ran.
    entropy = spatial_entropy(torch.from_numpy(maps)).numpy()
    facts.insert(3, "entropy", np.where(facts["problem"] == "", entropy, np.float32(np.nan)))
    return MapScan(facts, maps)


def _scan(
    look: Callable[[T, np.void], np.ndarray],
    items: pd.Series,
    columns: dict[str, tuple[object, object]],
    pictures: np.ndarray,
    workers: int | None,
    progress: Progress,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Look at every item, in several processes.

    Args:
        look: fills in the facts of one item, as far as they can be known, and returns its picture; or raises UserError.
        items: the paths of images, or the rows of maps; the index is the row of the manifest.
        columns: :data:`IMAGE_FACTS` or :data:`MAP_FACTS`; the table that is returned has a column ``problem``, too.
        pictures: ``(n, ...)`` zeros, filled with what ``look`` returns.
        workers, progress: see :func:`scan_images`.
    """
    types = np.dtype([(name, kind) for name, (kind, _) in columns.items()])
    unknown = np.array(tuple(value for _, value in columns.values()), types)
    facts = np.full(len(items), unknown)
    problems = np.full(len(items), "", dtype=object)

    def part(start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Facts, pictures and problems of the items of a chunk."""
        own = slice(start, start + CHUNK)
        for at, item in enumerate(items.array[own], start):
            try:
                pictures[at] = look(item, facts[at])
            except UserError as error:
                problems[at] = str(error)
        return facts[own], pictures[own], problems[own]

    starts = range(0, len(items), CHUNK)
    workers = min(workers or thread_count(), len(starts))
    with ExitStack() as stack:
        if workers <= 1:
            parts = map(part, starts)
        elif may_fork():
            parts = map_in_processes(part, starts, workers, "set workers to a smaller number")
        else:
            parts = stack.enter_context(ThreadPoolExecutor(workers)).map(part, starts)
        for start, found in zip(starts, parts, strict=True):
            own = slice(start, start + CHUNK)
            facts[own], pictures[own], problems[own] = found  # a process filled in its own copy
            progress(len(found[0]))
    table = pd.DataFrame({"problem": problems}, items.index)
    for name in types.names:
        column = facts[name]
        # One at a time: NumPy's text takes four bytes a character, the table's one.
        table[name] = pd.array(column.astype(str), dtype="str") if column.dtype.kind == "S" else column
    return table, pictures


class _Content(Digested):
    """A file that has been read whole, once."""

    def __init__(self, file: DataFile, content: bytes) -> None:
        super().__init__(file)
        self.content = content

    def open(self, mode: str) -> BinaryIO:
        return io.BytesIO(self.content)


def _look_at_image(file: DataFile, facts: np.void) -> np.ndarray:
    """Fill in the facts of an image, as far as they can be known; returns its thumbnail, or raises UserError."""
    file = _read(file, facts)
    with opened(file) as (image, content):  # and decoded as in training, which refuses what is refused here
        _header_facts(image, facts)
        picture = upright(image, content, "RGB")
    return _pixel_facts(picture, facts)


def _read(file: DataFile, facts: np.void) -> DataFile:
    try:
        with file.open("rb") as source:
            content = source.read(LARGEST_BYTES)
            digest = hashlib.sha256(content)
            facts["bytes"] = len(content)
            while more := source.read(2**20):
                digest.update(more)
                facts["bytes"] += len(more)
    except OSError:
        return file  # opened() meets the same fault, and says it in a sentence
    facts["content"] = digest.hexdigest()
    return _Content(file, content) if facts["bytes"] == len(content) else file


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
    facts["unusual"] = _words(words)


def _pixel_facts(image: Image.Image, facts: np.void) -> np.ndarray:
    digest = hashlib.sha256(f"{image.width}x{image.height} ".encode())
    digest.update(np.asarray(image))
    facts["pixels"] = digest.hexdigest()
    # Enough for the hash, the means and the thumbnail, in a fraction of the time.
    factor = min(image.size) // HASHED
    if factor > 1:
        image = image.reduce(factor)
    facts["phash"] = np.packbits(imagehash.phash(image).hash).view(">u8")[0]
    levels = np.array(image.histogram()).reshape(3, 256)
    facts["red"], facts["green"], facts["blue"] = levels @ np.arange(256) / (image.width * image.height)
    return np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR))


def _unusual_traits(layers: Sequence[Image.Image], aspect: float) -> dict[str, bool]:
    """Trait -> whether a map that can be used, of these grey layers, has it; its image has this aspect."""
    aspects = [layer.width / layer.height for layer in layers]
    shapes = np.array([layer.resize(SHAPE_GRID, Image.Resampling.BILINEAR) for layer in layers], np.float32)
    return {
        "other aspect": any(abs(own / aspect - 1) > SAME_ASPECT for own in aspects),
        "narrow range": any(0 < np.ptp(layer.getextrema()) < NARROW for layer in layers),
        "several annotators": len(layers) > 1,
        **{kind: bool(which.any()) for kind, which in implausible_shapes(shapes).items()},
    }


def _words(traits: dict[str, bool]) -> str:
    return ";".join(word for word, found in traits.items() if found)
