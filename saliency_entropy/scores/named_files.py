"""The image files and the checkpoints that a command is given."""

import glob
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from saliency_entropy.data.images import EXTENSIONS
from saliency_entropy.data.table_file import read_fields, read_parquet
from saliency_entropy.errors import UserError
from saliency_entropy.run.checkpoint import best_checkpoint
from saliency_entropy.run.study_folders import visible_folders


def named_checkpoints(given: str | Sequence[str]) -> list[Path]:
    """Each checkpoint once, of a checkpoint, a run's folder, the folder of a method's runs, a pattern such as
    ``runs/demo/*/seed0``, or a list of these. A path that does not exist stays in: whoever reads it says so."""
    found: list[Path] = []
    for name in [given] if isinstance(given, str) else given:
        for path in matching(name) or [Path(name)]:
            runs = [folder for folder in visible_folders(path) if _is_run(folder)] if path.is_dir() else []
            found += [best_checkpoint(run) for run in ([path] if _is_run(path) else runs)] or [path]
    if not found:
        raise UserError("checkpoint names no file; give the best.ckpt of a run")
    return list(dict.fromkeys(found))


def _is_run(folder: Path) -> bool:
    return re.fullmatch(r"seed\d+", folder.name) is not None and best_checkpoint(folder).is_file()


def matching(pattern: str) -> list[Path]:
    """The files and folders that a pattern with ``*``, ``?``, ``[...]`` or ``**`` matches, sorted; none if it is the
    name of a file that exists, whatever letters it has."""
    if Path(pattern).exists() or not glob.has_magic(pattern):
        return []
    return sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207, Path.glob refuses an absolute one


def absolute(path: Path) -> Path:
    """The path without ``..``; not Path.resolve, since an image behind a link keeps the name that the user gave."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def listed_images(images: Path, earlier: Path, own: Sequence[str] = ()) -> tuple[list[Path], pd.DataFrame]:
    """The image files that ``images`` names.

    Args:
        images: an image, a folder, a pattern with ``*``, ``-`` (a path in each line of standard input), or a manifest:
            a CSV, or a Parquet file ending in ``.parquet``, whose paths are relative to its own folder; they may lead
            out of it, since it is the user who names the files.
        earlier: a folder of earlier results, whose files are not taken for images.
        own: columns of the predictions themselves.

    Returns:
        The files, and for each a row of the manifest's further columns, without those in ``own``.

    Raises:
        UserError: no image is named, or the manifest cannot be read.
    """
    if str(images) == "-":
        found = [Path(line) for line in sys.stdin.read().splitlines() if line.strip()]
        if not found:
            raise UserError("images=- reads the paths of images from standard input, a line each, and there was none")
        return found, pd.DataFrame()
    matches = matching(str(images))
    if images.is_dir() or matches:
        # Of a pattern, the folders count as if each were given.
        inside = [path for place in matches or [images] for path in (place.rglob("*") if place.is_dir() else [place])]
        candidates = (path for path in inside if not absolute(path).is_relative_to(absolute(earlier)))
        # A link to nothing stays in the list: it is named as broken rather than passed over.
        found = sorted({path for path in candidates if path.suffix.lower() in EXTENSIONS and not path.is_dir()})
        if not found:
            raise UserError(f"images={images} holds no image ({', '.join(EXTENSIONS)})")
        return found, pd.DataFrame()
    if not images.is_file():
        raise UserError(
            f"images={images} does not exist; give an image, a folder, a pattern that matches one, or a CSV or Parquet "
            "file with a column path"
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
    further = table[[name for name in table.columns if name not in own]]
    return [images.parent / name for name in names], further.reset_index(drop=True)
