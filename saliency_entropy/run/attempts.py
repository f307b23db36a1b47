"""``attempts.json``: how often a run was begun, and how each attempt ended."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from saliency_entropy.errors import UserError, is_no_room
from saliency_entropy.run.folder import epochs_done
from saliency_entropy.run.lock import Owner, slurm_job
from saliency_entropy.run.whole_files import write_atomically

# A job that Slurm ends this often within one epoch, each time after about as long, reaches its time limit there.
TIMES_IN_ONE_EPOCH = 3
AS_LONG = 1.25  # the longest of these times is at most this multiple of the shortest,
SHORTEST_LIMIT = 60  # which is at least this many seconds: Slurm counts its limits in minutes


def read_attempts(folder: Path) -> list[dict[str, Any]]:
    """The attempts at a run, the first one first.

    Each has ``started`` and ``ended`` (ISO 8601; a killed attempt has no end, None, until the next attempt notes it),
    ``state``, ``reason`` (the last line of its error, None without one), ``epochs`` (whole epochs that the run had when
    the attempt began), ``job`` (of Slurm; None outside Slurm) and ``restart`` (how often Slurm had restarted the job).
    The state is ``finished``, ``failed``, ``no room`` (on the disk), or ``killed``, which stands for an attempt that
    goes on, too.
    """
    try:
        attempts = json.loads((folder / "attempts.json").read_text())
    except FileNotFoundError:
        return []
    except ValueError:
        attempts = None
    if not isinstance(attempts, list) or not all(isinstance(entry, dict) and "state" in entry for entry in attempts):
        raise UserError(f"{folder / 'attempts.json'} is not a list of attempts; delete it, and they are counted from 0")
    return attempts


def refuse_after_failures(folder: Path, max_attempts: int) -> None:
    """Refuse a run that has failed ``max_attempts`` times. Kills, full disks, and mistakes found before the training
    do not count.

    Raises:
        UserError: names the last error.
    """
    failed = [attempt for attempt in read_attempts(folder) if attempt["state"] == "failed"]
    if len(failed) >= max_attempts:
        times = "once" if len(failed) == 1 else f"{len(failed)} times"
        raise UserError(
            f"{folder} failed {times}, the last time with: {failed[-1].get('reason')}; see train.log there, and give "
            f"max_attempts={len(failed) + 1} to try again"
        )


def date_killed_attempt(folder: Path, killed_owner: Owner | None) -> None:
    """Note when the last attempt ended if it was killed: at the last sign of life of its process, which held the
    folder."""
    attempts = read_attempts(folder)
    if killed_owner is None or not attempts:
        return
    if attempts[-1]["state"] == "killed" and attempts[-1].get("ended") is None:
        attempts[-1]["ended"] = _iso(datetime.fromtimestamp(killed_owner.beat, UTC))
        _write(folder, attempts)


def refuse_endless_requeue(folder: Path) -> None:
    """Refuse a run that Slurm's time limit ends within the same epoch each time: its job would be requeued for ever.

    Preemptions do not count, since they come after other times; nor do attempts of another job, nor those after which
    Slurm did not restart it: Ctrl-C in an interactive job ended them.

    Raises:
        UserError: names the job and the time.
    """
    job, restart = slurm_job()
    last = read_attempts(folder)[-TIMES_IN_ONE_EPOCH:]
    if job is None or len(last) < TIMES_IN_ONE_EPOCH:
        return
    here = {"state": "killed", "job": job, "epochs": epochs_done(folder)}
    seconds = [_seconds(attempt) for attempt in last if attempt | here == attempt]
    restarts = {restart, *(attempt.get("restart") for attempt in last)}
    if len(seconds) < len(last) or len(restarts) <= len(last):
        return
    if min(seconds) >= SHORTEST_LIMIT and max(seconds) <= AS_LONG * min(seconds):
        raise UserError(
            f"{folder}: {len(last)} times in a row Slurm ended job {job} after about {round(min(seconds) / 60)} min "
            "before the next epoch was done, so the run would never advance: give the same command with more time "
            "(hydra.launcher.timeout_min=, or sbatch --time=)"
        )


@contextmanager
def attempt(folder: Path) -> Iterator[None]:
    """Record an attempt at the run, which lasts until the end of the ``with`` block."""
    earlier = read_attempts(folder)
    job, restart = slurm_job()
    # Killed, until it can say otherwise.
    this = {"started": _iso(datetime.now(UTC)), "ended": None, "state": "killed", "reason": None}
    this |= {"epochs": epochs_done(folder), "job": job, "restart": restart}
    _write(folder, [*earlier, this])

    def end(state: str, reason: str | None = None) -> None:
        _write(folder, [*earlier, this | {"ended": _iso(datetime.now(UTC)), "state": state, "reason": reason}])

    try:
        yield
    except BaseException as error:
        with suppress(OSError, UserError):  # a full disk, for instance, which is what the error says
            if not isinstance(error, Exception):  # Ctrl-C or SIGTERM
                end("killed")
            else:
                # A full disk is no fault of the run, which must go on as soon as there is room.
                end("no room" if is_no_room(error) else "failed", _last_line(error))
        raise
    end("finished")


def _write(folder: Path, attempts: list[dict[str, Any]]) -> None:
    write_atomically(folder / "attempts.json", json.dumps(attempts, indent=2) + "\n")


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def _seconds(attempt: dict[str, Any]) -> float:
    """How long an attempt took; 0 if that is unknown."""
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
