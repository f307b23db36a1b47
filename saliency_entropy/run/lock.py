"""Who owns a run's folder: one process trains a run, whichever machines the others are on.

A claim is a file ``.owner/<number>.claim`` (JSON) in the run's folder. It appears whole, and only one process can make
it: a hard link sees to both, on NFS too (``flock`` cannot be relied on there). The highest number counts.

- A claim names the process that made it. The file's time of change is that owner's sign of life.
- An owner that releases the folder empties its claim. An owner that is killed leaves its claim as it is.
- The next owner makes the claim with the next number and deletes the lower ones. Of several processes that find the
  same owner gone, only one can make it. A process so slow that its number was used and deleted in the meantime finds a
  higher number when it looks again, for the highest is never deleted.

When is an owner gone? On the same machine, when its process has ended. Elsewhere, when it has given no sign of life for
ten minutes by the file server's clock: the claim is compared with a file touched beside it, so no machine's own clock
is asked. The server's clock may be set, too, so a silent owner is also watched for a while by this process's monotonic
clock. An owner from before this machine was started (a power cut) has been silent for as long as the machine has been
up, and needs to be silent no longer.

A thread gives the sign of life, not the training's steps: filling the decode cache or scoring may take longer than any
patience, and whether the training advances is for the scheduler to judge.

filelock's SoftFileLease does less: a process that leaves at once never takes over from a lost machine, since it would
have to watch for the ten minutes itself; and a living owner on another machine of the same host name is robbed.
"""

import hashlib
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from saliency_entropy.errors import UserError, writing

BEAT = 4.0  # seconds between two signs of life
WATCH = 3 * BEAT  # seconds for which a silent owner elsewhere is watched
# Seconds of silence after which an owner on another machine is gone. Long: it may be stopped or cut off from the file
# server, and waiting for a dead machine is better than training a run twice.
SILENCE = 600.0

MACHINE_ID = Path("/etc/machine-id")

_CLAIM = re.compile(r"(\d+)\.claim")


class HeldElsewhere(UserError):
    """Another process holds a run's folder: the run is in good hands, though not in these."""


@dataclass(frozen=True)
class Owner:
    """The process that holds, or held, a run's folder. Equal owners are the same process.

    Attributes:
        host: the machine's name.
        pid: the process's number.
        job: its Slurm job; None outside Slurm.
        started: when it took the folder, in ISO 8601; by its own clock, so only for the reader.
        beat: its last sign of life, in seconds; by the file server's clock, so only to be compared with files.
        machine: where its number is valid: the boot of a machine, and the PID namespace there.
        process_start: tells it from a later process with the same number.
        restart: how often Slurm had restarted the job.
        installation: identifies the system installed on the machine across boots; None if unknown, as in claims of
            earlier versions. Machines that boot one image share it.
    """

    host: str
    pid: int
    job: str | None
    started: str
    beat: float = field(compare=False)
    machine: str
    process_start: str | None
    restart: int
    installation: str | None = None

    def __str__(self) -> str:
        job = f", Slurm job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.started}"


# The claims of this process, by the absolute path of the folder that each holds.
_HELD: dict[Path, Path] = {}
# A forked child writes in the name of its parent, and releases nothing.
os.register_at_fork(after_in_child=_HELD.clear)


@contextmanager
def held(folder: Path) -> Iterator[Owner | None]:
    """Hold a run's folder. It is free again afterwards, or once this process has ended, however it ended.

    Yields:
        the process that was killed while it held the folder before; None if the folder was free.

    Raises:
        HeldElsewhere: another process holds it (found out in under 5 seconds).
        UserError: the folder cannot be written to.
    """
    claims = _claims_folder(folder)
    with writing(claims, "give another runs_dir="):
        claims.mkdir(parents=True, exist_ok=True)
        claim, killed_owner = _take(folder)
    released = threading.Event()
    signs_of_life = threading.Thread(target=_give_signs_of_life, args=(claim, released), daemon=True)
    signs_of_life.start()
    _HELD[folder.absolute()] = claim
    try:
        yield killed_owner
    finally:
        if _HELD.pop(folder.absolute(), None) is not None:
            released.set()
            signs_of_life.join()
            # Emptied in place, which needs no room on a full disk. If that fails, the claim is void when this process
            # has ended.
            with suppress(OSError):
                os.truncate(claim, 0)


def _give_signs_of_life(claim: Path, released: threading.Event) -> None:
    while not released.wait(BEAT):
        # What fails here fails again where the run writes, and is reported there.
        with suppress(OSError):
            os.utime(claim)


def read_owner(folder: Path) -> Owner | None:
    """The process that holds a run's folder, or held it when it was killed; None if the folder is free."""
    return _newest(_claims_folder(folder))[1]


def state(folder: Path) -> Literal["free", "held", "stale"]:
    """Whether a run's folder can be taken: ``stale`` if its owner is gone without releasing it."""
    owner = read_owner(folder)
    if owner is None:
        return "free"
    return "stale" if _gone(owner, _claims_folder(folder), watch=False) else "held"


def require_held(path: Path) -> None:
    """Refuse to put a file into a run's folder that was taken from this process, which may find that out only when it
    wakes after having been stopped.

    Raises:
        UserError: this process held a folder above ``path``, and another process has taken it over.
    """
    for folder, claim in list(_HELD.items()):
        if not path.absolute().is_relative_to(folder):
            continue
        number, owner = _newest(claim.parent)
        if claim.name != _name(number):
            raise UserError(
                f"{folder} was taken over by {owner or 'another process'}: this one gave no sign of life for more than "
                f"{SILENCE / 60:.0f} minutes, or the folder was deleted under it; it ends without writing anything more"
            )


def _claims_folder(folder: Path) -> Path:
    return folder / ".owner"


def _name(number: int) -> str:
    return f"{number}.claim"


def _newest(claims: Path) -> tuple[int, Owner | None]:
    """The number of the claim that counts, 0 if there is no claim; and its owner, None if the folder was released."""
    while True:
        try:
            files = list(claims.iterdir())
        except FileNotFoundError:
            return 0, None
        number = max((int(match[1]) for file in files if (match := _CLAIM.fullmatch(file.name))), default=0)
        if number == 0:
            return 0, None
        try:
            with (claims / _name(number)).open() as file:  # opened: NFS may remember an old time of change
                content, beat = file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:  # taken over just now
            continue
        try:
            claim = json.loads(content)
            # Those of later versions may say more.
            known = {part.name: claim[part.name] for part in fields(Owner) if part.name in claim}
            return number, Owner(**known | {"beat": beat})
        except (ValueError, TypeError):
            # Claims appear whole: this one was emptied by its owner, or lost its content with its machine.
            return number, None


def _take(folder: Path) -> tuple[Path, Owner | None]:
    """This process's claim to a folder, and the owner that was killed before.

    Raises:
        HeldElsewhere: another process holds it.
    """
    claims = _claims_folder(folder)
    while True:
        number, owner = _newest(claims)
        if owner is not None and not _gone(owner, claims, watch=True):
            message = f"{folder} is being trained by {owner}: wait for it, or give another study="
            if owner.machine != _machine():
                minutes = f"{SILENCE / 60:.0f} minutes"
                message += f" (if {owner.host} is lost, the run can be taken over after {minutes})"
            raise HeldElsewhere(message)
        claim = claims / _name(number + 1)
        if _make(claim):
            # Now the listing is up to date: NFS asks the server again after a change of one's own.
            if _newest(claims)[0] == number + 1:
                _delete_others(claim)
                return claim, owner
            claim.unlink(missing_ok=True)


def _make(claim: Path) -> bool:
    """Make a claim; False if another process was quicker."""
    content = asdict(_this_process())
    del content["beat"]
    handle, name = tempfile.mkstemp(dir=claim.parent, prefix=".")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(content))
        try:
            claim.hardlink_to(temporary)
        except FileExistsError:
            # NFS may lose the answer and ask again; if the file has two names, the link is this process's.
            return temporary.stat().st_nlink == 2
        return True
    except FileNotFoundError:  # deleted by the owner that was quicker
        return False
    finally:
        temporary.unlink(missing_ok=True)


def _delete_others(claim: Path) -> None:
    """Delete the claims with lower numbers, and temporary files."""
    number = int(claim.stem)
    for file in claim.parent.iterdir():
        match = _CLAIM.fullmatch(file.name)
        if match is None or int(match[1]) < number:
            file.unlink(missing_ok=True)


def slurm_job() -> tuple[str | None, int]:
    """This process's Slurm job, None outside Slurm, and how often Slurm has restarted it."""
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
    """Shared by processes that see each other's process numbers; not the host's name, which containers share."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux: the name has to do
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
    """When a process started, in ticks since the boot, which no clock changes; ``ended`` for a process whose parent has
    not yet noticed its end; None if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return "ended" if fields[0] in (b"Z", b"X") else fields[19].decode()


def _gone(owner: Owner, claims: Path, watch: bool) -> bool:
    """Whether an owner has ended.

    Args:
        owner: of the claim that counts.
        claims: the folder of the claims.
        watch: whether an owner elsewhere that has been silent for too long is watched before it is taken for gone.
    """
    own = _this_process()
    if owner.machine == own.machine:
        return _ended(owner)
    if owner.job is not None and owner.job == own.job and owner.restart < own.restart:
        return True  # Slurm restarts a job only when it has ended
    patience = SILENCE
    here = own.installation is not None and (owner.host, owner.installation) == (own.host, own.installation)
    if here and owner.machine.split()[0] != own.machine.split()[0]:  # this machine, it seems, before its last start
        patience = min(SILENCE, _uptime())
    try:
        # Before or after: the server's clock may have been a day ahead when it dated the sign of life.
        silent = abs(_server_time(claims) - owner.beat) > patience
        return silent and not (watch and _lives(owner, claims))
    except OSError:  # where nothing can be written, nothing can be taken over
        return False


def _ended(owner: Owner) -> bool:
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's process
        pass
    start = _process_start(owner.pid)
    return start is not None and start != owner.process_start


def _server_time(claims: Path) -> float:
    with tempfile.TemporaryFile(dir=claims) as probe:
        os.utime(probe.fileno())
        return os.fstat(probe.fileno()).st_mtime


def _lives(owner: Owner, claims: Path) -> bool:
    """Watch for a sign of life; False as well if the owner releases the folder or loses it to another meanwhile."""
    until = time.monotonic() + WATCH
    while time.monotonic() < until:
        time.sleep(BEAT / 4)
        _, now = _newest(claims)
        if now != owner:
            return False
        if now.beat != owner.beat:
            return True
    return False
