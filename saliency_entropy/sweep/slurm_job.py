"""What runs in a Slurm job. Apart from the launcher, since it imports submitit."""

import atexit
import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

import submitit
from hydra.core.utils import JobStatus
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as SubmititLauncher

# The signal that submitit asks Slurm for, before the time limit and, where the cluster does so, before preemption.
LEAVE = signal.SIGUSR2
_leaving = False


class SlurmJob(SubmititLauncher):
    """One run of a sweep, which queues its job again when it is told to leave.

    submitit does so inside its signal handler. Where Slurm has queued the job again already, as it does on preemption,
    Slurm's refusal would become an error of the run there.
    """

    def __call__(self, *arguments: Any) -> Any:
        signal.signal(LEAVE, _leave)
        try:
            ended = super().__call__(*arguments)
        except SystemExit as end:
            if end.code == 128 + LEAVE:
                signal.signal(LEAVE, signal.SIG_IGN)  # which scontrol inherits
                # Each of several processes asks, and Slurm refuses the later ones: another process may be waiting for
                # this one within CUDA, where its handler never runs. The job's id is not SLURM_JOB_ID, which for the
                # last task is the array's: all of the array would be queued again.
                subprocess.run(["scontrol", "requeue", submitit.JobEnvironment().job_id], check=False, timeout=60)
            raise
        if ended.status == JobStatus.FAILED:
            # After submitit has written how the run ended. With several processes, the others might wait for this one
            # for as long as PyTorch does (half an hour): srun ends them, by --kill-on-bad-exit.
            atexit.register(os._exit, 1)
        return ended


def _leave(number: int, _: FrameType | None) -> None:
    global _leaving
    if not _leaving:  # a second signal would interrupt the queueing that the first one has begun
        _leaving = True
        sys.exit(128 + number)
