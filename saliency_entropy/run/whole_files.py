"""Files that are written whole or not at all, whatever ends the process that writes them."""

import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from saliency_entropy.run.lock import require_held

PART = ".part"  # the end of the name of a file that is not whole yet


@contextmanager
def written_whole(path: Path, before: Path | None = None) -> Iterator[Path]:
    """A temporary file that becomes ``path`` at the end: a reader, or a run that comes after a kill or a power cut,
    never sees half a file. The umask says who may read it. What killed writers of ``path`` left is removed.

    Args:
        path: the file to be written.
        before: a name under which the file that is replaced is kept. There is a whole ``path`` at every moment.

    Raises:
        OSError: the disk is full, for instance; ``path`` is as it was.
        UserError: ``path`` is in a run's folder that another process has taken over, see
            :func:`~saliency_entropy.run.lock.require_held`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_parts_of(path)
    while True:
        temporary = _part(path)
        # Not tempfile.mkstemp, whose files have modes of their own whatever the umask.
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            break
        os.close(handle)  # another writer took it for a dead one's before it was locked
    link = _part(path)
    try:
        yield temporary
        os.fsync(handle)
        if before is not None and path.exists():
            link.hardlink_to(path)
        require_held(path)
        # A process that is stopped here, and wakes when the folder was taken over, finds neither of its parts any more:
        # see remove_parts.
        if before is not None and link.exists():
            link.replace(before)
        temporary.replace(path)
    except FileNotFoundError:
        require_held(path)
        raise
    finally:
        for part in (temporary, link):  # a link stays if both names were of one file, after a kill at that point
            part.unlink(missing_ok=True)
        os.close(handle)
    _sync_folder(path.parent)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")


def remove_parts_of(path: Path) -> None:
    """Delete what writers of one file left when they were killed; a living one holds a lock on its part."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.????????{PART}"):
        with suppress(OSError), part.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a file's new name survive a power cut, as its content does."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # not every file system can sync a folder, and the file is whole in any case
    finally:
        os.close(handle)


def remove_parts(folder: Path) -> None:
    """Delete the files that interrupted writes left in a folder and below, while nobody else writes there."""
    for part in folder.rglob(f".*{PART}"):
        part.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file whole or not at all; see :func:`written_whole`."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
