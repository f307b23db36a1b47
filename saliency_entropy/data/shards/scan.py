"""Shards without an index: the files in a tar file, found by reading its headers once."""

import io
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from saliency_entropy.data.human_maps.join import is_text
from saliency_entropy.data.images import EXTENSIONS
from saliency_entropy.data.shards.member import Member, Shard
from saliency_entropy.data.table import CONTROL, LABELS, LEADS_OUT, REQUIRED, map_names
from saliency_entropy.errors import UserError, in_one_line, listing
from saliency_entropy.run.console import typed

# Bytes of a name too long for a header, or of the JSON of an image: both are read into memory.
LARGEST_TEXT = 1_000_000
# The key of a sample and the kind of a file, as WebDataset takes a name apart.
KEY = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
MAP = re.compile(r"map(\d+)\.[^.]+")


def scan(path: Path) -> tuple[Shard, list[Member]]:
    """The files in a shard, in their order; folders are left out.

    Raises:
        UserError: the shard cannot be read, is compressed, cut off or damaged, or holds other things than plain files
            under plain names, or two files of one name: all of them are named.
    """
    shard = Shard.at(path)
    try:
        with _Headers(io.FileIO(path)) as file:
            entries = list(_entries(file))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); copy it again") from None
    # tarfile raises ValueErrors, too, for malformed numbers.
    except (tarfile.TarError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} is compressed, truncated, damaged or no tar file ({in_one_line(error)}); shards are plain tar "
            "files: unpack it (gzip -dc), or copy it again"
        ) from None
    files = [entry for entry in entries if not entry.isdir()]
    odd = [f"{entry.name!r}, {why}" for entry in files if (why := _fault(entry, shard))]
    odd += [f"{name!r}, is there twice" for name, count in Counter(e.name for e in files).items() if count > 1]
    if odd:
        raise UserError(f"{path} holds what no shard may: {listing(odd)}; write it again without these")
    return shard, [Member(shard, entry.name, entry.offset_data, entry.size) for entry in files]


def described(members: Sequence[Member]) -> list[tuple[dict[str, object], list[tuple[str, Member]]]]:
    """The samples of a shard: the files that have the same key.

    A sample is an image, ``KEY.json`` with the columns of a manifest, and maybe ``KEY.cls`` (0 = real, 1 = synthetic)
    instead of a label, and human maps, ``KEY.map0.png`` and so on. Without a path in the JSON, the name of the image
    in the shard is its path.

    Returns:
        For each sample its row of the manifest, and (name in the row, member) of the image and of each map.

    Raises:
        UserError: names all samples that are not as described.
    """
    groups: dict[str, dict[str, Member]] = defaultdict(dict)
    problems, samples = [], []
    for member in members:
        match = KEY.fullmatch(member.name)
        if match:
            groups[match[1]][match[2].lower()] = member
        else:
            problems.append(f"{member}: its name has no key and extension")
    for key, parts in groups.items():
        try:
            samples.append(_sample(parts))
        except UserError as error:
            problems.append(f"{next(iter(parts.values())).shard.path}: sample {key}: {error}")
    if problems:
        raise UserError(
            f"{listing(problems)}; give every image a .json with {', '.join(REQUIRED[1:])}, or write the shards with "
            f"{typed('shards')}"
        )
    return samples


def _entries(file: io.BufferedReader) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        before = -1
        while (entry := tar.next()) is not None:
            # A negative size leads back: tarfile would go round for ever.
            if entry.size < 0 or tar.offset <= before:
                raise tarfile.ReadError(f"the size of {entry.name!r} is negative")
            before = tar.offset
            yield entry
            tar.members.clear()
        # tarfile treats anything that is not a header as the end.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it ends at byte {tar.offset} without an end marker")


def _fault(entry: tarfile.TarInfo, shard: Shard) -> str | None:
    if not entry.isreg() or entry.issparse():
        return "is no plain file"
    if not is_text(entry.name) or re.search(CONTROL, entry.name):
        return "is not UTF-8, or holds control characters"
    if re.search(LEADS_OUT, entry.name):
        return "leads out of the data root"
    if entry.offset_data + entry.size > shard.size:
        return "runs over the end of the shard"
    return None


def _sample(parts: dict[str, Member]) -> tuple[dict[str, object], list[tuple[str, Member]]]:
    images = [member for kind, member in parts.items() if f".{kind}" in EXTENSIONS]
    if len(images) != 1:
        raise UserError(f"{len(images)} images instead of one")
    maps = {int(match[1]): member for kind, member in parts.items() if (match := MAP.fullmatch(kind))}
    row = _row(parts)
    row.setdefault("path", images[0].name)
    named = map_names(str(row.get("human_map") or ""))
    if not named:
        named = [member.name for _, member in sorted(maps.items())]
        row["human_map"] = ";".join(named)
    if sorted(maps) != list(range(len(named))):
        raise UserError(f"its human_map names {len(named)} files, but its maps are {sorted(maps)}")
    files = [(str(row["path"]), images[0])]
    return row, files + [(name, maps[number]) for number, name in enumerate(named)]


def _row(parts: dict[str, Member]) -> dict[str, object]:
    if "json" not in parts:
        raise UserError("no .json")
    try:
        row = json.loads(_text(parts["json"]))
    except (ValueError, RecursionError) as error:
        raise UserError(f"its .json cannot be read ({in_one_line(error)})") from None
    if not isinstance(row, dict):
        raise UserError(f"its .json holds a {type(row).__name__}, not an object with a manifest's columns")
    if not all(is_text(text) for text in [*row, *row.values()] if isinstance(text, str)):
        raise UserError("its .json holds half of a surrogate pair, which is no text")
    # A cell of a table holds no list.
    row = {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in row.items()}
    if "cls" in parts:
        number = _text(parts["cls"]).strip()
        if number not in ("0", "1") or row.setdefault("label", LABELS[int(number)]) != LABELS[int(number)]:
            raise UserError(f"its .cls is {number[:20]!r}: 0 is real, 1 synthetic, and a label in the .json the same")
    return row


def _text(member: Member) -> str:
    if member.size > LARGEST_TEXT:
        raise UserError(f"{PurePosixPath(member.name).name} has {member.size} bytes, more than {LARGEST_TEXT}")
    try:
        with member.open() as file:
            return file.read().decode()
    except UnicodeDecodeError:
        raise UserError(f"{PurePosixPath(member.name).name} is not UTF-8") from None


class _Headers(io.BufferedReader):
    """A tar file of which only headers are read: a long name, which tarfile reads whole, may claim any length."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LARGEST_TEXT:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return super().read(size)
