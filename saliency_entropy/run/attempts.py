"""``attempts.json``: how often a run was begun, and how each time ended."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from saliency_entropy.errors import UserError, is_no_room
from saliency_entropy.run.folder import epochs_done, write_atomically
from saliency_entropy.run.lock import Owner, slurm_job

# A job that Slurm has ended so often in one epoch, each time after as long, comes to its time limit there.
TIMES_IN_ONE_EPOCH = 3
AS_LONG = 1.25  # the longest of these times is at most so many times the shortest, in seconds at least:
LEAST_LIMIT = 60  # Slurm counts its limits in minutes


def read_attempts(folder: Path) -> list[dict[str, Any]]:
    """The attempts at a run, the first one first.

    Each has ``started`` and ``ended`` (ISO 8601; of one that was killed, None until the next one notes it), ``state``,
    ``reason`` (the last line of its error, None without one), ``epochs`` (whole epochs that the run had when it
    began), ``job`` (of Slurm; None outside) and ``restart`` (how often Slurm had restarted that). The state is
    ``finished``, ``failed``, ``no room`` (to write on the disk), or ``killed``: of an attempt that did not end by
    itself, and of one that goes on.
    """
    try:
        attempts = json.loads((folder / "attempts.json").read_text())
    except FileNotFoundError:
        return []
    except ValueError:
        attempts = None
    if not isinstance(attempts, list) or not all(isinstance(one, dict) and "state" in one for one in attempts):
        raise UserError(f"{folder / 'attempts.json'} is no list of attempts; delete it, and they are counted from 0")
    return attempts


def check_attempts(folder: Path, most: int) -> None:
    """Refuse a run that failed ``most`` times. Kills and full disks do not count, nor does what is found before the
    training.

    Raises:
        UserError: names the last error.
    """
    failed = [attempt for attempt in read_attempts(folder) if attempt["state"] == "failed"]
    if len(failed) >= most:
        times = "once" if len(failed) == 1 else f"{len(failed)} times"
        raise UserError(
            f"{folder} failed {times}, the last time with: {failed[-1].get('reason')}; see train.log there, and give "
            f"max_attempts={len(failed) + 1} to try again"
        )


def note_end(folder: Path, owner: Owner | None) -> None:
    """Note of the last attempt, if it could not say when it ended, the last sign of life of ``owner``, which held the
    folder."""
    attempts = read_attempts(folder)
    if owner is None or not attempts or attempts[-1]["state"] != "killed" or attempts[-1].get("ended") is not None:
        return
    attempts[-1]["ended"] = _iso(datetime.fromtimestamp(owner.beat, UTC))
    _write(folder, attempts)


def refuse_endless_requeue(folder: Path) -> None:
    """Refuse a run that Slurm's time limit always ends within the same epoch: its job would be queued again for ever.

    Preemptions, which come after other times, do not count, nor do the attempts of another job, nor those after which
    Slurm did not restart it: Ctrl-C in an interactive job ended them.

    Raises:
        UserError: names the job and the time.
    """
    job, restart = slurm_job()
    last = read_attempts(folder)[-TIMES_IN_ONE_EPOCH:]
    if job is None or len(last) < TIMES_IN_ONE_EPOCH:
        return
    restarts = [*(attempt.get("restart") for attempt in last), restart]
    if any(earlier == later for earlier, later in pairwise(restarts)):
        return
    here = {"state": "killed", "job": job, "epochs": epochs_done(folder)}
    seconds = [_seconds(attempt) for attempt in last if attempt | here == attempt]
    if len(seconds) < len(last) or min(seconds) < LEAST_LIMIT or max(seconds) > AS_LONG * min(seconds):
        return
    raise UserError(
        f"{folder}: {len(last)} times in a row Slurm ended job {job} after about {round(min(seconds) / 60)} min "
        "without a whole epoch more, so that the run would never get on: give the same command with more time "
        "(hydra.launcher.timeout_min=, or sbatch --time=)"
    )


@contextmanager
def attempt(folder: Path) -> Iterator[None]:
    """Record what is done meanwhile as an attempt at the run."""
    earlier = read_attempts(folder)
    # Killed, until it can say otherwise.
    this = {"started": _now(), "ended": None, "state": "killed", "reason": None}
    job, restart = slurm_job()
    this |= {"epochs": epochs_done(folder), "job": job, "restart": restart}
    _write(folder, [*earlier, this])
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):  # Ctrl-C or SIGTERM
            state, reason = "killed", None
        else:
            # A full disk is no fault of the run, which must go on as soon as there is room.
            state, reason = "no room" if is_no_room(error) else "failed", _last_line(error)
        with suppress(OSError, UserError):  # a full disk, for instance, which is what the error says
            _write(folder, [*earlier, this | {"ended": _now(), "state": state, "reason": reason}])
        raise
    _write(folder, [*earlier, this | {"ended": _now(), "state": "finished"}])


def forget_attempts(folder: Path) -> None:
    (folder / "attempts.json").unlink(missing_ok=True)


def _write(folder: Path, attempts: list[dict[str, Any]]) -> None:
    write_atomically(folder / "attempts.json", json.dumps(attempts, indent=2) + "\n")


def _now() -> str:
    return _iso(datetime.now(UTC))


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def _seconds(attempt: dict[str, Any]) -> float:
    """How long an attempt took; 0 if it is not known."""
    try:
        started, ended = (datetime.fromisoformat(attempt[key]) for key in ("started", "ended"))
        return (ended - started).total_seconds()
    except (KeyError, TypeError, ValueError):
        return 0.0


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    last = lines[-1].strip() if lines else ""
    if isinstance(error, UserError):
        return last
    return f"{type(error).__name__}: {last}" if last else type(error).__name__
