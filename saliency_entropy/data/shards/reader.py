"""A data set in tar shards, for sets too large for one folder or disk.

:mod:`saliency_entropy.data.shards.writer` writes such a folder, which any WebDataset reader can read:
``manifest.parquet`` and ``images-<plan>-000000.tar``, ``-000001.tar`` and so on. The names hold a hash of what was to
be written: shards of other data have other names, even if they have the same sizes. Besides its own columns, the
manifest's table has those of :data:`INDEX`, which say where the image of a row and its human maps lie.

Training shuffles over the whole set, so a shard is never read from its beginning to its end: a file is read where the
index says, if the header there is that of the file.

Shards of other origin, without a manifest, are searched once, header by header, each time they are opened.
"""

import filecmp
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from saliency_entropy.cpu.cores import each, thread_count
from saliency_entropy.data.shards.member import Member, Shard
from saliency_entropy.data.shards.scan import described, scan
from saliency_entropy.data.table import Manifest, complete, map_names, refuse
from saliency_entropy.data.table_file import refuse_many_rows
from saliency_entropy.errors import UserError, in_one_line, listing
from saliency_entropy.run.console import typed

log = logging.getLogger(__name__)

MANIFEST = "manifest.parquet"
PLAN = "plan.json"  # of the writer; without a manifest beside it, not all shards are written
# The shard of a row, the shard's size in bytes, and the row's members: its image, then its human maps.
INDEX = {
    "__shard__": pa.string(),
    "__shard_bytes__": pa.int64(),
    "__members__": pa.list_(pa.struct({"name": pa.string(), "offset": pa.int64(), "bytes": pa.int64()})),
}
# A name without the plan does not say to which data its shard belongs.
SHARD_NAME = re.compile(r"images-[0-9a-f]{8}-\d{6,}\.tar", re.ASCII)
LOOKS_LIKE_A_SHARD = re.compile(r"[^.].*\.(tar|tar\.\w+|tgz)", re.IGNORECASE | re.DOTALL)


class ShardArchive:
    """The files of a data set, found by the names that its table gives them.

    It holds arrays, not an object for each file: forked workers would copy 700,000 objects by counting references.

    Args:
        names: of the files in the table. A file that is named several times is the same each time.
        shard: of each file, its place in ``shards``.
        members: the name of each file in its shard.
        offsets: where the content of each file begins in its shard, in bytes.
        sizes: in bytes.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        names: Sequence[str],
        shard: np.ndarray,
        members: pa.Array,
        offsets: np.ndarray,
        sizes: np.ndarray,
    ) -> None:
        self.shards = tuple(shards)
        hashes = np.fromiter(map(_hash, names), np.uint64, len(names))
        self._names = pa.array(names, pa.large_string())
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._shard = np.asarray(shard, dtype=np.int32)
        self._members = members
        self._offsets = np.asarray(offsets, dtype=np.int64)
        self._sizes = np.asarray(sizes, dtype=np.int64)

    def file(self, name: str) -> Member:
        """The file that the table calls ``name``; raises UserError if no shard has it."""
        place = self._place(name)
        if place is None:
            raise UserError(f"{name!r} is in no shard of the data set")
        return Member(
            self.shards[self._shard[place]],
            self._members[place].as_py(),
            int(self._offsets[place]),
            int(self._sizes[place]),
        )

    def problem(self, name: str) -> str | None:
        """Why the file cannot be used; None if it can be used."""
        place = self._place(name)
        if place is None:
            return "does not exist"
        return None if self._sizes[place] else "is empty (0 bytes)"

    def _place(self, name: str) -> int | None:
        wanted = _hash(name)
        at = int(self._hashes.searchsorted(wanted))
        # Two names may have the same hash.
        while at < len(self._hashes) and self._hashes[at] == wanted:
            place = int(self._order[at])
            if self._names[place].as_py() == name:
                return place
            at += 1
        return None


def read_shards(folders: str | Path | Sequence[str | Path]) -> Manifest:
    """The manifest of a data set in shards, which may be spread over several folders.

    Args:
        folders: all are searched for the manifest and for every shard. The copies of a shard in several folders are
            compared, byte for byte, each time. If no folder has a manifest, the data set is all shards in them, in the
            order of their names, each sample as :func:`~saliency_entropy.data.shards.scan.described`.

    Returns:
        The manifest, checked like any other; its table is the one that was written.

    Raises:
        UserError: a folder or the manifest cannot be read; shards are missing, differ from one folder to another, or
            are not those that the manifest was written with: all are named; the index is not in order, or as
            :func:`~saliency_entropy.data.table.complete`.
    """
    folders = [Path(folder) for folder in ([folders] if isinstance(folders, str | Path) else folders)]
    if not folders:
        raise UserError("data.source.folders is empty; name the folders that hold the shards")
    files = [file for folder in folders for file in _files(folder)]
    manifests = [file for file in files if file.name == MANIFEST]
    for other in manifests[1:]:
        if not filecmp.cmp(manifests[0], other, shallow=False):
            raise UserError(f"{manifests[0]} and {other} are different; name the folders of one data set only")
    if manifests:
        return _with_index(manifests[0], files, folders)
    unfinished = [str(file) for file in files if file.name == PLAN]
    if unfinished:
        raise UserError(
            f"{listing(unfinished)} without a {MANIFEST}: the shards there are not all written; give the command that "
            "writes them again"
        )
    return _without_index([file for file in files if LOOKS_LIKE_A_SHARD.fullmatch(file.name)], folders)


def _with_index(path: Path, files: Sequence[Path], folders: Sequence[Path]) -> Manifest:
    table = _read_with_index(path)
    own = table.drop_columns(list(INDEX)).to_pandas().reset_index(drop=True)
    manifest = complete(Manifest(own, path.parent, str(path)))
    names, counts = _names_of_files(manifest.table)
    members = table["__members__"].combine_chunks()
    indexed = pc.list_value_length(members).to_numpy()
    wrong = np.flatnonzero(indexed != counts)
    if len(wrong):
        listed = (f"{manifest.where(row)} has {counts[row]} files but {indexed[row]} members" for row in wrong)
        raise UserError(
            f"{path}: the index does not fit columns path and human_map: {listing(listed, len(wrong))}; write the "
            "shards again"
        )
    encoded = table["__shard__"].combine_chunks().dictionary_encode()
    shard_of = encoded.indices.to_numpy()
    row_bytes = table["__shard_bytes__"].to_numpy()
    shards = _found(manifest, encoded.dictionary.to_pylist(), shard_of, row_bytes, files, folders)
    flat = members.flatten()
    offsets, sizes = flat.field("offset").to_numpy(), flat.field("bytes").to_numpy()
    row_of = np.repeat(np.arange(len(counts)), counts)
    room = row_bytes[row_of]
    # Not offsets + sizes > room, which overflows.
    outside = np.flatnonzero((offsets < 512) | (sizes < 0) | (sizes > room) | (offsets > room - sizes))
    if len(outside):
        listed = (f"{manifest.where(int(row_of[at]))}, {names[at]!r}" for at in outside)
        raise UserError(
            f"{path}: the index points outside of the shards: {listing(listed, len(outside))}; copy it again"
        )
    archive = ShardArchive(shards, names, shard_of[row_of], flat.field("name"), offsets, sizes)
    return replace(manifest, archive=archive)


def _without_index(paths: Sequence[Path], folders: Sequence[Path]) -> Manifest:
    where = " and ".join(map(str, folders))
    if not paths:
        raise UserError(
            f"{where}: there is neither a {MANIFEST} nor a .tar; set data.source.folders to those of the shards"
        )
    paths = sorted(paths, key=lambda path: path.name)
    again = [f"{one} and {other}" for one, other in pairwise(paths) if one.name == other.name]
    if again:
        raise UserError(f"two shards have the same name: {listing(again)}; name the folders of one data set only")
    scanned = list(each(_scan, paths, thread_count()))
    problems = [result for result in scanned if isinstance(result, str)]
    refuse(problems)
    samples = [(number, *sample) for number, (_, described_) in enumerate(scanned) for sample in described_]
    table = pd.DataFrame([row for _, row, _ in samples])
    manifest = complete(Manifest(table, folders[0], f"{where}/*.tar", from_file=False))
    found = [(number, name, member) for number, _, files in samples for name, member in files]
    numbers, names, members = zip(*found, strict=True)
    archive = ShardArchive(
        [shard for shard, _ in scanned],
        names,
        np.array(numbers),
        pa.array([member.name for member in members], pa.string()),
        np.array([member.offset for member in members]),
        np.array([member.size for member in members]),
    )
    return replace(manifest, archive=archive)


def _scan(path: Path) -> tuple[Shard, list[tuple[dict[str, object], list[tuple[str, Member]]]]] | str:
    try:
        shard, members = scan(path)
        return shard, described(members)
    except UserError as error:
        return str(error)


def _read_with_index(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            refuse_many_rows(path, file)
            table = file.read()
    except UserError:  # a ValueError, too
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read as a table ({in_one_line(error)}); copy it again") from None
    for column, kind in INDEX.items():
        if column not in table.column_names or table.schema.field(column).type != kind:
            raise UserError(
                f"{path} has no column {column} that says where the images lie in the shards; write them with "
                f"{typed('shards')}, or take the file away if every image has a .json with its label and split"
            )
    members = table["__members__"].combine_chunks().flatten()
    parts = [table[column] for column in INDEX] + [members, *members.flatten()]
    if any(part.null_count for part in parts):
        raise UserError(f"{path}: the index has empty cells; copy it again, or write the shards again")
    return table


def _found(
    manifest: Manifest,
    names: Sequence[str],
    shard_of: np.ndarray,
    row_bytes: np.ndarray,
    files: Sequence[Path],
    folders: Sequence[Path],
) -> list[Shard]:
    """The shards that the index names, each in whichever folder has it. By the index, each row lies in
    ``names[shard_of]``, a file of ``row_bytes`` bytes."""
    hostile = [repr(name) for name in names if not SHARD_NAME.fullmatch(name)]
    if hostile:
        raise UserError(
            f"{manifest.origin}: the index names what is no shard: {listing(hostile)}; write the shards again"
        )
    by_name: dict[str, list[Path]] = {name: [] for name in names}
    for file in files:
        if file.name in by_name:
            by_name[file.name].append(file)
    copies = [paths for paths in by_name.values() if len(paths) > 1]
    if copies:
        filecmp.clear_cache()  # it would not notice a file that was changed but kept its time
        log.info("comparing %d shards that lie in several folders", len(copies))
    different = [text for text in each(_difference, copies, thread_count()) if text]
    if different:
        raise UserError(
            f"shards of one name are different: {listing(different)}; delete those that do not belong to "
            f"{manifest.origin}, or take their folder out of data.source.folders"
        )
    rows = pd.Series(row_bytes).groupby(shard_of)  # sorted by the number of the shard
    shards, missing, other, problems = [], [], [], []
    for name, count, least, most in zip(names, rows.size(), rows.min(), rows.max(), strict=True):
        if not by_name[name]:
            missing.append(f"{name} ({count} {'image' if count == 1 else 'images'})")
            continue
        try:
            shard = Shard.at(by_name[name][0])  # its copies are the same
        except UserError as error:
            problems.append(str(error))
            continue
        shards.append(shard)
        if not shard.size == least == most:
            other.append(f"{shard.path} has {shard.size} bytes, not {least}")
    if missing:
        problems.append(
            f"{manifest.origin}: {len(missing)} of {len(names)} shards are not in {' or '.join(map(str, folders))}: "
            f"{listing(missing)}; copy them there, or add their folder to data.source.folders"
        )
    if other:
        problems.append(
            f"{manifest.origin}: shards are not those that it was written with: {listing(other)}; copy them again, "
            "together with it"
        )
    refuse(problems)
    return shards


def _difference(copies: Sequence[Path]) -> str | None:
    """The first two copies that are not the same; None if all are."""
    first, *others = copies
    for other in others:
        try:
            if not filecmp.cmp(first, other, shallow=False):
                return f"{first} and {other}"
        except OSError as error:
            return f"{first} and {other} (one cannot be read: {error.strerror})"
    return None


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"data.source.folders: {folder} cannot be read as a folder ({error.strerror}); name the folders that hold "
            "the shards, and give yourself read access"
        ) from None


def _names_of_files(table: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """The names of the files of all rows, each row's image before its human maps; and how many each row has."""
    cells = zip(table["path"].tolist(), table["human_map"].tolist(), strict=True)
    rows = [[path, *map_names(cell)] if cell else [path] for path, cell in cells]
    return [name for row in rows for name in row], np.array([len(row) for row in rows])


def _hash(name: str) -> np.uint64:
    """A hash of 64 bits that, unlike Python's own, is the same in every process."""
    return np.uint64(int.from_bytes(blake2b(name.encode(), digest_size=8).digest()))
