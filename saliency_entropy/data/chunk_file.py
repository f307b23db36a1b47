"""One file of the decode cache: the arrays of a chunk of items, and which of the items could not be decoded.

It is a ``.npy`` file (any NumPy opens it, and maps it) with one line of JSON behind the array, so that the arrays and
the list of broken items cannot come apart. A file appears whole or not at all, and is never changed.
"""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

TEMPORARY = ".tmp"


class DamagedChunk(ValueError):
    """A file is not the one that was written: it is cut off, has another header, or is of another kind."""


@dataclass(frozen=True)
class Chunk:
    """What is known of a file without looking at its arrays.

    Attributes:
        start: where the first array begins in the file, in bytes.
        broken: place in the file -> why this item could not be decoded; its array is zeros.
        unreadable: a broken item may be decoded at another attempt.
        digests: of the bytes that each item was decoded from, see :class:`~saliency_entropy.data.images.Digested`.
        written: tells this file from another one that replaced it.
    """

    start: int
    broken: dict[int, str]
    unreadable: bool
    digests: np.ndarray
    written: tuple[int, int]


def read_chunk(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Chunk | None:
    """Look at a file of ``shape`` (its first dimension counts the items) and ``dtype``; None if it does not exist
    or is of a version that kept no digests.

    A change of the pixels alone is not noticed: for that, they would all have to be read.

    Raises:
        DamagedChunk: the file is another one or not whole; says why.
        OSError: the file is there but cannot be read.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if npy.read_magic(file) != (1, 0):
                raise DamagedChunk("another version of the format")
            found = npy.read_array_header_1_0(file)
            if found != (shape, False, dtype):
                raise DamagedChunk(f"its header is that of {found[0]} {found[2]}, not of {shape} {dtype}")
            start = file.tell()
            file.seek(start + int(np.prod(shape)) * dtype.itemsize)
            end = json.loads(file.read())
            if "digests" not in end:
                return None
            digests = np.array(end["digests"], np.int64).reshape(shape[0])
            broken = {int(place): str(reason) for place, reason in end["broken"].items()}
            return Chunk(start, broken, bool(end["unreadable"]), digests, (status.st_ino, status.st_mtime_ns))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedChunk:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedChunk(f"not whole: {error}") from None


def write_chunk(path: Path, arrays: np.ndarray, broken: dict[int, str], unreadable: bool, digests: list[int]) -> None:
    """Write a file, whole or not at all.

    With ordinary writes: on a full disk these fail, where a memory map would end the process with a SIGBUS.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    temporary = path.with_name(f"{path.stem}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        # Not tempfile: its files are for their owner only, and a group may share a cache.
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o644)) as file:
            npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(arrays))
            file.write(arrays.data)  # not arrays.tofile, which does not say why it failed
            about = {"broken": broken, "unreadable": unreadable, "digests": digests}
            file.write(json.dumps(about).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_partial(path: Path) -> None:
    """Remove what killed writers of this file left; no process may be writing it."""
    for left in path.parent.glob(f"{path.stem}.*{TEMPORARY}"):
        left.unlink(missing_ok=True)
