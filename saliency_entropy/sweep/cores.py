"""How many runs are trained at once, and how many threads each has."""

import os

from omegaconf import DictConfig

from saliency_entropy.cpu.cores import thread_count


def is_local(launcher: DictConfig) -> bool:
    """Whether the settings are those of ``hydra/launcher=local``."""
    return str(launcher.get("_target_")).endswith(".local.LocalLauncher")


def runs_at_once(launcher: DictConfig, threads: int | None) -> int:
    """The number of runs that a launcher with these settings trains at once, if there are as many.

    Args:
        launcher: the launcher's part of the configuration.
        threads: threads of a run; None where its configuration leaves them open.
    """
    workers = launcher.get("n_jobs") or launcher.get("array_parallelism")
    if not isinstance(workers, int):
        return 1
    if is_local(launcher):
        return runs_that_fit(max(1, workers), thread_count(), threads)
    return workers if workers > 0 else os.cpu_count() or 1


def shared_threads(n_jobs: int, cores: int) -> int:
    """The threads of a local run that leaves them open: the runs that are asked for at once share the cores.

    The number of runs that are left does not count: the same command again gives a run the same number of threads, and
    so the same numbers.
    """
    return max(1, cores // n_jobs)


def runs_that_fit(n_jobs: int, cores: int, threads: int | None) -> int:
    """The number of runs that one machine trains at once: as many as are asked for, but no more than its cores hold.

    Args:
        n_jobs: the number asked for, from 1 on.
        cores: of the machine.
        threads: of the run with the most; None: :func:`shared_threads`.
    """
    return min(n_jobs, max(1, cores // (threads or shared_threads(n_jobs, cores))))
