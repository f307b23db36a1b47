"""The decode cache: what was decoded once is mapped into memory by every run that needs it.

The items of a split are cut, in their order, into chunks of 256. A chunk is one file (:mod:`chunk_file`), named by a
hash of the transform and of path, size and time of every file that it was decoded from: a file that changes costs its
chunk only, and a chunk is never altered, so that any number of processes may read it. A process that finds chunks
missing builds them; each is locked meanwhile, and a process that finds one locked turns to another. The system releases
the lock of a process that is killed, which loses the one chunk that it was building.

Only what killed processes left half written is ever removed: the folder may be deleted whenever no run uses it.
"""

import errno
import hashlib
import json
import logging
import mmap
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from shutil import disk_usage

import numpy as np
import PIL
from filelock import FileLock, Timeout
from PIL import features

from saliency_entropy.cpu.cores import thread_count
from saliency_entropy.data.chunk_file import Chunk, DamagedChunk, read_chunk, remove_partial, write_chunk
from saliency_entropy.data.forked import map_in_processes, may_fork
from saliency_entropy.data.images import DataFile, Digested, UnreadableFile, joint_digest
from saliency_entropy.errors import UserError, writing

log = logging.getLogger(__name__)

VERSION = 1  # of the decoding; raise it whenever an array changes, so that no cached one is out of date
ITEMS = 256  # of a chunk: 38 MB of images of 224 x 224
MAPPED = 128  # chunks at a time in a process: each holds a file descriptor, and a process may have few
RESERVE = 0.02, 2**30  # of a disk, to be left free: this share, or so many bytes if that is less
REPORT = 10.0  # seconds from one line in the log to the next
PATIENCE = 0.1  # seconds until chunks that others are building are looked at again

Items = Sequence[Sequence[DataFile]]
Decode = Callable[[Sequence[DataFile]], np.ndarray]


@dataclass(frozen=True)
class CachedArrays:
    """The arrays of a sequence of items. It may be pickled, and be used by many threads and processes.

    Attributes:
        count: of the items.
        files: of the chunks.
        starts: where the first array begins in each file, in bytes.
        shape, dtype: of the array of an item.
        broken: index -> why this item cannot be decoded; its array is zeros.
        digests: ``(count,)`` int64, of the bytes that each was decoded from, which its file may have no more.
    """

    count: int
    files: list[str]
    starts: list[int]
    shape: tuple[int, ...]
    dtype: np.dtype
    broken: dict[int, str]
    digests: np.ndarray

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        """A copy, the caller's own. Raises UserError if the cache was deleted meanwhile."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        chunk, at = divmod(index, ITEMS)
        values = prod(self.shape)
        start = self.starts[chunk] + at * values * self.dtype.itemsize
        return np.frombuffer(_mapped(self.files[chunk]), self.dtype, values, start).reshape(self.shape).copy()


@lru_cache(MAPPED)
def _mapped(file: str) -> mmap.mmap:
    try:
        with Path(file).open("rb") as opened:
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UserError(f"{file} was removed from the decode cache while it was in use; start again") from None


@dataclass(frozen=True)
class _Place:
    """The items of a chunk, and its file."""

    path: Path
    first: int
    count: int


class DecodeCache:
    """Arrays that were decoded from files, kept in a folder.

    Args:
        folder: for this and other caches; made when it is needed.
        transform: everything besides the files that the arrays depend on, as JSON has it.
        shape, dtype: of the array of an item.
    """

    def __init__(self, folder: Path, transform: Mapping[str, object], shape: tuple[int, ...], dtype: object) -> None:
        self.folder = Path(folder)
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        # Another decoder may decode other pixels.
        decoder = [PIL.__version__, features.version("libjpeg_turbo"), features.version("webp")]
        key = [VERSION, decoder, dict(transform), self.shape, self.dtype.str]
        self._key = json.dumps(key, sort_keys=True).encode()

    def open(self, items: Items, decode: Decode, workers: int | None = None) -> CachedArrays:
        """The arrays of ``items``; those that are not in the cache are decoded first.

        Any number of processes may call this at once; they share the work.

        Args:
            items: the files of each item, looked up whenever they are needed; the array of one without files is zeros.
            decode: makes the array of an item from its files.
            workers: how many items are decoded at once; if not given, one for each core that this process may use.

        Raises:
            UserError: the disk has no room for the arrays, or the folder cannot be written to. That an item cannot be
                decoded raises nothing: see :attr:`CachedArrays.broken`.
        """
        workers = workers or thread_count()
        _mapped.cache_clear()  # a chunk that was damaged may have been replaced
        firsts = range(0, len(items), ITEMS)
        with ThreadPoolExecutor(workers) as pool:
            places = list(pool.map(partial(self.place, items), firsts))
            chunks = dict(zip(places, pool.map(self._look, places), strict=True))
        missing = [place for place, chunk in chunks.items() if chunk is None or chunk.unreadable]
        if missing:
            build = _Build(self, items, decode, {place: chunks[place] for place in missing})
            self._make_room(missing)
            build.run(workers)
            chunks |= {place: self._look(place) for place in missing}
        if None in chunks.values():
            raise UserError(f"data.cache_folder={self.folder}: files were removed while others were made; start again")
        return CachedArrays(
            len(items),
            [str(place.path) for place in places],
            [chunk.start for chunk in chunks.values()],
            self.shape,
            self.dtype,
            {place.first + at: why for place, chunk in chunks.items() for at, why in chunk.broken.items()},
            np.concatenate([np.empty(0, np.int64), *(chunk.digests for chunk in chunks.values())]),
        )

    def missing_bytes(self, items: Items) -> int:
        """What :meth:`open` would add to the folder, as far as names of files tell."""
        places = [self.place(items, first) for first in range(0, len(items), ITEMS)]
        return self._bytes([place for place in places if not place.path.exists()])

    def _bytes(self, places: Sequence[_Place]) -> int:
        return sum(place.count for place in places) * prod(self.shape) * self.dtype.itemsize

    def place(self, items: Items, first: int) -> _Place:
        """The place of the chunk that begins at this item, from the present state of its files."""
        count = min(ITEMS, len(items) - first)
        digest = hashlib.sha256(self._key)
        for index in range(first, first + count):
            for file in items[index]:
                digest.update(os.fsencode(os.path.abspath(str(file))) + b"\0" + _state(file))  # noqa: PTH100
            digest.update(b"\n")
        name = digest.hexdigest()[:32]
        return _Place(self.folder / name[:2] / f"{name}.npy", first, count)

    def _look(self, place: _Place) -> Chunk | None:
        try:
            return self.read(place)
        except DamagedChunk as error:
            log.warning("%s of the decode cache is damaged (%s); its files are decoded again", place.path, error)
            return None

    def read(self, place: _Place) -> Chunk | None:
        """As :func:`~saliency_entropy.data.chunk_file.read_chunk`."""
        try:
            return read_chunk(place.path, (place.count, *self.shape), self.dtype)
        except OSError as error:
            raise UserError(
                f"{place.path} of the decode cache cannot be read ({error.strerror}); give yourself read access, or "
                "set data.cache_folder to another folder"
            ) from None

    def _make_room(self, missing: list[_Place]) -> None:
        with self.writing():
            for folder in reversed((self.folder, *self.folder.parents)):
                folder.mkdir(mode=0o755, exist_ok=True)
            disk = disk_usage(self.folder)
        need = self._bytes([place for place in missing if not place.path.exists()])
        free = usable_bytes(disk.total, disk.free)
        if need > free:
            raise UserError(
                f"data.cache_folder={self.folder}: the decoded images need {need / 1e9:.2f} GB, but only "
                f"{free / 1e9:.2f} GB are free there; set data.cache_folder to a disk with room, or data.cache=none"
            )

    def writing(self) -> AbstractContextManager[None]:
        """Turns the system's refusal to write into a UserError."""
        remedy = "set it to a folder that you may write to, or data.cache=none"
        return writing(f"data.cache_folder={self.folder}", remedy)


class _Build:
    """The building of the chunks that are missing.

    Args:
        cache: where they belong.
        items, decode: as of :meth:`DecodeCache.open`.
        missing: each with its present chunk, if it has one, in which files could not be read.
    """

    def __init__(self, cache: DecodeCache, items: Items, decode: Decode, missing: dict[_Place, Chunk | None]) -> None:
        self.cache = cache
        self.items = items
        self.decode = decode
        self.missing = missing
        # The same memory for chunk after chunk: fresh pages would cost as much as the writing. Two pieces, so that one
        # chunk is written, and the disk waited for, while the next is decoded.
        self._memory = [np.empty((ITEMS, *cache.shape), cache.dtype) for _ in range(2)]
        self._writing: list[Future[None]] = []
        self._total = sum(place.count for place in missing)
        self._awaited = list(missing)
        self._began = time.monotonic()
        self._reported = 0.0

    def run(self, workers: int) -> None:
        """Returns when all chunks are there, whoever made them."""
        log.info("decode cache: decoding %d items into %s", self._total, self.cache.folder)
        places = list(self.missing)
        processes = min(workers, len(places)) if may_fork() else 1
        threads = workers // processes
        if processes == 1:
            self._serve(places, threads, self._report)
        else:
            # Each process begins elsewhere, so that it seldom finds a chunk locked.
            begins = [number * len(places) // processes for number in range(processes)]
            served = map_in_processes(
                lambda begin: self._serve(places[begin:] + places[:begin], threads),
                begins,
                processes,
                "give the same command again to go on",
                REPORT,
                self._report,
            )
            list(served)  # until all are done
        seconds = time.monotonic() - self._began
        log.info("decode cache: %d items in %.1f s, %.0f a second", self._total, seconds, self._total / seconds)

    def _report(self) -> None:
        """Log the progress of all processes, unless that was done just now."""
        seconds = time.monotonic() - self._began
        if seconds > self._reported + REPORT:
            self._reported = seconds
            self._awaited = [place for place in self._awaited if not self._there(place)]
            done = self._total - sum(place.count for place in self._awaited)
            log.info("decode cache: %d of %d items, %.0f a second", done, self._total, done / seconds)

    def _serve(self, left: list[_Place], threads: int, report: Callable[[], None] = lambda: None) -> None:
        """Make, in turn, every chunk that no other process makes; wait for the others."""
        with ThreadPoolExecutor(1) as writer:
            # The thread is started now: a signal that ended this process while it started would leave it unknown to
            # the pool, which then would not wait for what it writes.
            writer.submit(int).result()
            try:
                while left:
                    locked = []
                    for place in left:
                        if not self._settled(place, threads, writer):
                            locked.append(place)
                        report()
                    if len(locked) == len(left):
                        time.sleep(PATIENCE)
                    left = locked
            finally:
                # Not left to the pool, which joins its thread: Python considers a thread ended when a signal
                # interrupts the join, and the process would end in the middle of writing.
                wait(self._writing)
            self._written(0)

    def _settled(self, place: _Place, threads: int, writer: Executor) -> bool:
        """Whether a chunk is there, or about to be written by this process; False if another is making it."""
        if self._there(place):
            return True
        # The thread that writes releases it.
        lock = FileLock(place.path.with_suffix(".lock"), mode=0o644, blocking=False, thread_local=False)
        with self.cache.writing():
            place.path.parent.mkdir(mode=0o755, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                return False
        held: FileLock | None = lock
        try:
            if not self._there(place):
                write = self._make(place, threads)
                held = None  # from here on, the writer releases it
                self._writing.append(writer.submit(self._write, write, lock))
        finally:
            if held is not None:
                held.release()
        return True

    def _write(self, write: Callable[[], None], lock: FileLock) -> None:
        try:
            with self.cache.writing():
                write()
        finally:
            lock.release()

    def _written(self, but: int) -> None:
        """Wait until all chunks but this many are written; raises what writing them raised."""
        while len(self._writing) > but:
            self._writing.pop(0).result()

    def _there(self, place: _Place) -> bool:
        try:
            chunk, before = self.cache.read(place), self.missing[place]
        except DamagedChunk:
            return False
        return chunk is not None and not (chunk.unreadable and before is not None and chunk.written == before.written)

    def _make(self, place: _Place, threads: int) -> Callable[[], None]:
        """Decode a chunk; returns the function that writes it."""
        self._written(1)
        remove_partial(place.path)
        self._memory.reverse()
        arrays = self._memory[0][: place.count]
        if threads == 1:
            filled = [self._fill(arrays, place, at) for at in range(place.count)]
        else:
            with ThreadPoolExecutor(threads) as pool:
                filled = list(pool.map(partial(self._fill, arrays, place), range(place.count)))
        failures, digests = map(list, zip(*filled, strict=True))
        broken = {at: str(failure) for at, failure in enumerate(failures) if failure}
        unreadable = any(isinstance(failure, UnreadableFile) for failure in failures)
        if not unreadable and self.cache.place(self.items, place.first) != place:
            names = [str(file) for at in range(place.count) for file in self.items[place.first + at]]
            raise UserError(
                f"one of the files {names[0]} to {names[-1]} changed while it was decoded; start again when the data "
                "are at rest"
            )
        return partial(write_chunk, place.path, arrays, broken, unreadable, digests)

    def _fill(self, arrays: np.ndarray, place: _Place, at: int) -> tuple[UserError | None, int]:
        files = [Digested(file) for file in self.items[place.first + at]]
        if not files:
            arrays[at] = 0
            return None, 0
        try:
            array = self.decode(files)
        except UserError as error:
            arrays[at] = 0
            return error, joint_digest(files)
        if (array.shape, array.dtype) != (self.cache.shape, self.cache.dtype):
            raise ValueError(f"decoded {array.shape} {array.dtype}, not {self.cache.shape} {self.cache.dtype}")
        arrays[at] = array
        return None, joint_digest(files)


def usable_bytes(total: int, free: int) -> int:
    """The bytes of a disk that may be filled: what is free, less :data:`RESERVE`."""
    share, most = RESERVE
    return max(0, free - min(int(share * total), most))


def _state(file: DataFile) -> bytes:
    """A fingerprint that changes whenever the file's content does."""
    try:
        status = file.stat()
    except OSError as error:
        return f"{errno.errorcode.get(error.errno, error)}\0".encode()
    # With the time of the last change of state: a copy that keeps the time of modification (rsync -a) cannot keep this.
    return f"{status.st_size} {status.st_mtime_ns} {getattr(status, 'st_ctime_ns', 0)}\0".encode()
