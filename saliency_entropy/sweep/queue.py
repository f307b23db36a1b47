"""Which runs of a sweep are in Slurm's queue: what Slurm says of its jobs, and a note of whose they are.

The note of a submission is ``<study>/.submitit/<id>.json``: folder of a run, below the study's -> its job, and the hash
of its configuration.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from saliency_entropy.run.folder import write_atomically

# squeue's words for a job that is over. One that was preempted, or whose node failed, is soon pending again.
OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
}  # fmt: skip


class Queued(NamedTuple):
    """A job that was submitted for a run.

    Attributes:
        job: its id, ``<array>_<index>`` where it is one of an array.
        config_hash: see :func:`~saliency_entropy.run.folder.config_hash`.
    """

    job: str
    config_hash: str


def place(folder: Path) -> Path:
    """A folder by the one name that :func:`queued_runs` has for it, however its path is spelled."""
    return Path(os.path.normpath(folder.absolute()))


def array_of(job: str) -> str:
    """The id that the jobs of one submission share."""
    return job.partition("_")[0]


def note(study: Path, submitted: Mapping[Path, Queued]) -> None:
    """Keep which job of one submission is which run's."""
    array = array_of(next(iter(submitted.values())).job)
    # A study may be moved.
    runs = {os.path.relpath(folder, study): queued for folder, queued in submitted.items()}
    write_atomically(study / ".submitit" / f"{array}.json", json.dumps(runs, indent=2) + "\n")


def queued_runs(study: Path) -> dict[Path, Queued] | None:
    """The runs of a study of which a job is pending or running, by the :func:`place` of their folders; None if Slurm
    does not answer.

    Args:
        study: its folder.
    """
    notes = sorted((path for path in (study / ".submitit").glob("*.json") if path.stem.isdigit()), key=_number)
    if not notes:
        return {}
    known = states([path.stem for path in notes])
    if known is None:
        return None
    # COMPLETING is what is being ended.
    alive = {job for job, state in known.items() if state not in {*OVER, "COMPLETING"}}
    runs = {}
    for path in notes:
        with suppress(ValueError):  # damaged: what is submitted again finds the run held
            for folder, (job, config_hash) in json.loads(path.read_text()).items():
                if job in alive:
                    runs[place(study / folder)] = Queued(job, config_hash)
    return runs


def _number(note: Path) -> int:
    return int(note.stem)


def states(arrays: Sequence[str]) -> dict[str, str] | None:
    """The state of each of the jobs of these submissions that Slurm still knows, by its id; None if Slurm does not
    answer, or is not here.

    Args:
        arrays: what :func:`array_of` gives of them.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(arrays)}", "--format=%i %T"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if told.returncode:
        return {} if "Invalid job id" in told.stderr else None
    return dict(line.split() for line in told.stdout.splitlines())
