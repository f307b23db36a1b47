"""``hydra/launcher=local``, the default: the runs of a sweep on this machine, each in a process of its own.

The processes are forked from one that has imported PyTorch, so that no run waits for the import. A run that dies (for
want of memory, say) fails alone, whereas Hydra's own launcher and joblib's end the whole sweep. On a machine with
several GPUs, runs at the same time have different ones.
"""

import ctypes
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from saliency_entropy.cpu.cores import thread_count
from saliency_entropy.errors import UserError, in_one_line, whole_number
from saliency_entropy.run.command import ENDING, ended_with_a_sentence, one_sentence
from saliency_entropy.sweep.cores import runs_that_fit, shared_threads
from saliency_entropy.sweep.jobs import SweepJob, sweep_jobs

log = logging.getLogger(__name__)

GRACE = 30.0  # seconds that the runs have to end when the sweep is ended; a second Ctrl-C cuts them short
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class LocalLauncher(Launcher):
    """See ``conf/hydra/launcher/local.yaml``.

    Args:
        n_jobs: runs at once.
    """

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.task = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        with one_sentence():
            whole_number("hydra.launcher.n_jobs", self.n_jobs, 1)
            if sys.platform == "linux":
                with ended_with_a_sentence():
                    return self._launch(job_overrides, initial_job_idx)
            if self.n_jobs > 1:
                raise UserError("several runs at once need Linux here: give hydra/launcher=joblib")
        in_this_process = BasicLauncher()
        in_this_process.setup(hydra_context=self.context, task_function=self.task, config=self.config)
        return in_this_process.launch(job_overrides, initial_job_idx)

    def _launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        # Here, so that every run's process has it from the beginning.
        importlib.import_module("saliency_entropy.training")
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        cores = thread_count()
        jobs = sweep_jobs(self.context, self.config, job_overrides, initial_job_idx, shared_threads(self.n_jobs, cores))
        for job in jobs:
            whole_number("threads", job.config.threads, 1, or_null=True)
        at_once = min(len(jobs), runs_that_fit(self.n_jobs, cores, max(job.config.threads for job in jobs)))
        if at_once < min(self.n_jobs, len(jobs)):
            log.info("%d at once, not %d: there are %d cores", at_once, self.n_jobs, cores)
        for number, job in enumerate(jobs, start=initial_job_idx):
            log.info("\t#%d : %s", number, " ".join(filter_overrides(job.overrides)))
        gpus = _visible_gpus() if at_once > 1 else []
        return self._run(jobs, at_once, gpus)

    def _run(self, jobs: list[SweepJob], at_once: int, gpus: list[str]) -> list[JobReturn]:
        waiting = jobs[::-1]
        running: dict[int, tuple[SweepJob, int, ForkProcess, Connection]] = {}  # by the process's sentinel
        ended: dict[SweepJob, JobReturn] = {}
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop()
                    slot = min(set(range(at_once)) - {taken for _, taken, _, _ in running.values()})
                    process, connection = self._start(job, _gpu_of(job, gpus, slot), at_once == 1)
                    running[process.sentinel] = job, slot, process, connection
                for sentinel in wait(list(running)):
                    job, _, process, connection = running.pop(sentinel)
                    process.join()
                    ended[job] = self._ended(job, process, connection)
        finally:
            _end([process for _, _, process, _ in running.values()])
        return [ended[job] for job in jobs]

    def _start(self, job: SweepJob, gpu: str | None, alone: bool) -> tuple[ForkProcess, Connection]:
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=self._child, args=(job, gpu, alone, there, os.getpid()))
        # The child must not run this process's signal handlers; it sets its own in a moment.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        return process, here

    def _child(self, job: SweepJob, gpu: str | None, alone: bool, connection: Connection, parent: int) -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no run outlives a sweep that is killed
        if os.getppid() != parent:
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the sweep's own ends the others
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        if gpu is not None:  # CUDA reads it when it is first used, which is in this process
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        if alone and sys.stdin is not None:
            sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for a breakpoint; multiprocessing gives /dev/null
        done = job.run(self.context, self.task)
        value = done._return_value
        if done.status == JobStatus.FAILED:
            kind = "" if isinstance(value, CompactHydraException) else f"{type(value).__name__}: "
            value = kind + in_one_line(value, None)
        connection.send((done.status, value))

    def _ended(self, job: SweepJob, process: ForkProcess, connection: Connection) -> JobReturn:
        with connection, suppress(EOFError):  # it died before it said how the run ended
            status, value = connection.recv()
            if status == JobStatus.FAILED:
                return job.failed(value)
            return JobReturn(overrides=job.overrides, status=status, _return_value=value)
        if process.exitcode < 0:
            how = f"its process was killed by {signal.Signals(-process.exitcode).name}, perhaps for want of memory"
        else:
            how = f"its process ended with code {process.exitcode} in the middle of the run"
        died = job.failed(f"{how}; give the same command again to go on")
        self.context.callbacks.on_job_end(config=job.config, job_return=died)
        return died


def _visible_gpus() -> list[str]:
    """The GPUs that this process may use, by their names in CUDA_VISIBLE_DEVICES.

    Found without using CUDA, since no child of a process that uses CUDA can use it.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    from torch.cuda import device_count

    return [str(number) for number in range(device_count())]  # it asks the driver


def _gpu_of(job: SweepJob, gpus: list[str], slot: int) -> str | None:
    """The GPU of the run in a slot, one of those that run at once; None where there is no choice."""
    trainer = job.config.trainer
    if len(gpus) < 2 or trainer.accelerator == "cpu" or trainer.devices != 1:
        return None
    return gpus[slot % len(gpus)]


def _end(processes: list[ForkProcess]) -> None:
    """End processes, gently at first."""
    try:
        for process in processes:
            process.terminate()
        until = time.monotonic() + GRACE
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
    finally:  # even after a second Ctrl-C
        for process in processes:
            process.kill()
            process.join()
