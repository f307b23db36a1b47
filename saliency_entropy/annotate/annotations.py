"""The folder of annotations: the drawings of every annotator, their maps, and the tables made from them."""

import hashlib
import os
import posixpath
import threading
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path

import pandas as pd
from PIL import Image
from pydantic import ValidationError

from saliency_entropy.annotate.agreement import agreement
from saliency_entropy.annotate.drawing import Drawing, painted
from saliency_entropy.data.human_maps.loading import on_grid
from saliency_entropy.data.images import decode
from saliency_entropy.data.table import Manifest, complete, map_names
from saliency_entropy.errors import UserError, in_one_line, writing
from saliency_entropy.page.wording import csv_text
from saliency_entropy.run.whole_files import write_atomically

GRID = (7, 7)  # of the paper's CAMs: a map that is constant there could train nothing
REMEDY = "make room there, or give another folder with output="
HELD = ("answer", "seconds", "status")  # of a drawing, in answers.csv


class Refused(ValueError):
    """A drawing that cannot be taken; the sentence says why to the annotator."""


@dataclass
class Annotations:
    """All that is known of the annotations in a folder, which this process alone writes to.

    Attributes:
        manifest: of the data set, with all its images.
        paths: of its images, by the names that the browser knows them by, see :func:`image_name`.
        folder: of the annotations.
        drawings: annotator -> image -> the state that was stored last, without its strokes.
    """

    manifest: Manifest
    paths: dict[str, str]
    folder: Path
    drawings: dict[str, dict[str, Drawing]] = field(default_factory=lambda: defaultdict(dict))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> None:
        """Read what is stored. Raises UserError if a file is damaged, or the manifest could not be trained on."""
        images = {path: image for image, path in self.paths.items()}
        strokes = self.folder / "strokes"
        for file in sorted(strokes.glob("*/**/*.json")):
            annotator, _, path = file.relative_to(strokes).as_posix().removesuffix(".json").partition("/")
            if path in images:
                self.drawings[annotator][images[path]] = _without_strokes(_read(file))
        self.write_tables()

    def strokes_file(self, annotator: str, path: str) -> Path:
        return self.folder / "strokes" / annotator / f"{path}.json"

    def map_file(self, annotator: str, path: str) -> Path:
        """The suffix of the image stays in the name: a.jpg and a.png are two images."""
        return self.folder / "maps" / annotator / f"{path}.png"

    def drawing(self, annotator: str, image: str) -> Drawing | None:
        """With its strokes; None if the annotator has not begun with this image."""
        known = image in self.drawings.get(annotator, {})
        return _read(self.strokes_file(annotator, self.paths[image])) if known else None

    def save(self, annotator: str, image: str, drawing: Drawing) -> None:
        """Store a drawing and, if it is done, its map; both are on the disk when this returns.

        Raises:
            Refused: another page went on with this image; it is done without an answer; or too much or too little is
                painted for a map.
            UserError: the folder cannot be written to.
        """
        path = self.paths[image]
        strokes_file, map_file = self.strokes_file(annotator, path), self.map_file(annotator, path)
        with self._lock:
            known = self.drawings[annotator].get(image)
            if known and not drawing.continues(known):
                raise Refused("this image was painted on in another window meanwhile, which is what is kept")
            png = self._map(path, drawing) if drawing.status == "done" else None
            with writing(self.folder, REMEDY):
                # In this order, since the tables name only the maps of drawings that are done.
                if png:
                    write_atomically(map_file, png)
                write_atomically(strokes_file, drawing.model_dump_json())
                if not png:
                    map_file.unlink(missing_ok=True)
                self.drawings[annotator][image] = _without_strokes(drawing)
                if drawing.status != "open" or (known and known.status != "open"):
                    self.write_tables()

    def _map(self, path: str, drawing: Drawing) -> bytes | None:
        """The map of a drawing that is done, as a PNG; None if nothing is painted."""
        if drawing.answer is None:
            raise Refused("say first whether the image is real or synthetic")
        image = painted(drawing.strokes, decode(self.manifest.file(path), "RGB").size)
        if image.getextrema() == (0, 0):
            return None
        try:
            on_grid(image, GRID, path)
        except UserError:
            raise Refused(
                "so much or so little is painted that no region stands out: erase some, or paint more"
            ) from None
        file = BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    def maps(self) -> dict[str, dict[str, Path]]:
        """The maps of drawings that are done: image -> annotator -> file."""
        maps: dict[str, dict[str, Path]] = defaultdict(dict)
        for annotator, own in sorted(self.drawings.items()):
            for image, drawing in own.items():
                if drawing.status == "done" and (file := self.map_file(annotator, self.paths[image])).is_file():
                    maps[image][annotator] = file
        return maps

    def agreement(self) -> pd.DataFrame:
        with self._lock:
            return agreement(self.drawings, self.maps())

    def write_tables(self) -> None:
        """Write ``manifest.csv``, ``answers.csv`` and ``agreement.csv``."""
        maps, table = self.maps(), self.relocated.table.copy()
        cells = dict(zip(self.manifest.table["path"], table["human_map"], strict=True))
        place = self._below_root(self.folder)
        for image, files in maps.items():
            own = [f"{place}/{file.relative_to(self.folder).as_posix()}" for file in files.values()]
            cells[self.paths[image]] = ";".join([*filter(None, [cells[self.paths[image]]]), *own])
        table["human_map"] = list(cells.values())
        with writing(self.folder, REMEDY):
            write_atomically(self.folder / "manifest.csv", table.to_csv(index=False))
            write_atomically(self.folder / "answers.csv", csv_text(self.answers()))
            write_atomically(self.folder / "agreement.csv", csv_text(agreement(self.drawings, maps)))

    @cached_property
    def relocated(self) -> Manifest:
        """The data set with the deepest folder that holds its root and the annotations as its root; raises UserError if
        a name in it, or that of a map, could not be read back."""
        place = self._below_root(self.manifest.root)
        table = self.manifest.table.copy()
        table["path"] = [posixpath.join(place, path) for path in table["path"]]
        table["human_map"] = [
            ";".join(posixpath.join(place, name) for name in map_names(cell)) for cell in table["human_map"]
        ]
        if ";" in self._below_root(self.folder) or table["path"].str.contains(";").any():
            raise UserError(
                f"the names of images and output={self.folder} must be free of ';', which separates maps; rename them"
            )
        return complete(replace(self.manifest, table=table, root=self.root, origin=str(self.folder / "manifest.csv")))

    @cached_property
    def root(self) -> Path:
        """The deepest folder that holds the data set and the annotations."""
        return Path(os.path.commonpath([self.manifest.root.resolve(), self.folder.resolve()]))

    def _below_root(self, folder: Path) -> str:
        name = folder.resolve().relative_to(self.root).as_posix()
        return "" if name == "." else name

    def answers(self) -> pd.DataFrame:
        """One row for each annotator and image that is done or skipped, with the image's true label."""
        labels = self.manifest.table.set_index("path")["label"]
        rows = [
            {"annotator": annotator, "path": self.paths[image], "label": labels[self.paths[image]]}
            | {key: getattr(drawing, key) for key in HELD}
            for annotator, own in sorted(self.drawings.items())
            for image, drawing in own.items()
            if drawing.status != "open"
        ]
        return pd.DataFrame(rows, columns=["annotator", "path", "label", *HELD])


def image_name(path: str) -> str:
    """What the browser knows an image by: its path may tell its label."""
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def shown_image(manifest: Manifest, path: str, most: int = 2048) -> bytes:
    """The image as a PNG, upright, its longer side scaled down to ``most`` pixels.

    Written anew, since the format, the quality and the metadata of a file may tell its label. Raises UserError as
    :func:`~saliency_entropy.data.images.decode`.
    """
    image = decode(manifest.file(path), "RGB")
    image.thumbnail((most, most), Image.Resampling.BILINEAR)
    file = BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _read(file: Path) -> Drawing:
    try:
        return Drawing.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(
            f"{file} cannot be read as a drawing ({in_one_line(error)}); restore it, or move it away"
        ) from None


def _without_strokes(drawing: Drawing) -> Drawing:
    return drawing.model_copy(update={"strokes": []})
