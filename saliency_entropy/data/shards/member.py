"""One file in a tar shard, read where it lies: nothing is unpacked, and nothing beyond its end is read."""

import io
import os
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from saliency_entropy.data.images import UnreadableFile
from saliency_entropy.errors import UserError

# Shards at a time that a process keeps open: each takes a file descriptor, of which a process may have few.
OPENED = 128


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file as it was when the data set was opened; size in bytes."""

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def at(cls, path: Path) -> "Shard":
        """The shard that lies there now; raises UserError if it cannot be read."""
        try:
            if not path.is_file():  # opening a named pipe would wait for ever
                raise UserError(f"{path} is no file; shards are tar files")
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); give yourself read access") from None
        return cls(str(path), status.st_size, status.st_mtime_ns)


class Status(NamedTuple):
    """The result of :meth:`Member.stat`: the size of the member in bytes, the time of its shard."""

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard; a :class:`~saliency_entropy.data.images.DataFile`.

    It may be pickled, and be opened by many threads and processes at once.

    Attributes:
        shard: the shard that holds it.
        name: its name in the shard.
        offset: where its content begins in the shard, in bytes.
        size: of its content, in bytes.
    """

    shard: Shard
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard.path}: {self.name}"

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def stat(self) -> Status:
        # Without asking the system, 700,000 times: open() refuses a shard that has changed since.
        return Status(self.size, self.shard.mtime_ns)

    def open(self, mode: str = "rb") -> BinaryIO:
        """The content, to be read.

        Raises:
            OSError: the shard cannot be opened.
            UnreadableFile: the shard was changed since the data set was opened.
            UserError: another file lies there.
        """
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: members of shards are read only, as bytes")
        opened = _opened(self.shard.path)
        status = os.fstat(opened.descriptor)
        if (status.st_size, status.st_mtime_ns) != (self.shard.size, self.shard.mtime_ns):
            _opened.cache_clear()
            raise UnreadableFile(f"{self.shard.path} was changed while it was in use; start again")
        self._check_header(os.pread(opened.descriptor, tarfile.BLOCKSIZE, self.offset - tarfile.BLOCKSIZE))
        return io.BufferedReader(_Part(opened, self.offset, self.size))

    def _check_header(self, block: bytes) -> None:
        """Refuse another file than this: the index of another shard would give an image the pixels of another image."""
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            header = None
        # A name that is long or not ASCII has a header of its own before this one.
        plain = self.name.isascii() and len(self.name) <= tarfile.LENGTH_NAME
        if header is None or not header.isreg() or header.size != self.size or (plain and header.name != self.name):
            raise UserError(
                f"{self} does not lie where the index of the shards says (byte {self.offset}); copy the shard again, "
                "together with its manifest.parquet"
            )


class _Opened:
    """A file descriptor, closed when nothing reads from it any more."""

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


@lru_cache(OPENED)
def _opened(path: str) -> _Opened:
    return _Opened(path)


class _Part(io.RawIOBase):
    """A part of a file, with its own position: the file descriptor has one that threads and forked processes share."""

    def __init__(self, opened: _Opened, start: int, size: int) -> None:
        self._opened = opened
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def readinto(self, buffer: memoryview) -> int:
        count = max(0, min(len(buffer), self._size - self._position))
        read = os.pread(self._opened.descriptor, count, self._start + self._position)
        buffer[: len(read)] = read
        self._position += len(read)
        return len(read)
