"""Whose a run's folder is: one process trains a run, wherever the others are.

A claim is a file ``.owner/<number>.claim`` (JSON) in the run's folder. It is made by a hard link, whole, and by one
process only, on NFS too (``flock`` is not to be relied on there). The claim of the highest number is what counts.

- It says which process made it, and its time of change is the owner's sign of life.
- An owner that lets go empties it. One that is killed leaves it as it is.
- Who comes next makes the claim of the next number, and deletes the lower ones. Of several that find the same owner
  gone, one can make it. One that was so slow that its number has been given and deleted since sees a higher number when
  it looks again: the highest is never deleted.

Whether an owner is gone: on the same machine, by its process. Elsewhere, by its sign of life, which the file server
dates: it is compared with a file that is touched beside it, so that no machine's clock is asked. And since the server's
clock may be put right, too, an owner that seems gone is watched for a while, by this process's monotonic clock. An
owner from before this machine was started (a power cut) has been silent for as long as the machine has been up, and is
not waited for any longer.

The sign of life is given by a thread, not by the training's steps: filling the decode cache or scoring may take longer
than any patience without a step, and whether training makes progress is for who gave it its time to judge.
"""

import hashlib
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from saliency_entropy.errors import UserError, cannot_write

BEAT = 4.0  # seconds between two signs of life
WATCH = 3 * BEAT  # seconds that an owner elsewhere which seems gone is watched
# Seconds without a sign of life after which the owner on another machine is taken for gone. Long: it may be stopped, or
# cut off from the file server, and it is better to wait for a dead machine than to train a run twice.
SILENCE = 600.0

MACHINE_ID = Path("/etc/machine-id")

_CLAIM = re.compile(r"(\d+)\.claim")


@dataclass(frozen=True)
class Owner:
    """The process that a run's folder is or was held by.

    Attributes:
        host: its name.
        pid: of the process.
        job: the Slurm job, if it is one's.
        started: when it took the folder, in ISO 8601; by its own clock, so for the reader only.
        beat: its last sign of life, in seconds; by the file server's clock, so to be compared with files only.
        machine: what process numbers refer to: the boot of a machine, and the PID namespace there.
        process_start: tells the process from a later one of the same number.
        restart: how often Slurm had restarted the job.
        installation: stands for the system installed on the machine, over its boots; None if that cannot be told.
            Machines that boot one image share it.
    """

    host: str
    pid: int
    job: str | None
    started: str
    beat: float
    machine: str
    process_start: str | None
    restart: int
    installation: str | None = None  # which claims of earlier versions do not have

    def __str__(self) -> str:
        job = f", Slurm job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.started}"


@contextmanager
def held(folder: Path) -> Iterator[Owner | None]:
    """Hold a run's folder. It is free again afterwards, or when this process has ended, however it ended.

    Yields:
        the process that held it before and was killed; None if the folder was free.

    Raises:
        UserError: another process holds it (said in under 5 seconds), or the folder cannot be written to.
    """
    claims = _claims_folder(folder)
    try:
        claims.mkdir(parents=True, exist_ok=True)
        claim, before = _claimed(folder)
        hold = _Hold(folder, claim)
    except OSError as error:
        raise cannot_write(claims, error) from error
    _HOLDS.append(hold)
    try:
        yield before
    finally:
        _HOLDS.remove(hold)
        hold.release()


def read_owner(folder: Path) -> Owner | None:
    """Who holds a run's folder, or held it when it was killed; None if it is free."""
    while True:
        claim = _newest(_claims_folder(folder))
        if claim is None:
            return None
        with suppress(FileNotFoundError):  # taken over just now
            return _owner(claim)


def state(folder: Path) -> Literal["free", "held", "stale"]:
    """Whether a run's folder can be taken: ``stale`` if its owner is gone without letting go."""
    owner = read_owner(folder)
    if owner is None:
        return "free"
    return "stale" if _gone(owner, _claims_folder(folder), lambda: False) else "held"


def require_held(path: Path) -> None:
    """Called before a file takes its place, so that nothing is written into a run's folder that was taken from this
    process, which it may find out when it wakes after having been stopped.

    Raises:
        UserError: this process held a folder above ``path``, and another has taken it over.
    """
    for hold in _HOLDS:
        if path.absolute().is_relative_to(hold.folder):
            hold.check()


class _Hold:
    """A claim of this process, and the thread that gives its sign of life."""

    def __init__(self, folder: Path, claim: Path) -> None:
        self.folder = folder.absolute()
        self.claim = claim
        self._pid = os.getpid()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._live, name="sign of life", daemon=True)
        self._thread.start()

    def check(self) -> None:
        if os.getpid() != self._pid:  # a forked child's writing is its parent's
            return
        newest = _newest(self.claim.parent)
        if newest is None or newest.name != self.claim.name:
            raise UserError(
                f"{self.folder} was taken over by {read_owner(self.folder) or 'another process'}: this one gave no "
                f"sign of life for more than {SILENCE / 60:.0f} minutes, or the folder was deleted under it; it ends "
                "without writing anything more"
            )

    def release(self) -> None:
        if os.getpid() != self._pid:
            return
        self._released.set()
        self._thread.join()
        # In its place, which needs no room on a full disk. If it fails, the claim is void when this process has ended.
        with suppress(OSError):
            os.truncate(self.claim, 0)

    def _live(self) -> None:
        while not self._released.wait(BEAT):
            # What fails here fails again where the run writes, and is said there.
            with suppress(OSError):
                os.utime(self.claim)


# Of this process: one run at a time, but whoever writes a file need not know of which.
_HOLDS: list[_Hold] = []


def _claims_folder(folder: Path) -> Path:
    return folder / ".owner"


def _number(claim: Path) -> int:
    return int(_CLAIM.fullmatch(claim.name)[1])


def _newest(claims: Path) -> Path | None:
    try:
        found = [claim for claim in claims.iterdir() if _CLAIM.fullmatch(claim.name)]
    except FileNotFoundError:
        return None
    return max(found, key=_number, default=None)


def _owner(claim: Path) -> Owner | None:
    """Who made a claim; None if it was let go of. Raises FileNotFoundError if it was deleted."""
    with claim.open() as file:  # opened, since NFS may have another file's time of change in its memory
        content, beat = file.read(), os.fstat(file.fileno()).st_mtime
    try:
        return Owner(**json.loads(content), beat=beat)
    except (ValueError, TypeError):
        # Claims appear whole. This one was let go of, or its content was lost with its machine.
        return None


def _claimed(folder: Path) -> tuple[Path, Owner | None]:
    """The claim of this process, and who held the folder when it was killed. Raises UserError if another process holds
    it."""
    claims = _claims_folder(folder)
    while True:
        newest, owner = _newest(claims), None
        if newest is not None:
            try:
                owner = _owner(newest)
            except FileNotFoundError:
                continue
            if owner is not None and not _gone(owner, claims, partial(_lives, newest, owner)):
                raise UserError(_held_by(folder, owner))
        claim = claims / f"{_number(newest) + 1 if newest else 1}.claim"
        if _made(claim):
            # Now the listing is up to date: NFS asks the server again after a change of one's own.
            if _newest(claims) == claim:
                _clear(claim)
                return claim, owner
            claim.unlink(missing_ok=True)


def _made(claim: Path) -> bool:
    """Make a claim; False if another process was quicker."""
    own = asdict(_this_process())
    del own["beat"]
    handle, name = tempfile.mkstemp(dir=claim.parent, prefix=".")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(own))
        try:
            claim.hardlink_to(temporary)
        except FileExistsError:
            # NFS may lose the answer and ask again: two names tell that the link is this one.
            return temporary.stat().st_nlink == 2
        return True
    except FileNotFoundError:  # cleared by the owner that was quicker
        return False
    finally:
        temporary.unlink(missing_ok=True)


def _clear(claim: Path) -> None:
    for other in claim.parent.iterdir():
        if not _CLAIM.fullmatch(other.name) or _number(other) < _number(claim):
            other.unlink(missing_ok=True)


def slurm_job() -> tuple[str | None, int]:
    """The Slurm job of this process, None outside of one, and how often Slurm has restarted it."""
    job = os.environ.get("SLURM_JOB_ID")
    return job, int(os.environ.get("SLURM_RESTART_COUNT", 0)) if job else 0


def _this_process() -> Owner:
    job, restart = slurm_job()
    return Owner(
        host=socket.gethostname(),
        pid=os.getpid(),
        job=job,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        beat=0.0,
        machine=_machine(),
        process_start=_process_start(os.getpid()),
        restart=restart,
        installation=_installation(),
    )


def _machine() -> str:
    """Two processes that share it see each other's process numbers; not the host's name, which containers share."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux: a name has to do
        return socket.gethostname()


def _installation() -> str | None:
    try:
        machine_id = MACHINE_ID.read_text().strip()
    except OSError:
        return None
    # The identifier itself is not for publication, see machine-id(5).
    return hashlib.sha256(machine_id.encode()).hexdigest()[:16] if re.fullmatch("[0-9a-f]{32}", machine_id) else None


def _uptime() -> float:
    """Seconds since this machine was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _process_start(pid: int) -> str | None:
    """When a process started, in ticks since the boot, which no clock changes; ``ended`` for one that waits for its
    parent to take note; None if it cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return "ended" if fields[0] in (b"Z", b"X") else fields[19].decode()


def _gone(owner: Owner, claims: Path, lives: Callable[[], bool]) -> bool:
    """Whether the owner has ended.

    Args:
        owner: of a claim.
        claims: their folder.
        lives: watches an owner that seems gone by the file server's clock.
    """
    if owner.machine == _machine():
        return _ended(owner)
    own = _this_process()
    if owner.job is not None and owner.job == own.job and owner.restart < own.restart:
        return True  # Slurm restarts a job when it has ended
    patience = min(SILENCE, _uptime()) if _of_an_earlier_boot(owner, own) else SILENCE
    try:
        # Before or after: the server's clock may have been a day ahead when it dated the sign of life.
        return abs(_server_time(claims) - owner.beat) > patience and not lives()
    except OSError:  # where nothing can be written, nothing can be taken over
        return False


def _of_an_earlier_boot(owner: Owner, own: Owner) -> bool:
    """Whether the owner seems to have been on this machine, before it was started."""
    same = (owner.host, owner.installation) == (own.host, own.installation)
    return same and own.installation is not None and owner.machine.split()[0] != own.machine.split()[0]


def _ended(owner: Owner) -> bool:
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    start = _process_start(owner.pid)
    return start is not None and start != owner.process_start


def _server_time(claims: Path) -> float:
    with tempfile.TemporaryFile(dir=claims) as probe:
        os.utime(probe.fileno())
        return os.fstat(probe.fileno()).st_mtime


def _lives(claim: Path, seen: Owner) -> bool:
    """Watch a claim for a sign of life since it was seen."""
    until = time.monotonic() + WATCH
    while time.monotonic() < until:
        time.sleep(BEAT / 4)
        try:
            owner = _owner(claim)
        except FileNotFoundError:
            return False
        if owner is None or owner.beat != seen.beat:
            return owner is not None
    return False


def _held_by(folder: Path, owner: Owner) -> str:
    message = f"{folder} is being trained by {owner}: wait for it, or give another study="
    if owner.machine != _machine():
        message += f" (if {owner.host} is lost, the run can be taken over after {SILENCE / 60:.0f} minutes)"
    return message
