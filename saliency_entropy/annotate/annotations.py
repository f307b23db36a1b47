"""The folder of annotations: the drawings of every annotator, their maps, and the tables made from them."""

import hashlib
import logging
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

log = logging.getLogger(__name__)

GRID = (7, 7)  # of the paper's CAMs: a map that is constant there could train nothing
LONGEST = 2048  # pixels of the longer side of an image as it is shown


class Refused(ValueError):
    """Why something cannot be done, for the annotator, to whom it does not name the image."""


@dataclass
class Annotations:
    """All that is known of the annotations in a folder, which this process alone writes to.

    Attributes:
        manifest: of the data set, with all its images.
        folder: of the annotations.
        drawings: annotator -> image -> the drawing that was stored last, without its strokes.
    """

    manifest: Manifest
    folder: Path
    drawings: dict[str, dict[str, Drawing]] = field(default_factory=lambda: defaultdict(dict))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def images(self) -> dict[str, str]:
        """By their paths, which may tell their labels: what the browser calls them. The folder is in it, so that what a
        browser kept for one data set is never sent to another."""
        folder = self.folder.resolve()
        paths = self.manifest.table["path"]
        return {path: hashlib.sha256(f"{folder}\n{path}".encode()).hexdigest()[:16] for path in paths}

    @cached_property
    def paths(self) -> dict[str, str]:
        return {image: path for path, image in self.images.items()}

    def read(self) -> None:
        """Read what is stored. Raises UserError if a file is damaged, or if no manifest could name the maps."""
        strokes = self.folder / "strokes"
        for file in sorted(strokes.glob("*/**/*.json")):
            annotator, _, path = file.relative_to(strokes).as_posix().removesuffix(".json").partition("/")
            if path in self.images:
                self.drawings[annotator][self.images[path]] = _without_strokes(_read(file))
        self.write_tables()

    def drawing(self, annotator: str, image: str) -> Drawing | None:
        """With its strokes; None if the annotator has not begun with this image."""
        begun = image in self.drawings.get(annotator, {})
        return _read(self._strokes_file(annotator, image)) if begun else None

    def save(self, annotator: str, image: str, drawing: Drawing) -> None:
        """Store a drawing and, if it is done, its map; both are on the disk when this returns.

        Raises:
            Refused: another page went on with this image; or the drawing cannot be done yet, and is stored as open.
            UserError: the folder cannot be written to.
        """
        strokes_file, map_file = self._strokes_file(annotator, image), self._map_file(annotator, image)
        refusal, png = None, None
        if drawing.status == "done":  # drawn before others have to wait
            try:
                png = self._map(image, drawing)
            except Refused as error:
                refusal, drawing = error, drawing.model_copy(update={"status": "open"})
        with self._lock:
            known = self.drawings.get(annotator, {}).get(image)
            if known and not drawing.continues(known):
                raise Refused("this image was painted on in another window meanwhile, and stays as it is there")
            with writing(self.folder, "make room there, or give another folder with output="):
                # In an order in which a kill leaves no map beside a drawing that is done without it.
                if png:
                    write_atomically(map_file, png)
                elif map_file.is_file():
                    write_atomically(strokes_file, drawing.model_copy(update={"status": "open"}).model_dump_json())
                    map_file.unlink()
                write_atomically(strokes_file, drawing.model_dump_json())
                self.drawings[annotator][image] = _without_strokes(drawing)
                if drawing.status != "open" or (known and known.status != "open"):
                    self.write_tables()
        if refusal:
            raise refusal

    def _map(self, image: str, drawing: Drawing) -> bytes | None:
        """The map of a drawing that is done, as a PNG; None if nothing is painted."""
        if drawing.answer is None:
            raise Refused("say first whether the image is real or synthetic")
        human_map = painted(drawing.strokes, self._decoded(image).size)
        if human_map.getextrema() == (0, 0):
            return None
        try:
            on_grid(human_map, GRID, image)
        except UserError:
            raise Refused("no region stands out: paint more, or erase some of what covers everything") from None
        return _png(human_map)

    def shown(self, image: str) -> bytes:
        """The image as a PNG, upright and of at most :data:`LONGEST` pixels a side, without the format, the quality and
        the metadata of its file, which may tell its label. Raises Refused if it cannot be read."""
        decoded = self._decoded(image)
        decoded.thumbnail((LONGEST, LONGEST), Image.Resampling.BILINEAR)
        return _png(Image.frombytes("RGB", decoded.size, decoded.tobytes()))

    def _decoded(self, image: str) -> Image.Image:
        try:
            return decode(self.manifest.file(self.paths[image]), "RGB")
        except UserError as error:
            log.warning("%s", error)
            raise Refused("this image cannot be read, and the server's log says why: skip it") from None

    def maps(self) -> dict[str, dict[str, Path]]:
        """Image -> annotator -> file of the map, of what is done."""
        maps: dict[str, dict[str, Path]] = defaultdict(dict)
        for annotator, own in sorted(self.drawings.items()):
            for image, drawing in own.items():
                if drawing.status == "done" and (file := self._map_file(annotator, image)).is_file():
                    maps[image][annotator] = file
        return maps

    def agreement(self) -> pd.DataFrame:
        with self._lock:
            return agreement(self.drawings, self.maps())

    def write_tables(self) -> None:
        """Write ``manifest.csv``, ``answers.csv`` and ``agreement.csv``."""
        maps, table = self.maps(), self.relocated.table.copy()
        cells = dict(zip(self.paths, table["human_map"], strict=True))
        for image, files in maps.items():
            own = [self._below_root(file) for file in files.values()]
            cells[image] = ";".join(filter(None, [cells[image], *own]))
        table["human_map"] = list(cells.values())
        with writing(self.folder, "give another folder with output="):
            write_atomically(self.folder / "manifest.csv", table.to_csv(index=False))
            write_atomically(self.folder / "answers.csv", csv_text(self._answers()))
            write_atomically(self.folder / "agreement.csv", csv_text(agreement(self.drawings, maps)))

    def _answers(self) -> pd.DataFrame:
        labels = dict(zip(self.paths, self.manifest.table["label"], strict=True))
        rows = [
            (annotator, self.paths[image], labels[image], drawing.answer, drawing.seconds, drawing.status)
            for annotator, own in self.drawings.items()
            for image, drawing in own.items()
            if drawing.status != "open"
        ]
        return pd.DataFrame(sorted(rows), columns=["annotator", "path", "label", "answer", "seconds", "status"])

    @cached_property
    def root(self) -> Path:
        """The deepest folder that holds the data set and the annotations, the root of the manifest that is written."""
        return Path(os.path.commonpath([self.manifest.root.resolve(), self.folder.resolve()]))

    @cached_property
    def relocated(self) -> Manifest:
        """The data set with :attr:`root` as its root; raises UserError if names in it, or of maps, could not be read
        back."""
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

    def _below_root(self, path: Path) -> str:
        relative = path.resolve().relative_to(self.root)
        return relative.as_posix() if relative.parts else ""

    def _strokes_file(self, annotator: str, image: str) -> Path:
        return self.folder / "strokes" / annotator / f"{self.paths[image]}.json"

    def _map_file(self, annotator: str, image: str) -> Path:
        # The suffix of the image stays in the name: a.jpg and a.png are two images.
        return self.folder / "maps" / annotator / f"{self.paths[image]}.png"


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _read(file: Path) -> Drawing:
    try:
        return Drawing.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{file} is no drawing ({in_one_line(error)}); restore it, or move it away") from None


def _without_strokes(drawing: Drawing) -> Drawing:
    return drawing.model_copy(update={"strokes": []})
