"""``hydra/launcher=slurm``: the runs of a sweep as one Slurm job array.

Submission is submitit's, called through hydra-submitit-launcher. Its own way to wait for results ends with the first
run that died, and needs Slurm's accounting to notice one; here all jobs are waited for, with squeue.
"""

import importlib.util
import logging
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.run.command import no_environment_variables, one_sentence
from saliency_entropy.run.folder import config_hash, study_folder
from saliency_entropy.sweep.jobs import SweepJob, plain_config, sweep_jobs
from saliency_entropy.sweep.progress import SweepProgress
from saliency_entropy.sweep.queue import ENDED_STATES, QueuedJob, array_id, job_states, record_jobs, require_queued_jobs

if TYPE_CHECKING:
    from submitit import Job

    SlurmJobs = dict[SweepJob, Job[JobReturn]]

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0  # seconds between two looks for results
ASK_EVERY = 15.0  # seconds between two questions to Slurm
LATE = 30.0  # seconds until the result of a job that has ended is seen from here, on a shared disk


class SlurmLauncher(Launcher):
    """See ``conf/hydra/launcher/slurm.yaml``.

    Args:
        setup: shell lines before each run.
        additional_parameters: options of sbatch that submitit does not know.
        parameters: options that submitit knows.
    """

    def __init__(self, setup: Sequence[str], additional_parameters: DictConfig, **parameters: Any) -> None:
        self.lines = list(setup)
        self.additional = {"requeue": True, **additional_parameters}
        self.parameters = {name: value for name, value in parameters.items() if value is not None}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.task = task_function
        self.config = config
        with one_sentence():
            self._check()

    def _check(self) -> None:
        """Refuse what cannot be submitted, and settings that a job script would read as something else."""
        # Found without an import, since Hydra imports its plugins and is quiet about those that fail.
        packages = ("submitit", "hydra_plugins.hydra_submitit_launcher")
        if not all(importlib.util.find_spec(package) for package in packages):
            raise UserError(
                "hydra/launcher=slurm needs hydra-submitit-launcher: pip install 'saliency-entropy[cluster]'"
            )
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise UserError(
                "hydra/launcher=slurm needs Slurm's sbatch and srun, which are not here: give the command where jobs "
                "are submitted to the cluster"
            )
        if self.config.hydra.job.env_copy:
            raise UserError(
                "hydra.job.env_copy would write environment variables into the study's files; Slurm passes them on to "
                "its jobs without it: leave it out"
            )
        try:
            with no_environment_variables():
                OmegaConf.to_container(self.config.hydra.launcher, resolve=True)
        except OmegaConfBaseException as error:
            raise UserError(
                f"hydra.launcher cannot go into a job script ({in_one_line(error, 80)}): Slurm passes the environment "
                "on to its jobs by itself; give any other value as it is"
            ) from error
        for name, value in (self.parameters | self.additional).items():
            if not re.fullmatch(r"[a-z][a-z_-]*", name) or not str(value).isprintable():
                raise UserError(
                    f"hydra.launcher: {name!r} = {value!r} cannot be an option in a job script: give it in one line"
                )
        if not self.folder.isprintable() or "%" in self.folder:
            raise UserError(
                f"{self.folder!r} cannot be the folder of a sweep on Slurm, which would read the % or line break in "
                "it: give another runs_dir="
            )

    def check_processes(self, run: DictConfig) -> None:
        """Raises UserError if ``srun`` would start other processes than those that train a run together: one too many
        would find that the run is being trained, and its failure would end the others."""
        for name, setting in (("devices", "tasks_per_node"), ("num_nodes", "nodes")):
            wanted, started = run.trainer.get(name, 1), self.parameters.get(setting, 1)
            if wanted != started:
                raise UserError(
                    f"trainer.{name} is {wanted} and hydra.launcher.{setting} is {started}: Slurm starts the processes "
                    "that train a run together; give both the same number"
                )

    @property
    def folder(self) -> str:
        """The folder of the study."""
        return str(Path(study_folder(self.config.runs_dir, self.config.study)).absolute())

    @property
    def options(self) -> dict[str, Any]:
        """The options of the job script, by submitit's names."""
        return {
            "name": self.config.study.replace("/", "."),
            "stderr_to_stdout": True,
            "setup": self.lines,
            "additional_parameters": self.additional,
            # Since Slurm 22.05, srun does not take the number of cores from the job. One process of a run that fails
            # ends the others, which would wait for it.
            "srun_args": [f"--cpus-per-task={self.parameters.get('cpus_per_task', 1)}", "--kill-on-bad-exit=1"],
            **self.parameters,
        }

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        cores = self.parameters.get("cpus_per_task", 1)
        with one_sentence():
            jobs = sweep_jobs(self.context, self.config, job_overrides, initial_job_idx, cores)
            returns = {}
            for job in jobs:
                # One that is done says so here; in the queue it would wait for a node, and import PyTorch, to say it.
                if (job.folder / "result.json").exists():
                    returns[job] = job.run(self.context, self.task)
                    configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
            missing = [job for job in jobs if job not in returns]
            for job in missing:
                self.check_processes(job.config)
            if missing:
                returns |= self._in_slurm(missing)
        return [returns[job] for job in jobs]

    def _in_slurm(self, jobs: list[SweepJob]) -> dict[SweepJob, JobReturn]:
        hashes = {job: config_hash(plain_config(job.config)) for job in jobs}
        queued = self._queued(hashes)
        if queued:
            ids = ", ".join(_arrays(queued))
            log.info("%d of %d runs are in Slurm's queue already (%s): waiting for these", len(queued), len(jobs), ids)
        missing = [job for job in jobs if job not in queued]
        submitted = dict(zip(missing, self._submit(missing), strict=True)) if missing else {}
        slurm_jobs = queued | submitted
        try:
            if missing:
                records = {job.folder: QueuedJob(slurm.job_id, hashes[job]) for job, slurm in submitted.items()}
                record_jobs(Path(self.folder), records)
                (array,) = _arrays(submitted)
                log.info("Slurm job %s: %d runs; what they print is in %s/.submitit", array, len(missing), self.folder)
            returns, died = self._wait(slurm_jobs)
        except KeyboardInterrupt:
            arrays = _arrays(slurm_jobs)
            print(
                f"the jobs go on (squeue --jobs={','.join(arrays)} shows them, scancel {' '.join(arrays)} ends them): "
                "the same command again waits for them, and trains what is missing",
                file=sys.stderr,
            )
            sys.exit(130)
        # The other jobs have reported their end in this launch's folder, and the last of them logged the sweep's.
        unreported = [job for job in jobs if job in died or job in queued]
        for job in unreported:
            self.context.callbacks.on_job_end(config=job.config, job_return=returns[job])
        if not unreported:
            for callback in self.context.callbacks.callbacks:
                if isinstance(callback, SweepProgress):
                    callback.log_if_ended()
        return returns

    def _queued(self, hashes: dict[SweepJob, str]) -> "SlurmJobs":
        """The pending and running jobs of an earlier launch of the sweep."""
        from submitit import SlurmJob

        queued_jobs = require_queued_jobs(Path(self.folder))
        found = {}
        for job, own_hash in hashes.items():
            queued = queued_jobs.get(job.folder.resolve())
            if queued is None:
                continue
            queued.require_hash(own_hash, job.name)
            earlier = SlurmJob(f"{self.folder}/.submitit/%j", queued.job_id)
            if not earlier.paths.result_pickle.exists():  # else it has ended, which squeue shows a little later
                found[job] = earlier
        return found

    def _submit(self, jobs: list[SweepJob]) -> "list[Job[JobReturn]]":
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError

        from saliency_entropy.sweep.slurm_job import SlurmJob

        run = SlurmJob()
        run.setup(hydra_context=self.context, task_function=self.task, config=self.config)
        # A job gets the sweep's configuration as text that has not been resolved.
        arguments = [
            (job.overrides, "hydra.sweep.dir", job.config.hydra.job.num, "", Singleton.get_state()) for job in jobs
        ]
        for job in jobs:
            log.info("\t#%d : %s", job.config.hydra.job.num, " ".join(filter_overrides(job.overrides)))
        try:
            executor = SlurmExecutor(f"{self.folder}/.submitit/%j")
            executor.update_parameters(**executor._convert_parameters(self.options))
            return executor.map_array(run, *zip(*arguments, strict=True))
        except (FailedJobError, TypeError, ValueError) as error:
            raise UserError(f"the sweep cannot be submitted: {in_one_line(error, None)}") from error

    def _wait(self, slurm_jobs: "SlurmJobs") -> tuple[dict[SweepJob, JobReturn], set[SweepJob]]:
        """What each run returned, and the runs whose Slurm jobs died."""
        arrays = _arrays(slurm_jobs)
        returns: dict[SweepJob, JobReturn] = {}
        died: set[SweepJob] = set()
        ended_at: dict[SweepJob, float] = {}  # when Slurm first said that a job without a result has ended
        asked = time.monotonic()
        while len(returns) < len(slurm_jobs):
            time.sleep(LOOK_EVERY)
            states = None
            if time.monotonic() >= asked + ASK_EVERY:
                asked, states = time.monotonic(), job_states(arrays)
            # On NFS, a file that was not there is not seen until its folder is read again.
            list(Path(self.folder, ".submitit").iterdir())
            for job, slurm in slurm_jobs.items():
                if job in returns:
                    continue
                first = slurm.task(0)  # of the processes that train one detector, it writes and speaks for all
                why = None
                if first.paths.result_pickle.exists():
                    if first.exception() is None:
                        returns[job] = first.result()
                    else:
                        why = f"failed; see {self._output(slurm)}"
                elif states is not None:
                    state = states.get(slurm.job_id, "gone")
                    if state != "gone" and state not in ENDED_STATES:
                        ended_at.pop(job, None)
                    elif asked - ended_at.setdefault(job, asked) >= LATE:
                        why = (
                            f"ended without a result ({state}; its output is in {self._output(slurm)}); give the same "
                            "command again to go on"
                        )
                if why is not None:
                    died.add(job)
                    returns[job] = job.failed(f"its Slurm job {slurm.job_id} {why}")
                if job in returns:
                    how = "failed" if returns[job].status == JobStatus.FAILED else "ended"
                    log.info("%d of %d %s: %s", len(returns), len(slurm_jobs), how, job.name)
        return returns, died

    def _output(self, slurm: "Job[JobReturn]") -> Path:
        """The file that a job prints to; of a run of several processes their folder, since any may have failed."""
        file = slurm.task(0).paths.stdout
        several = self.parameters.get("nodes", 1) * self.parameters.get("tasks_per_node", 1) > 1
        return file.parent if several else file


def _arrays(slurm_jobs: "SlurmJobs") -> list[str]:
    return sorted({array_id(slurm.job_id) for slurm in slurm_jobs.values()}, key=int)
