"""The table that lists a data set, with one row for each image.

Every check names all the rows that fail it, and all checks of a kind are made at once, so that a data set is mended
in a few rounds, not row by row.
"""

import difflib
import hashlib
import os
import posixpath
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from saliency_entropy.data.group_names import spelling_problems, with_clean_names
from saliency_entropy.data.images import DataFile
from saliency_entropy.errors import UserError, listing

REQUIRED = ("path", "label", "split")
OPTIONAL = ("generator", "source", "human_map")
LABELS = ("real", "synthetic")  # the position is the class: 0 = real, 1 = synthetic
SPLITS = ("train", "val", "test")
REPEATED = ("train", "val")  # read in every epoch; the test images once
# Other words for labels and splits: allowed in a folder tree; in a table, the right word is suggested for them.
ALIASES = {"0_real": "real", "1_fake": "synthetic", "fake": "synthetic", "valid": "val", "validation": "val"}

# Also the absolute paths of Windows: C:\x, \\server\x.
LEADS_OUT = r"^/|^[A-Za-z]:|\\|(?:^|/)\.\.(?:/|$)"
# A NUL ends a file name for the system but not for Python; the others would break or forge lines of a log.
CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029]"


class Archive(Protocol):
    """What holds the files of a data set, if not a folder."""

    def file(self, name: str) -> DataFile:
        """The file that the table calls ``name``."""
        ...

    def problem(self, name: str) -> str | None:
        """Why the file cannot be used, such as "does not exist"; None if it can be used."""
        ...


@dataclass(frozen=True)
class Manifest:
    """The images of a data set.

    Attributes:
        table: columns ``path, label, split, generator, source, human_map`` (text; "" if not given), then any further
            ones; rows in the order of the file, index 0 to n - 1. A ``generator`` of the form ``a+b`` says that the
            image is by one of these two, unknown which; "" is not known. A ``human_map`` of the form ``a;b`` names the
            maps of several annotators.
        root: the folder that ``path`` and ``human_map`` are relative to.
        origin: the file, as named in messages.
        parts: for a table read from several files without headers, (file, number of rows) of each in turn.
        archive: what holds the files, if they do not lie in ``root``.
        from_file: messages name the rows of a file, which the user can look up; else they count the images.
        unread: (kind, number) of the files in a folder that are not read; a kind is an extension, "hidden" or "without
            extension".
        template_maps: column ``human_map`` names no files; "template" there stands for a template map.
        left_out: (split, column) of every image (column ``path``) and human map that :meth:`without` took out.
    """

    table: pd.DataFrame
    root: Path
    origin: str
    parts: tuple[tuple[str, int], ...] = ()
    archive: Archive | None = None
    from_file: bool = True
    unread: tuple[tuple[str, int], ...] = ()
    template_maps: bool = False
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def has_map_files(self) -> bool:
        """Whether any image has a human map that is read from a file."""
        return not self.template_maps and bool((self.table["human_map"] != "").any())

    def split(self, name: str) -> pd.DataFrame:
        """The rows of ``train``, ``val`` or ``test``; the index is the row in :attr:`table`."""
        return self.table[self.table["split"] == name]

    def without(self, broken: Sequence[tuple[int, str, str]]) -> "Manifest":
        """Without the images that are broken, and without the broken human maps of others; the index stays the row in
        the whole table.

        Args:
            broken: (row, column, reason), as of :func:`~saliency_entropy.data.listed_files.file_problems`.
        """
        cells = dict.fromkeys((row, column) for row, column, _ in broken)  # a cell may name several broken maps
        rows = {column: [row for row, of in cells if of == column] for column in ("path", "human_map")}
        table = self.table.copy()
        table.loc[rows["human_map"], "human_map"] = ""
        left_out = tuple((self.table.at[row, "split"], column) for row, column in cells)
        return replace(self, table=table.drop(index=rows["path"]), left_out=self.left_out + left_out)

    def file(self, name: str) -> DataFile:
        """The image or map that the table calls ``name``."""
        return self.archive.file(name) if self.archive else self.root / as_on_disk(self.root, name)

    def map_files(self, cell: str) -> list[DataFile]:
        """The files of a cell of column ``human_map``, one an annotator."""
        return [self.file(name) for name in map_names(cell)]

    def where(self, row: int) -> str:
        """The name of a row of :attr:`table`, numbered as in a spreadsheet: a header is row 1."""
        for file, rows in self.parts:
            if row < rows:
                return f"{file} row {row + 1}"
            row -= rows
        return f"row {row + 2}" if self.from_file else f"image {row + 1}"


def complete(manifest: Manifest) -> Manifest:
    """The manifest with all its text columns in their order, checked.

    Raises:
        UserError: :func:`table_problems`, one a line.
    """
    refuse(table_problems(manifest))
    return replace(manifest, table=_with_text_columns(manifest.table))


def refuse(problems: Sequence[str]) -> None:
    """Raises UserError with these sentences, one a line; nothing if the list is empty."""
    if problems:
        raise UserError("\n".join(problems))


def table_problems(manifest: Manifest) -> list[str]:
    """What is wrong with a table, as far as can be said without looking at the disk.

    Returns:
        One sentence for each kind of fault: the column, the rule, the rows that break it, and what to do. Looked for
        are missing columns, columns with the name of a score, a table without rows, words that are not labels or
        splits, names of groups in several spellings, and :func:`name_problems`.
    """
    columns = list(manifest.table)
    manifest = replace(manifest, table=_with_text_columns(manifest.table))
    table, origin = manifest.table, manifest.origin
    problems = []
    missing = [column for column in REQUIRED if column not in table]
    if missing:
        found = ", ".join(repr(str(column)) for column in columns) or "none"
        problems.append(
            f"{origin} has no column {' and no column '.join(missing)}; its columns are {found}; name the "
            f"columns in its first row, {', '.join(REQUIRED)} at least"
        )
    from saliency_entropy.metrics import (
        SCORES,  # here, since it loads PyTorch, for which a decoding process need not wait
    )

    taken = [column for column in SCORES if column in table]
    if taken:
        several = len(taken) > 1
        problems.append(
            f"{origin} has column{'s' if several else ''} {' and '.join(taken)}, which the score tables would "
            f"overwrite; rename {'them' if several else 'it'}"
        )
    if table.empty:
        problems.append(f"{origin} lists no image; add a row for each")
    for column, allowed in (("label", LABELS), ("split", SPLITS)):
        if column in table:
            problems += word_problems(manifest, column, allowed, "correct it")
    return problems + spelling_problems(table, origin) + name_problems(manifest)


def word_problems(manifest: Manifest, column: str, allowed: Sequence[str], remedy: str) -> list[str]:
    """A list of one sentence that names the rows whose word is not allowed, and the words that are meant; of none, if
    there is no such row."""
    words = manifest.table[column]
    if "path" in manifest.table:
        words = words[(words != "") | (manifest.table["path"] != "")]  # a blank row is named for its path
    *others, last = allowed
    rule = f"must be {', '.join(others)} or {last}" if others else f"must be {last}"
    return row_problems(manifest, column, words[~words.isin(allowed)], rule, remedy, allowed)


def name_problems(manifest: Manifest) -> list[str]:
    """The sentences of :func:`table_problems` about names that are missing, lead out of the root or are listed twice,
    and about control characters in any column."""
    table = manifest.table
    problems = []
    if "path" in table:
        empty = table["path"][table["path"] == ""]
        problems += row_problems(manifest, "path", empty, "must name a file", "fill it in, or remove the row")
    for column in ("path", "human_map"):
        if column not in table:
            continue
        names = filled_names(table[column])
        problems += row_problems(
            manifest,
            column,
            names[names.str.contains(LEADS_OUT)],
            "must be relative to the data root, written with / and without ..",
            "write / for \\, move the files under the data root, or set data.root to a folder above them",
        )
        problems += (_repeated_images if column == "path" else _repeated_maps)(manifest, names)
    for column in table.select_dtypes("str"):
        cells = table[column]
        problems += row_problems(
            manifest,
            column,
            cells[cells.str.contains(CONTROL, na=False)],
            "must be free of line breaks and other control characters",
            "rename what it names; where it holds further rows, the quote before them is not closed",
        )
    return problems


def _repeated_images(manifest: Manifest, names: pd.Series) -> list[str]:
    key = _normal(names)
    again = key.duplicated(keep=False)
    both = again & False
    if again.any() and "label" in manifest.table:
        labels = manifest.table["label"].loc[names.index]
        labels = labels.where(labels.isin(LABELS))  # another word than a label is another fault
        both = again & (labels.groupby(key).transform("nunique") > 1)
    return row_problems(
        manifest,
        "path",
        names[both],
        "must not be listed both as real and as synthetic",
        "keep the row that is right",
    ) + row_problems(manifest, "path", names[again & ~both], "must be listed once", "remove the repeated rows")


def _repeated_maps(manifest: Manifest, names: pd.Series) -> list[str]:
    again = pd.DataFrame({"row": names.index, "name": _normal(names).array}).duplicated(keep=False).to_numpy()
    return row_problems(
        manifest, "human_map", names[again], "must name each map of an image once", "remove the repetition"
    )


def row_problems(
    manifest: Manifest, column: str, found: pd.Series, rule: str, remedy: str, allowed: Sequence[str] = ()
) -> list[str]:
    """A list of one sentence that names the rows that break a rule, and the values ``found`` in them; of none, if there
    is no such row. The nearest of the words that are ``allowed`` is suggested."""
    if found.empty:
        return []
    listed = (f"{manifest.where(row)} has {value!r}{suggestion(value, allowed)}" for row, value in found.items())
    return [f"{manifest.origin}: column {column} {rule}: {listing(listed, len(found))}; {remedy}"]


def suggestion(word: str, allowed: Sequence[str]) -> str:
    """A parenthesis that names the allowed word that is meant; "" if none is near enough."""
    by_lower_case = {known.lower(): known for known in allowed}
    lower = word.strip().lower()
    near = difflib.get_close_matches(ALIASES.get(lower, lower), by_lower_case, 1, cutoff=0.7)
    return f" (did you mean {by_lower_case[near[0]]}?)" if near else ""


def map_names(cell: str) -> list[str]:
    """The names in a cell of column ``human_map``, which are separated by ``;``."""
    return [name for name in map(str.strip, cell.split(";")) if name]


def as_on_disk(root: Path | str, name: str) -> str:
    """The name in the Unicode form that the disk has it in: macOS, and archives made there, write accents apart (NFD).
    The table keeps its own, so that a data set is the same on every disk."""
    if name.isascii():
        return name
    parts: list[str] = []
    for part in name.split("/"):
        forms = (part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")))
        parts.append(next((form for form in forms if os.path.lexists(os.path.join(root, *parts, form))), part))  # noqa: PTH118
    return "/".join(parts)


def _with_text_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of a manifest as text and in their order, the optional ones added, then the further ones; all as
    :func:`~saliency_entropy.data.group_names.with_clean_names`."""
    text = {name: table[name].astype("str").fillna("") for name in REQUIRED + OPTIONAL if name in table}
    for name in OPTIONAL:
        text.setdefault(name, pd.Series("", table.index, dtype="str"))
    for name in ("label", "split"):
        if name in text:
            text[name] = text[name].str.strip()
    cells = text["human_map"]
    lists = cells.str.contains(r";|^\s|\s$")
    text["human_map"] = cells.mask(lists, cells[lists].map(lambda cell: ";".join(map_names(cell))).astype("str"))
    further = table.drop(columns=list(text), errors="ignore")
    table = pd.concat([pd.DataFrame(text)[[name for name in REQUIRED + OPTIONAL if name in text]], further], axis=1)
    return with_clean_names(table)


def filled_names(cells: pd.Series) -> pd.Series:
    """Every name in a column of files; the index is its row. Column ``human_map`` has several in a cell."""
    cells = cells[cells != ""]
    if cells.name == "path":
        return cells
    lists = cells.str.contains(";", regex=False)
    return cells.map(map_names).explode().astype("str") if lists.any() else cells


def _normal(names: pd.Series) -> pd.Series:
    """One spelling for all spellings of a path."""
    odd = names.str.contains(r"//|(?:^|/)\./|/$")
    return names.where(~odd, names[odd].map(posixpath.normpath)).str.normalize("NFC")


def images_hash(paths: Sequence[str], digests: np.ndarray) -> str:
    """16 hex digits that the same images share under the same names, wherever they lie and in any order; "" if one of
    the ``(N,)`` ``FaceDataset.digests`` is not known."""
    if not np.all(digests):
        return ""
    images = pd.DataFrame({"path": np.asarray(paths, dtype=object), "digest": digests})
    rows = np.sort(pd.util.hash_pandas_object(images, index=False).to_numpy())
    return hashlib.sha256(rows.tobytes()).hexdigest()[:16]


def data_hash(table: pd.DataFrame) -> str:
    """16 hex digits that two manifests share when their tables are the same, row by row."""
    rows = pd.util.hash_pandas_object(table.astype("str"), index=False)
    return hashlib.sha256(rows.to_numpy().tobytes()).hexdigest()[:16]
