"""Scores, focus entropy and CAM overlays of image files."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from saliency_entropy.data.images import EXTENSIONS
from saliency_entropy.data.table_file import read_fields, read_parquet
from saliency_entropy.detector import Detection, Detector
from saliency_entropy.errors import UserError, in_one_line, is_no_room, listing, whole_number, writing
from saliency_entropy.page.overlay import cam_overlay
from saliency_entropy.page.wording import count, csv_text
from saliency_entropy.run.whole_files import write_atomically

log = logging.getLogger(__name__)

FIGURES = ("probability_synthetic", "logit_real", "logit_synthetic", "cam_entropy", "focus_area")  # of a Detection
COLUMNS = ("path", "error", "verdict", *FIGURES)
SHOWN = ["path", "verdict", "probability_synthetic", "cam_entropy", "focus_area", "error"]


def predict(cfg: DictConfig) -> None:
    """Judge ``cfg.images`` with ``cfg.checkpoint`` and write ``predictions.csv`` and overlays below ``cfg.output``.

    Raises:
        UserError: the checkpoint, the images or the output folder cannot be used; images that have no score, and
            overlays that cannot be written, are counted after all others are written.
    """
    images, output = Path(str(cfg.images)), Path(str(cfg.output))
    whole_number("batch_size", cfg.batch_size, 1)
    paths, further = listed_images(images, output / "overlays")
    detector = Detector.from_checkpoint(str(cfg.checkpoint), cfg.device)
    base = images if images.is_dir() else images.parent
    overlays = _overlay_paths(paths, base, output / "overlays") if cfg.overlays else [None] * len(paths)
    with writing(f"output={output}", "set it to a folder that you may write to"):
        (output / "overlays" if cfg.overlays else output).mkdir(parents=True, exist_ok=True)
        broken, unwritten, rows = _judge(detector, paths, overlays, cfg.batch_size)
        table = pd.concat([pd.DataFrame(rows), further], axis=1)
        write_atomically(output / "predictions.csv", csv_text(table))
    shown = table[[name for name in SHOWN if name in table]].head(20)
    log.info("%s", shown.map(lambda cell: _one_line(cell) if isinstance(cell, str) else cell).to_string())
    if len(table) > 20:
        log.info("... %d more images", len(table) - 20)
    log.info("written: %s", output)
    problems = []
    if broken:
        first = _one_line(broken[0])
        problems.append(f"{len(broken)} of {len(paths)} images have no score, the first of them: {first}")
    if unwritten:
        named = listing(map(_one_line, unwritten))
        problems.append(
            f"{count(len(unwritten), 'overlay')} could not be written: {named}; rename their images, or set output="
        )
    if problems:
        raise UserError("; ".join(problems))


def _judge(
    detector: Detector, paths: list[Path], overlays: Sequence[Path | None], batch_size: int
) -> tuple[list[str], list[str], list[dict[str, object]]]:
    """Why images have no score, and why overlays could not be written, for each of these; and a row of the table for
    each path."""
    rows: list[dict[str, object]] = []
    broken: list[str] = []
    unwritten: list[str] = []
    for (path, pixels, detection), overlay in zip(detector.judge(paths, batch_size), overlays, strict=True):
        if not isinstance(detection, Detection):
            broken.append(detection)
            rows.append({"path": _encodable(str(path)), "error": _encodable(detection)})
            continue
        figures = {name: getattr(detection, name) for name in ("verdict", *FIGURES)}
        rows.append({"path": _encodable(str(path))} | figures)
        if overlay is not None:
            try:
                overlay.parent.mkdir(parents=True, exist_ok=True)
                cam_overlay(pixels, detection.cam).save(overlay)
            except OSError as error:
                if is_no_room(error):
                    raise
                unwritten.append(f"{overlay} ({error.strerror or in_one_line(error)})")
    return broken, unwritten, rows


def _overlay_paths(paths: list[Path], base: Path, folder: Path) -> list[Path]:
    """The overlays' files: below ``folder`` as the images lie below ``base`` or, if a manifest leads out of that, below
    the deepest folder that holds them all. So no overlay is outside ``folder``, and no two images share one."""
    absolute = [_absolute(path) for path in paths]
    common = Path(os.path.commonpath([_absolute(base), *(path.parent for path in absolute)]))
    # The suffix stays in the name: a.jpg and a.png are two images.
    return [folder / path.parent.relative_to(common) / f"{path.name}.png" for path in absolute]


def _absolute(path: Path) -> Path:
    """The path without ``..``; not Path.resolve, since an image behind a link keeps the name that the user gave."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def listed_images(images: Path, earlier: Path) -> tuple[list[Path], pd.DataFrame]:
    """The files that ``images`` names: itself, the images below a folder, or column ``path`` of a manifest.

    Args:
        images: an image, a folder, or a manifest: a CSV, or a Parquet file ending in ``.parquet``. Its paths are
            relative to its own folder; they may lead out of it, since it is the user who names the files.
        earlier: a folder of earlier results, whose files are not taken for images.

    Returns:
        The files, and for each a row of the manifest's further columns; columns that the predictions have themselves
        are left out.

    Raises:
        UserError: no image is named, or the manifest cannot be read.
    """
    if images.is_dir():
        candidates = (path for path in images.rglob("*") if not _absolute(path).is_relative_to(_absolute(earlier)))
        # A link to nothing stays in the list: it is named as broken rather than passed over.
        found = sorted(path for path in candidates if path.suffix.lower() in EXTENSIONS and not path.is_dir())
        if not found:
            raise UserError(f"images={images} holds no image ({', '.join(EXTENSIONS)})")
        return found, pd.DataFrame()
    if not images.is_file():
        raise UserError(
            f"images={images} does not exist; give an image, a folder, or a CSV or Parquet file with a column path"
        )
    if images.suffix.lower() not in (".csv", ".parquet"):
        return [images], pd.DataFrame()
    if images.suffix.lower() == ".parquet":
        table = read_parquet(images)
    else:
        table = read_fields(images)
        table = table.iloc[1:].set_axis(table.iloc[0].str.strip(), axis=1) if len(table) else table
    if list(table.columns).count("path") != 1:
        named = ", ".join(repr(str(name)) for name in table.columns)
        raise UserError(f"{images} needs one column path (its columns: {named})")
    if table.empty:
        raise UserError(f"{images} lists no image; add a row for each")
    names = table["path"].astype("str").fillna("")
    if (names == "").any():
        row = int((names == "").to_numpy().argmax()) + 2
        raise UserError(f"{images}: row {row} has no path; fill it in, or remove the row")
    further = table[[name for name in table.columns if name not in COLUMNS]]
    return [images.parent / name for name in names], further.reset_index(drop=True)


def _one_line(text: str) -> str:
    """The text, fit for a terminal: a file name may hold line breaks and escape sequences."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _encodable(text: str) -> str:
    """The text, fit for UTF-8, which cannot hold the bytes of a file name in another encoding."""
    return text.encode(errors="backslashreplace").decode()
