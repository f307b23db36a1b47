"""Which runs of a study are in Slurm's queue: what squeue says of jobs, and the study's record of whose they are.

The record of a submission is ``<study>/.submitit/<array>.json``: folder of a run, relative to the study's -> its job
and the hash of its configuration.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from saliency_entropy.errors import UserError
from saliency_entropy.run.whole_files import write_atomically

# squeue's words for a job that has ended. One that was preempted, or whose node failed, is soon pending again.
ENDED_STATES = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
}  # fmt: skip


class QueuedJob(NamedTuple):
    """A job that was submitted for a run.

    Attributes:
        job_id: ``<array>_<index>`` for a job of an array.
        config_hash: see :func:`~saliency_entropy.run.folder.config_hash`.
    """

    job_id: str
    config_hash: str

    def require_hash(self, config_hash: str, name: str) -> None:
        """Raises UserError if the run, by the name that the sentence gives it, has another configuration now."""
        if self.config_hash != config_hash:
            raise UserError(
                f"{name} is in Slurm's queue with another configuration: wait for it, end it (scancel {self.job_id}), "
                "or give another study="
            )


def array_id(job_id: str) -> str:
    """The id that the jobs of one submission share."""
    return job_id.partition("_")[0]


def record_jobs(study: Path, submitted: Mapping[Path, QueuedJob]) -> None:
    """Write down which job of one submission is which run's, by the folder of the run."""
    array = array_id(next(iter(submitted.values())).job_id)
    # Relative, since a study may be moved.
    jobs = {os.path.relpath(folder, study): job for folder, job in submitted.items()}
    write_atomically(study / ".submitit" / f"{array}.json", json.dumps(jobs, indent=2) + "\n")


def queued_jobs(study: Path) -> dict[Path, QueuedJob] | None:
    """Folder of a run, resolved -> its pending or running job, of a study; None if Slurm does not answer."""
    files = (path for path in (study / ".submitit").glob("*.json") if path.stem.isdigit())
    records = sorted(files, key=lambda file: int(file.stem))
    if not records:
        return {}
    states = job_states([path.stem for path in records])
    if states is None:
        return None
    alive = {job_id for job_id, state in states.items() if state not in {*ENDED_STATES, "COMPLETING"}}
    jobs = {}
    for path in records:
        with suppress(ValueError):  # a damaged record: a job that is submitted again finds that the run is held
            for folder, (job_id, config_hash) in json.loads(path.read_text()).items():
                if job_id in alive:
                    jobs[(study / folder).resolve()] = QueuedJob(job_id, config_hash)
    return jobs


def require_queued_jobs(study: Path) -> dict[Path, QueuedJob]:
    """As :func:`queued_jobs`; raises UserError if Slurm does not answer."""
    jobs = queued_jobs(study)
    if jobs is None:
        raise UserError(
            f"Slurm does not say which runs of {study} are in its queue (squeue fails): give the command again when it "
            "answers"
        )
    return jobs


def job_states(arrays: Sequence[str]) -> dict[str, str] | None:
    """Job id -> state of every job that Slurm still knows; None if Slurm does not answer, or is not here.

    Args:
        arrays: the :func:`array_id` of each submission.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(arrays)}", "--format=%i %T"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode:
        return {} if "Invalid job id" in answer.stderr else None
    return dict(line.split() for line in answer.stdout.splitlines())
