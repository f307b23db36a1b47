"""``hydra/launcher=slurm``: the runs of a sweep as one Slurm job array.

Submission is submitit's, called through hydra-submitit-launcher. Its own way to wait for results ends with the first
run that died, and needs Slurm's accounting to notice one; here all are waited for, with squeue.
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
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import in_one_line
from saliency_entropy.run.command import no_environment_variables, sentence
from saliency_entropy.run.folder import config_hash, study_folder
from saliency_entropy.sweep.jobs import SweepJob, plain_config, sweep_jobs
from saliency_entropy.sweep.progress import SweepProgress
from saliency_entropy.sweep.queue import OVER, Queued, array_of, note, place, queued_runs, states

if TYPE_CHECKING:
    from submitit import Job

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0  # seconds between two looks for results
ASK_EVERY = 15.0  # seconds between two questions to Slurm
LATE = 30.0  # seconds until the result of a job that has ended is seen from here, on a shared disk

# Of the launcher's settings these are submitit's for any kind of cluster.
OF_ANY_CLUSTER = (
    "cpus_per_task", "gpus_per_node", "mem_gb", "name", "nodes", "stderr_to_stdout", "tasks_per_node", "timeout_min",
)  # fmt: skip


class SlurmLauncher(Launcher):
    """See ``conf/hydra/launcher/slurm.yaml``.

    Args:
        setup: shell lines before each run.
        additional_parameters: options of sbatch that submitit does not know.
        parameters: options that it knows.
    """

    def __init__(self, setup: Sequence[str], additional_parameters: DictConfig, **parameters: Any) -> None:
        self.lines = list(setup)
        self.additional = {"requeue": True, **additional_parameters}
        self.parameters = {name: value for name, value in parameters.items() if value is not None}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.task = task_function
        self.config = config
        self._check()

    def _check(self) -> None:
        """Refuse what cannot be submitted, and what would not stay where it belongs in a job script."""
        # Not an import: it is Hydra that imports its plugins, and what is missing is missing quietly.
        if importlib.util.find_spec("submitit") is None or not _has_submitit_launcher():
            raise CompactHydraException(
                "hydra/launcher=slurm needs hydra-submitit-launcher: pip install 'saliency-entropy[cluster]'"
            )
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise CompactHydraException(
                "hydra/launcher=slurm needs Slurm's sbatch and srun, which are not here: give the command where jobs "
                "are submitted to the cluster"
            )
        if self.config.hydra.job.env_copy:
            raise CompactHydraException(
                "hydra.job.env_copy would write environment variables into the study's files; Slurm passes them on to "
                "its jobs without it: leave it out"
            )
        try:
            with no_environment_variables():
                OmegaConf.to_container(self.config.hydra.launcher, resolve=True)
        except OmegaConfBaseException as error:
            raise CompactHydraException(
                f"hydra.launcher cannot go into a job script ({in_one_line(error, 80)}): Slurm passes the environment "
                "on to its jobs by itself; any other value give as it is"
            ) from error
        for name, value in (self.parameters | self.additional).items():
            if not re.fullmatch(r"[a-z][a-z_-]*", name) or not str(value).isprintable():
                raise CompactHydraException(
                    f"hydra.launcher: {name!r} = {value!r} cannot be an option in a job script: give it in one line"
                )
        if not self.folder.isprintable() or "%" in self.folder:
            raise CompactHydraException(
                f"{self.folder!r} cannot be the folder of a sweep on Slurm, which would read the % or line break in "
                "it: give another runs_dir="
            )

    def check_processes(self, run: DictConfig) -> None:
        """Raises CompactHydraException if ``srun`` would start other processes than those that train a run together:
        one too many finds that the run is being trained, and its failure ends the others."""
        for name, setting in (("devices", "tasks_per_node"), ("num_nodes", "nodes")):
            wanted, started = run.trainer.get(name, 1), self.parameters.get(setting, 1)
            if wanted != started:
                raise CompactHydraException(
                    f"trainer.{name} is {wanted} and hydra.launcher.{setting} is {started}: Slurm starts the processes "
                    "that train a run together; give both the same number"
                )

    @property
    def folder(self) -> str:
        """Of the sweep."""
        return str(Path(study_folder(self.config.runs_dir, self.config.study)).absolute())

    @property
    def options(self) -> dict[str, Any]:
        """What decides the job script, as submitit calls it."""
        return {
            "name": self.config.study.replace("/", "."),
            "stderr_to_stdout": True,
            "setup": self.lines,
            "additional_parameters": self.additional,
            # Since Slurm 22.05, srun does not take the number of cores from the job. Of a run of several processes, one
            # that fails ends the others, which would wait for it.
            "srun_args": [f"--cpus-per-task={self.parameters.get('cpus_per_task', 1)}", "--kill-on-bad-exit=1"],
            **self.parameters,
        }

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        cores = self.parameters.get("cpus_per_task", 1)
        jobs = sweep_jobs(self.context, self.config, job_overrides, initial_job_idx, cores)
        # One that is done says so here; in the queue it would wait for a node, and import PyTorch, to say it.
        returns = {at: self._here(job) for at, job in enumerate(jobs) if (job.folder / "result.json").exists()}
        missing = {at: job for at, job in enumerate(jobs) if at not in returns}
        for job in missing.values():
            self.check_processes(job.config)
        if missing:
            returns |= self._in_slurm(missing)
        return [returns[at] for at in range(len(jobs))]

    def _here(self, job: SweepJob) -> JobReturn:
        done = run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=job.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return done

    def _in_slurm(self, jobs: dict[int, SweepJob]) -> dict[int, JobReturn]:
        hashes = {at: _hash(job.config) for at, job in jobs.items()}
        queued = self._queued(jobs, hashes)
        if queued:
            ids = ", ".join(_arrays(queued))
            log.info("%d of %d runs are in Slurm's queue already (%s): waiting for these", len(queued), len(jobs), ids)
        missing = {at: job for at, job in jobs.items() if at not in queued}
        submitted = dict(zip(missing, self._submit(list(missing.values())), strict=True)) if missing else {}
        try:
            if missing:
                study = Path(self.folder)
                note(study, {jobs[at].folder: Queued(job.job_id, hashes[at]) for at, job in submitted.items()})
                (array,) = _arrays(submitted)
                log.info("Slurm job %s: %d runs; what they print is in %s/.submitit", array, len(missing), study)
            return self._wait(jobs, queued, submitted)
        except KeyboardInterrupt:
            arrays = _arrays(queued | submitted)
            print(
                f"the jobs go on (squeue --jobs={','.join(arrays)} shows them, scancel {' '.join(arrays)} ends them): "
                "the same command again waits for them, and trains what is missing",
                file=sys.stderr,
            )
            sys.exit(130)

    def _queued(self, jobs: dict[int, SweepJob], hashes: dict[int, str]) -> "dict[int, Job[JobReturn]]":
        """The jobs of an earlier launch of the sweep that are pending or running."""
        from submitit import SlurmJob

        runs = queued_runs(Path(self.folder))
        if runs is None:
            raise CompactHydraException(
                "Slurm does not say which runs of this sweep are in its queue (squeue fails): give the command again "
                "when it answers"
            )
        found = {}
        for at, job in jobs.items():
            queued = runs.get(place(job.folder))
            if queued is None:
                continue
            if queued.config_hash != hashes[at]:
                raise CompactHydraException(
                    f"{job.name} is in Slurm's queue with another configuration: wait for it, end it "
                    f"(scancel {queued.job}), or give another study="
                )
            earlier = SlurmJob(f"{self.folder}/.submitit/%j", queued.job)
            if not earlier.paths.result_pickle.exists():  # else it has ended, which squeue shows a little later
                found[at] = earlier
        return found

    def _submit(self, jobs: list[SweepJob]) -> "list[Job[JobReturn]]":
        import submitit
        from submitit.core.utils import FailedJobError

        from saliency_entropy.sweep.slurm_job import SlurmJob

        run = SlurmJob()
        run.setup(hydra_context=self.context, task_function=self.task, config=self.config)
        # What is kept for a job is its sweep's configuration, as text that has not been resolved.
        arguments = [
            (job.overrides, "hydra.sweep.dir", job.config.hydra.job.num, "", Singleton.get_state()) for job in jobs
        ]
        for job in jobs:
            log.info("\t#%d : %s", job.config.hydra.job.num, " ".join(filter_overrides(job.overrides)))
        try:
            executor = submitit.AutoExecutor(f"{self.folder}/.submitit/%j", cluster="slurm")
            executor.update_parameters(
                **{name if name in OF_ANY_CLUSTER else f"slurm_{name}": value for name, value in self.options.items()}
            )
            return executor.map_array(run, *zip(*arguments, strict=True))
        except (FailedJobError, NameError, TypeError, ValueError) as error:
            raise CompactHydraException(f"the sweep cannot be submitted: {in_one_line(error, None)}") from error

    def _wait(
        self, jobs: dict[int, SweepJob], queued: "dict[int, Job[JobReturn]]", submitted: "dict[int, Job[JobReturn]]"
    ) -> dict[int, JobReturn]:
        """What became of each run.

        Args:
            jobs: the runs.
            queued: the Slurm jobs of an earlier launch.
            submitted: those of this one.
        """
        arrays = _arrays(queued | submitted)
        returns: dict[int, JobReturn] = {}
        died: dict[int, JobReturn] = {}
        over: dict[int, float] = {}  # when a job without a result was first seen to be so
        asked = time.monotonic()
        while len(returns) + len(died) < len(jobs):
            time.sleep(LOOK_EVERY)
            waiting = {at: job for at, job in (queued | submitted).items() if at not in returns | died}
            # On NFS, what was not there stays so until its folder is read again.
            list(Path(self.folder, ".submitit").iterdir())
            for at, job in waiting.items():
                first = job.task(0)  # of the processes that train one detector, it writes and speaks for all
                if first.paths.result_pickle.exists():
                    if first.exception() is None:
                        returns[at] = first.result()
                    else:
                        died[at] = jobs[at].failed(f"its Slurm job {job.job_id} failed; see {self._output(job)}")
                    failed = at in died or returns[at].status == JobStatus.FAILED
                    how = "failed" if failed else "ended"
                    log.info("%d of %d %s: %s", len(returns) + len(died), len(jobs), how, jobs[at].name)
            if time.monotonic() < asked + ASK_EVERY or (known := states(arrays)) is None:
                continue
            asked = time.monotonic()
            for at, job in waiting.items():
                state = known.get(job.job_id, "gone")
                if at in returns or at in died or (state != "gone" and state not in OVER):
                    over.pop(at, None)
                elif asked - over.setdefault(at, asked) >= LATE:
                    died[at] = jobs[at].failed(
                        f"its Slurm job {job.job_id} ended without a result ({state}; its output is in "
                        f"{self._output(job)}); give the same command again to go on"
                    )
        # The other jobs have told this launch of their end, and the last of them how the sweep ended, into its own log.
        untold = died | {at: returns[at] for at in queued if at in returns}
        for at, job_return in untold.items():
            self.context.callbacks.on_job_end(config=jobs[at].config, job_return=job_return)
        if not untold:
            for callback in self.context.callbacks.callbacks:
                if isinstance(callback, SweepProgress):
                    callback.say_if_ended()
        return returns | died

    def _output(self, job: "Job[JobReturn]") -> Path:
        """What a job prints: a file, or of several processes their folder, since any may be the one that failed."""
        file = job.task(0).paths.stdout
        several = self.parameters.get("nodes", 1) * self.parameters.get("tasks_per_node", 1) > 1
        return file.parent if several else file


def _has_submitit_launcher() -> bool:
    return importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is not None


def _arrays(jobs: "dict[int, Job[JobReturn]]") -> list[str]:
    return sorted({array_of(job.job_id) for job in jobs.values()}, key=int)


def _hash(config: DictConfig) -> str:
    try:
        return config_hash(plain_config(config))
    except OmegaConfBaseException as error:
        raise CompactHydraException(sentence(error)) from error
