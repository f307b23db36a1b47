"""The table that lists a data set: one row an image.

Reading a manifest checks the table only; :func:`check_files` looks at the disk, :func:`check_images` into the files.
Every check names all the rows that fail it, so that a data set is mended in a few rounds, not row by row.
"""

import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import pandas as pd

from saliency_entropy.data.human_maps import load_human_map
from saliency_entropy.data.images import DataFile, check_header, check_pixels
from saliency_entropy.errors import UserError, in_one_line

REQUIRED = ("path", "label", "split")
OPTIONAL = ("generator", "source", "human_map")
LABELS = ("real", "synthetic")  # the position is the class: 0 = real, 1 = synthetic
SPLITS = ("train", "val", "test")
# What a score table adds to the manifest's columns.
SCORES = ("logit_real", "logit_synthetic", "cam_entropy", "cam_human_mse", "cam_human_correlation")
# More would fill the screen; the rest are counted.
SHOWN = 20

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Manifest:
    """The images of a data set.

    Attributes:
        table: columns ``path, label, split, generator, source, human_map`` (text; "" where there is none), then any
            further; rows in the order of the file, index 0 to n - 1. A ``generator`` of the form ``a+b`` says that
            the image is by one of these, it is not known which.
        root: the folder that ``path`` and ``human_map`` are relative to.
        origin: the file, as named in messages.
        parts: for a table read from several files without headers, (file, number of rows) of each in turn.
    """

    table: pd.DataFrame
    root: Path
    origin: str
    parts: tuple[tuple[str, int], ...] = ()

    def split(self, name: str) -> pd.DataFrame:
        """The rows of ``train``, ``val`` or ``test``; the index is the row in :attr:`table`."""
        return self.table[self.table["split"] == name]

    def file(self, name: str) -> DataFile:
        """The image or map that the table calls ``name``."""
        return self.root / name

    def map_files(self, cell: str) -> list[DataFile]:
        """The files of a cell of column ``human_map``, one an annotator: their names are separated by ``;``."""
        return [self.file(name) for name in map(str.strip, cell.split(";")) if name]

    def where(self, row: int) -> str:
        """A row of :attr:`table` as a spreadsheet numbers it: the header, where there is one, is row 1."""
        for file, rows in self.parts:
            if row < rows:
                return f"{file} row {row + 1}"
            row -= rows
        return f"row {row + 2}"


def read_manifest(path: str | Path, root: str | Path | None = None) -> Manifest:
    """Read and check a manifest, a CSV (UTF-8) or Parquet file with a header.

    Args:
        path: the file; Parquet if it ends in ``.parquet``.
        root: the folder that the paths in it are relative to; the manifest's own, if not given.

    Returns:
        The manifest. Values are never interpreted: ``=cmd()`` or ``NA`` are text like any other.

    Raises:
        UserError: the file cannot be read, a column is missing, or rows are wrong: all of them are named.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    check_root(root)
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; a data set needs a manifest there, with the columns {', '.join(REQUIRED)}"
        )
    table = read_parquet(path) if path.suffix == ".parquet" else _named_columns(read_fields(path), path)
    return complete(Manifest(table.reset_index(drop=True), root, str(path)))


def complete(manifest: Manifest) -> Manifest:
    """The manifest with all its text columns in their order, checked.

    Raises:
        UserError: a column is missing or has the name of a score, there is no row, or rows are wrong: all of them
            are named.
    """
    table = manifest.table
    missing = [column for column in REQUIRED if column not in table]
    if missing:
        found = ", ".join(repr(str(column)) for column in table) or "none"
        raise UserError(
            f"{manifest.origin} has no column {' and no column '.join(missing)}; its columns are {found}; name the "
            f"columns in its first row, {', '.join(REQUIRED)} at least"
        )
    taken = [column for column in SCORES if column in table]
    if taken:
        columns = f"column{'s' if len(taken) > 1 else ''} {' and '.join(taken)}"
        raise UserError(
            f"{manifest.origin} has {columns}, which the score tables would overwrite; rename "
            f"{'them' if len(taken) > 1 else 'it'}"
        )
    if table.empty:
        raise UserError(f"{manifest.origin} lists no image; add a row for each")
    text = {name: _text(table[name]) if name in table else _text(pd.Series("", table.index))
            for name in REQUIRED + OPTIONAL}  # fmt: skip
    further = table.drop(columns=list(text), errors="ignore")
    manifest = Manifest(
        pd.concat([pd.DataFrame(text), further], axis=1), manifest.root, manifest.origin, manifest.parts
    )
    _check_table(manifest)
    return manifest


def check_root(root: Path) -> None:
    """Raises UserError if the data root is not a folder."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root={root} {what}; set data.root to the folder that holds the data set")


def check_files(manifest: Manifest) -> None:
    """Every image and human map is a file that is not empty and lies, links followed, inside the root.

    Raises:
        UserError: names all rows whose file is not.
    """
    root = manifest.root.resolve()
    for column, kind in (("path", "an image"), ("human_map", "a human map")):
        names = manifest.table[column]
        names = names[names != ""]
        # Links are followed once per folder, not once per file: 720,000 files lie in a few folders.
        folders = {folder: (root / folder).resolve() for folder in {posixpath.dirname(name) for name in names}}

        def reason(name: str, folders: dict[str, Path] = folders) -> str | None:
            folder = folders[posixpath.dirname(name)]
            if not folder.is_relative_to(root):
                return "lies outside the data root"
            file = os.path.join(folder, posixpath.basename(name))  # noqa: PTH118 (ten times faster than Path)
            try:
                status = os.lstat(file)
                if stat.S_ISLNK(status.st_mode):
                    if not Path(file).resolve().is_relative_to(root):
                        return "is a link out of the data root"
                    status = os.stat(file)  # noqa: PTH116
            except FileNotFoundError:
                return "does not exist"
            except OSError as error:
                return f"cannot be looked at ({error.strerror})"
            if not stat.S_ISREG(status.st_mode):
                return "is not a file"
            return None if status.st_size else "is empty (0 bytes)"

        _refuse_failed(
            manifest,
            column,
            each(reason, names, thread_count()),
            f"must name {kind} under {manifest.root}",
            "copy the missing files there, or remove the rows",
        )


def check_images(
    manifest: Manifest, splits: Sequence[str], decode: bool, grid: tuple[int, int], workers: int | None = None
) -> None:
    """Open every image and human map of some splits before they are needed.

    Args:
        manifest: what to look at.
        splits: of ``train``, ``val``, ``test``.
        decode: decode every pixel (finds truncated files and constant maps), or read the headers only (a few times
            faster).
        grid: ``(h, w)``, the CAM grid, on which no human map may be constant, in cells.
        workers: threads; all cores that this process may use, if not given.

    Raises:
        UserError: names all the files that cannot be used, their rows and the reasons.
    """
    broken = [failure for split in splits for failure in broken_images(manifest, split, decode, grid, workers)]
    refuse_broken(manifest, broken)


def broken_images(
    manifest: Manifest,
    split: str,
    decode: bool,
    grid: tuple[int, int],
    workers: int | None = None,
    maps: bool = True,
) -> list[tuple[int, str]]:
    """(row, reason) of every image and (if ``maps``) human map of a split that cannot be used: :func:`check_images`."""
    table = manifest.split(split)

    def reason(column: str, name: str) -> str | None:
        try:
            if not decode:
                check_header(manifest.file(name))
            elif column == "human_map":
                load_human_map(manifest.map_files(name), grid)
            else:
                check_pixels(manifest.file(name))
        except UserError as error:
            return str(error)
        return None

    broken = []
    for column in ("path", "human_map") if maps else ("path",):
        names = table[column][table[column] != ""]
        reasons = each(partial(reason, column), names, workers or thread_count())
        broken += [(row, why) for row, why in zip(names.index, reasons, strict=True) if why]
    return sorted(broken)


def refuse_broken(manifest: Manifest, broken: list[tuple[int, str]]) -> None:
    """Raises UserError naming all of these (row, reason); nothing if there is none."""
    if broken:
        raise UserError(
            f"{manifest.origin}: {len(broken)} {'file' if len(broken) == 1 else 'files'} cannot be used: "
            + listing(f"{manifest.where(row)}: {why}" for row, why in broken)
        )


def listing(items: Iterable[str]) -> str:
    """The first :data:`SHOWN` items, the others counted."""
    items = list(items)
    more = f"; and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return "; ".join(items[:SHOWN]) + more


def each(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """``function`` of every item in turn, in threads: the disk and Pillow's decoders do not hold Python's lock."""
    items = list(items)
    size = 64  # a task for each item would cost more than a look at its file
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(workers) as pool:
        for results in pool.map(lambda chunk: [function(item) for item in chunk], chunks):
            yield from results


def thread_count() -> int:
    """The cores that this process may use, which on a cluster are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_fields(path: Path) -> pd.DataFrame:
    """All fields of a CSV file as text, its first row like the others; blank lines at its end are left out.

    Raises:
        UserError: the file is empty, not UTF-8, or a row has more fields than the first.
    """
    with _reading(path):
        # header=None: with a header, pandas takes the first fields of longer rows for an index, and renames a column
        # that occurs twice. Blank lines are kept, for the row numbers.
        fields = pd.read_csv(
            path, header=None, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig"
        )
    fields = fields.fillna("")  # fields that a short row lacks
    filled = (fields != "").any(axis=1).to_numpy().nonzero()[0]
    return fields.iloc[: filled[-1] + 1 if len(filled) else 0]


def read_parquet(path: Path) -> pd.DataFrame:
    """Raises UserError if the file cannot be read."""
    with _reading(path):
        return pd.read_parquet(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty; copy it again") from None
    except PermissionError:
        raise UserError(f"{path} may not be read (permission denied); give yourself read access") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); save it as CSV UTF-8") from None
    except (ValueError, OSError) as error:  # the errors of pandas and pyarrow are ValueErrors
        why = in_one_line(error, None)
        raise UserError(f"{path} cannot be read as a table ({why}); save it as CSV or Parquet again") from None


def _named_columns(fields: pd.DataFrame, path: Path) -> pd.DataFrame:
    names = [name.strip() for name in fields.iloc[0]] if len(fields) else []
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path} has two columns named {' and '.join(map(repr, twice))}; rename one")
    return fields.iloc[1:].set_axis(names, axis=1) if names else fields


def _text(values: pd.Series) -> pd.Series:
    return values.astype("str").fillna("")


def _check_table(manifest: Manifest) -> None:
    table = manifest.table
    refuse_rows(manifest, "path", table["path"] == "", "must name a file", "fill it in, or remove the row")
    for column, allowed in (("label", LABELS), ("split", SPLITS)):
        words = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
        refuse_rows(manifest, column, ~table[column].isin(allowed), f"must be {words}", "correct it")
    for column in ("path", "human_map"):
        names = table[column]
        refuse_rows(
            manifest,
            column,
            # Also of Windows: C:\\x, \\\\server\\x. A NUL ends a file name for the system but not for Python.
            names.str.contains(r"^/|^[A-Za-z]:|\\|\x00|(?:^|/)\.\.(?:/|$)"),
            "must be relative to the data root, written with / and without ..",
            "move the files under the data root, or set data.root to a folder above them",
        )
    key = table["path"]
    odd = key.str.contains(r"//|(?:^|/)\./|/$")  # other spellings of the same path
    key = key.where(~odd, key[odd].map(posixpath.normpath))
    again = key.duplicated(keep=False)
    both = again & (table["label"].groupby(key).transform("nunique") > 1) if again.any() else again
    refuse_rows(
        manifest, "path", both, "must not be listed both as real and as synthetic", "keep the row that is right"
    )
    refuse_rows(manifest, "path", again, "must be listed once", "remove the repeated rows")


def refuse_rows(manifest: Manifest, column: str, wrong: pd.Series, rule: str, remedy: str) -> None:
    """Raises UserError naming the rows where ``wrong`` is true; nothing if there is none."""
    rows = wrong.to_numpy().nonzero()[0]
    if len(rows):
        values = manifest.table[column]
        found = listing(f"{manifest.where(int(row))} has {values.iloc[row]!r}" for row in rows)
        raise UserError(f"{manifest.origin}: column {column} {rule}: {found}; {remedy}")


def _refuse_failed(manifest: Manifest, column: str, reasons: Iterable[str | None], rule: str, remedy: str) -> None:
    """Raises UserError if there is a reason; the reasons are those of the rows whose column is filled."""
    names = manifest.table[column]
    names = names[names != ""]
    failed = [(row, name, why) for row, name, why in zip(names.index, names, reasons, strict=True) if why]
    if failed:
        found = listing(f"{manifest.where(row)}, {name!r}, {why}" for row, name, why in failed)
        raise UserError(f"{manifest.origin}: column {column} {rule}: {found}; {remedy}")
