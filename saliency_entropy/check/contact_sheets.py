"""Small pictures of a data set's images and human maps, to be looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image

from saliency_entropy.check.facts import image_counts
from saliency_entropy.check.scan import MapScan
from saliency_entropy.data.human_maps.loading import merged_map, open_layer
from saliency_entropy.data.images import load_image
from saliency_entropy.data.table import Manifest
from saliency_entropy.page.overlay import cam_overlay
from saliency_entropy.page.web_page import data_uri
from saliency_entropy.page.wording import printable

SIDE = 112  # pixels of a picture's side
QUALITY = 85  # of a picture's JPEG: about 4 kB for a face
CELL = 24  # pixels of a cell's side in an average map


@dataclass(frozen=True)
class Picture:
    """A picture in a page: its data URI, its width and height in pixels, what it shows, and a caption."""

    uri: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True)
class ContactSheet:
    """Pictures of some images of one kind, of which there are ``images``. ``origin`` is its generator or source; ""
    where the table names none."""

    split: str
    label: str
    origin: str
    images: int
    pictures: tuple[Picture, ...]


def contact_sheets(manifest: Manifest, scan: MapScan, images: int, seed: int, **options: Any) -> list[ContactSheet]:
    """A sheet for each combination of split, label, and generator or source.

    A picture is the image squashed to a square, as a network sees it. Where the image has a human map, the map follows,
    and then the map on the grid of the scan, laid over the image.

    Args:
        manifest: images that can be used.
        scan: the scan of their human maps; maps with a problem are left out.
        images: the largest number of images on a sheet; they are drawn at random.
        seed: seed of the draw.
        options: see :func:`~saliency_entropy.data.human_maps.loading.merged_map`.

    Raises:
        UserError: a file has changed since it was scanned, and cannot be read any more.
    """
    table = manifest.table
    origin = table["source"].where(table["label"] == "real", table["generator"])
    position = {row: at for at, (row, problem) in enumerate(scan.facts["problem"].items()) if not problem}
    sheets = []
    for number, kind in enumerate(image_counts(table).itertuples()):
        rows = table.index[(table["split"] == kind.split) & (table["label"] == kind.label) & (origin == kind.origin)]
        draw = np.random.default_rng([seed, number])
        drawn = sorted(draw.choice(rows.to_numpy(), min(images, len(rows)), replace=False).tolist())
        pictures = []
        for row in drawn:
            name, cell = table.loc[row, ["path", "human_map"]]
            caption = printable(f"{manifest.where(row)}: {name}")
            pixels = load_image(manifest.file(name), SIDE)
            if row not in position:
                pictures.append(_picture(pixels, "jpeg", f"Image of {caption}", caption))
                continue
            drawn_map = merged_map(manifest.map_files(cell), **options).resize((SIDE, SIDE))
            over = cam_overlay(pixels, scan.maps[position[row]])
            strip = np.hstack([pixels, np.asarray(drawn_map.convert("RGB")), np.asarray(over)])
            alt = f"Image, human map, and the map over the image, of {caption}"
            pictures.append(_picture(strip, "jpeg", alt, caption))
        sheets.append(ContactSheet(kind.split, kind.label, kind.origin, kind.images, tuple(pictures)))
    return sheets


def side_by_side(manifest: Manifest, rows: Sequence[int], with_maps: bool = False) -> list[Picture]:
    """Pictures of the images of these rows, with their labels and splits; on request, each beside the files of its map
    as they are stored, on grey where they are transparent."""
    pictures = []
    for row in rows:
        name, label, split, cell = manifest.table.loc[row, ["path", "label", "split", "human_map"]]
        caption = printable(f"{manifest.where(row)}: {name} ({label}, {split})")
        shown = [load_image(manifest.file(name), SIDE)]
        for file in manifest.map_files(cell)[:3] if with_maps else ():
            layer = open_layer(file).convert("RGBA").resize((SIDE, SIDE))
            shown.append(np.asarray(Image.alpha_composite(Image.new("RGBA", layer.size, "grey"), layer).convert("RGB")))
        what = "Image and human map of" if with_maps else "Image of"
        pictures.append(_picture(np.hstack(shown), "jpeg", f"{what} {caption}", caption))
    return pictures


def average_map_pictures(averages: dict[str, np.ndarray], counts: pd.Series) -> list[Picture]:
    """The maps of :func:`~saliency_entropy.check.facts.average_maps` as pictures, from dark violet (0) to yellow (1);
    ``counts`` are the numbers of maps by label."""
    pictures = []
    for label, average in averages.items():
        colours = (colormaps["plasma"](average)[..., :3] * 255).round().astype(np.uint8)
        enlarged = colours.repeat(CELL, axis=0).repeat(CELL, axis=1)
        caption = f"{label or 'all'}: mean of {counts[label]:,} {'map' if counts[label] == 1 else 'maps'}"
        pictures.append(_picture(enlarged, "png", f"Average human map, {caption}", caption))
    return pictures


def _picture(pixels: np.ndarray, kind: str, alt: str, caption: str) -> Picture:
    image = Image.fromarray(pixels)
    uri = data_uri(image, kind, **({"quality": QUALITY} if kind == "jpeg" else {"optimize": True}))
    return Picture(uri, *image.size, alt, caption)
