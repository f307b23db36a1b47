"""Writing a data set into tar shards; :mod:`saliency_entropy.data.shards.reader` reads them.

Sample 812 is ``000000812.jpg``, the bytes of the image as they are, under its own extension; ``000000812.map0.png``
and so on, those of its human maps; and ``000000812.json``, its row of the manifest for readers other than this
package. The same data give the same shards, byte for byte. A shard gets its name once it is whole, and the manifest
is written last: the command goes on where an interrupted one stopped.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from shutil import disk_usage

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from hydra.utils import instantiate
from omegaconf import DictConfig
from webdataset import TarWriter

from saliency_entropy.cpu.cores import each, thread_count
from saliency_entropy.data.cache import usable_bytes
from saliency_entropy.data.images import DataFile, check_header
from saliency_entropy.data.listed_files import check_files, refuse_broken
from saliency_entropy.data.shards.reader import INDEX, MANIFEST, PLAN
from saliency_entropy.data.shards.scan import scan
from saliency_entropy.data.table import Manifest
from saliency_entropy.errors import UserError, in_one_line, listing, whole_number, writing
from saliency_entropy.run.console import typed
from saliency_entropy.run.whole_files import remove_parts, write_atomically, written_whole

log = logging.getLogger(__name__)

VERSION = 2  # of the layout; raise it whenever the same data give other shards, so that no folder mixes two
MEGABYTE = 1_000_000
READ_AT_ONCE = 64  # samples: their bytes are in memory together
# Bytes of a sample besides those of its files: headers, padding, JSON. For the comparison with the free space.
OVERHEAD = 4096


def shards(cfg: DictConfig) -> None:
    """Write the data set ``cfg.data`` as shards of about ``cfg.shard_megabytes`` into the folder ``cfg.output``.

    Raises:
        UserError: as the source of the data, or as :func:`write_shards`.
    """
    if cfg.data.get("skip_broken"):
        raise UserError(
            "data.skip_broken leaves files out of a training, not of shards: take them out of the data set, all of "
            f"which {typed('data')} names"
        )
    manifest = instantiate(cfg.data.source, _convert_="all")()
    write_shards(manifest, Path(str(cfg.output)), cfg.shard_megabytes)


def write_shards(manifest: Manifest, output: Path, shard_megabytes: int) -> None:
    """Write the images and human maps of a manifest, of all splits and in its order.

    Args:
        manifest: complete.
        output: a folder that is empty or does not exist, or that holds what an earlier call with the same data wrote.
        shard_megabytes: the most bytes of files that a shard holds, in millions; a larger sample is a shard of its own.

    Raises:
        UserError: an argument is out of range, files are missing or are no images by their headers (all are named, and
            nothing is written), or ``output`` holds anything else or has no room.
    """
    whole_number("shard_megabytes", shard_megabytes, 1)
    _refuse_other_files(output)
    check_files(manifest)
    plan = _Plan(manifest, shard_megabytes * MEGABYTE)
    with writing(f"output={output}", "set it to a folder that you may write to"):
        output.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(output / ".lock", timeout=0):
                _carry_out(plan, output)
        except Timeout:
            raise UserError(f"output={output}: another process writes shards there; wait for it") from None


class _Plan:
    """What is to be written, as far as it follows from the table, and from the files' sizes and times."""

    def __init__(self, manifest: Manifest, most: int) -> None:
        self.manifest = manifest
        self.table = _for_parquet(manifest)
        look = _looked_at(manifest)
        self.sizes = [[size for size, _ in files] for files in look]
        totals = [sum(sizes) for sizes in self.sizes]
        starts, held = [0], 0
        for row, total in enumerate(totals):
            if held + total > most and row > starts[-1]:
                starts.append(row)
                held = 0
            held += total
        self.shards = [range(*ends) for ends in pairwise([*starts, len(totals)])]
        digest = hashlib.sha256(json.dumps([VERSION, most]).encode())
        for rows in self.shards:
            digest.update("\n".join(self.descriptions(rows)).encode())
            digest.update(json.dumps([look[row] for row in rows]).encode())
        self.digest = digest.hexdigest()

    def name(self, number: int) -> str:
        """A shard's name, with the plan in it: no shard of other data, or of their later state, is mistaken for it."""
        return f"images-{self.digest[:8]}-{number:06d}.tar"

    def descriptions(self, rows: range) -> list[str]:
        """The rows of the manifest as JSON, in ASCII."""
        part = self.manifest.table.iloc[rows.start : rows.stop]
        try:
            return part.to_json(orient="records", lines=True, date_format="iso").rstrip("\n").split("\n")
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(
                f"{self.manifest.origin}: a column cannot be written as JSON ({in_one_line(error)}); take it away"
            ) from None

    def room(self, rows: range) -> int:
        """The most bytes that a shard may take."""
        return sum(sum(self.sizes[row]) + OVERHEAD * (1 + len(self.sizes[row])) for row in rows)

    def content(self, row: int) -> list[bytes]:
        """The bytes of a row's files, its image first."""
        files = _files(self.manifest, row)
        contents = [_read(file) for file in files]
        for file, content, size in zip(files, contents, self.sizes[row], strict=True):
            if len(content) != size:
                raise UserError(f"{file} was changed while the shards were written; give the command again")
        return contents


def _carry_out(plan: _Plan, output: Path) -> None:
    remove_parts(output)  # of a process that was killed, perhaps of other data: this one has the lock
    _begin(plan, output)
    paths = [output / plan.name(number) for number in range(len(plan.shards))]
    missing = [(path, rows) for path, rows in zip(paths, plan.shards, strict=True) if not path.exists()]
    disk = disk_usage(output)
    need, free = sum(plan.room(rows) for _, rows in missing), usable_bytes(disk.total, disk.free)
    if need > free:
        raise UserError(
            f"output={output}: the shards need {need / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free there; set "
            "it to a disk with room"
        )
    if len(missing) < len(paths):
        log.info("%d of %d shards are there already", len(paths) - len(missing), len(paths))
    for done, (path, rows) in enumerate(missing, start=1):
        _write_shard(plan, path, rows)
        log.info("%s: %d images, %.1f MB (%d of %d)", path.name, len(rows), path.stat().st_size / 1e6, done,
                 len(missing))  # fmt: skip
    buffer = BytesIO()
    pq.write_table(_with_index(plan, paths), buffer)
    write_atomically(output / MANIFEST, buffer.getbuffer())
    size = sum(path.stat().st_size for path in paths)
    log.info("written: %d images in %d shards, %.2f GB", len(plan.table), len(paths), size / 1e9)
    log.info("%s data=shards data.source.folders=[%s]", typed("train"), output)


def _begin(plan: _Plan, output: Path) -> None:
    path = output / PLAN
    text = json.dumps({"version": VERSION, "shards": len(plan.shards), "sha256": plan.digest}) + "\n"
    if path.exists() and path.read_bytes() == text.encode():
        return
    if any(output.glob("*.tar")) or (output / MANIFEST).exists():
        raise UserError(
            f"output={output} holds shards of other data (other rows, or files of other sizes or times) or of another "
            "shard_megabytes; set it to another folder, or delete those"
        )
    write_atomically(path, text)


def _write_shard(plan: _Plan, path: Path, rows: range) -> None:
    with (
        written_whole(path) as temporary,
        temporary.open("wb") as file,
        TarWriter(file, mtime=0, encoder=False) as tar,
    ):
        for sample in _samples(plan, rows):
            tar.write(sample)


def _samples(plan: _Plan, rows: range) -> Iterator[dict[str, str | bytes]]:
    texts = plan.descriptions(rows)
    with ThreadPoolExecutor(2 * thread_count()) as pool:  # more than the cores: a disk far away answers late
        for start in range(rows.start, rows.stop, READ_AT_ONCE):
            read = range(start, min(start + READ_AT_ONCE, rows.stop))
            for row, content in zip(read, pool.map(plan.content, read), strict=True):
                names = _member_names(plan.manifest, row)
                yield {
                    "__key__": _key(row),
                    "json": texts[row - rows.start].encode(),
                    **{name.partition(".")[2]: data for name, data in zip(names, content, strict=True)},
                }


def _with_index(plan: _Plan, paths: Sequence[Path]) -> pa.Table:
    """The table with the columns of the index, as found in the shards that were written."""
    parts = []
    for path, rows in zip(paths, plan.shards, strict=True):
        shard, members = scan(path)
        by_name = {member.name: member for member in members}
        files = []
        for row in rows:
            found = [by_name[name] for name in _member_names(plan.manifest, row) if name in by_name]
            if [member.size for member in found] != plan.sizes[row]:
                raise UserError(f"{path} was changed, or belongs to other data; delete it, and give the command again")
            files.append([{"name": member.name, "offset": member.offset, "bytes": member.size} for member in found])
        columns = ([path.name] * len(rows), [shard.size] * len(rows), files)
        parts.append(pa.table(dict(zip(INDEX, columns, strict=True)), pa.schema(INDEX.items())))
    index = pa.concat_tables(parts).combine_chunks()
    table = plan.table
    for name in INDEX:
        table = table.append_column(name, index[name])
    return table


def _for_parquet(manifest: Manifest) -> pa.Table:
    table = manifest.table
    taken = [column for column in INDEX if column in table]
    if taken:
        raise UserError(
            f"{manifest.origin} has column {' and '.join(taken)}, which the index of the shards needs; rename it"
        )
    try:
        return pa.Table.from_pandas(table, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UserError(
            f"{manifest.origin}: a column cannot be written as Parquet ({in_one_line(error)}); give its cells one type"
        ) from None


def _looked_at(manifest: Manifest) -> list[list[tuple[int, int]]]:
    """(size in bytes, time in ns) of the files of each row, after a check of their headers."""

    def look(row: int) -> tuple[list[tuple[int, int]], list[str]]:
        found, problems = [], []
        for file in _files(manifest, row):
            try:
                if file.suffix.lower() == ".svg":  # it has no header to check
                    _read(file)
                else:
                    check_header(file)
                status = file.stat()
                found.append((status.st_size, status.st_mtime_ns))
            except UserError as error:
                problems.append(str(error))
        return found, problems

    looked_at = list(each(look, range(len(manifest.table)), thread_count()))
    refuse_broken(manifest, [(row, problem) for row, (_, problems) in enumerate(looked_at) for problem in problems])
    return [found for found, _ in looked_at]


def _files(manifest: Manifest, row: int) -> list[DataFile]:
    """A row's image and human maps."""
    return [
        manifest.file(manifest.table["path"].array[row]),
        *manifest.map_files(manifest.table["human_map"].array[row]),
    ]


def _member_names(manifest: Manifest, row: int) -> list[str]:
    """The names of the files of a row in their shard."""
    image, *maps = (file.suffix for file in _files(manifest, row))
    return [f"{_key(row)}{image}", *(f"{_key(row)}.map{number}{suffix}" for number, suffix in enumerate(maps))]


def _key(row: int) -> str:
    return f"{row:09d}"


def _read(file: DataFile) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); copy it again, or leave it out") from None


def _refuse_other_files(output: Path) -> None:
    try:
        names = sorted(path.name for path in output.iterdir()) if output.exists() else []
    except OSError as error:
        raise UserError(f"output={output} cannot be read as a folder ({error.strerror}); set it to another") from None
    others = [name for name in names if not name.startswith(".")]
    if others and PLAN not in others:
        raise UserError(
            f"output={output} holds other files: {listing(others)}; set it to a folder that is empty or new"
        )
