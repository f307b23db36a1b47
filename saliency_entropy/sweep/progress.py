"""Around the runs: can their folder be made, and where does a sweep stand (run 7 of 18, time left, what failed)."""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError, in_one_line, writing
from saliency_entropy.run.command import no_environment_variables, sentence
from saliency_entropy.run.folder import run_folder, study_folder, write_atomically

log = logging.getLogger(__name__)

PROBE = 1 << 16  # bytes


class CheckFolder(Callback):
    """A Hydra callback that says in one sentence why the folder of a run or sweep cannot be made.

    Hydra makes it before the command begins, and would show a traceback of its own.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._check(lambda: run_folder(config.runs_dir, config.study, config.method.name, config.seed))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._check(lambda: study_folder(config.runs_dir, config.study))

    def _check(self, name: Callable[[], str]) -> None:
        # Hydra turns what a callback raises into a warning, but lets it leave.
        try:
            with no_environment_variables():
                folder = Path(name())
            with writing(folder, "give another runs_dir="):
                folder.mkdir(parents=True, exist_ok=True)
                # Room for what Hydra writes there; of a full disk it would show a traceback, too.
                with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
                    probe.write(bytes(PROBE))
        except (UserError, OmegaConfBaseException) as error:
            sys.exit(sentence(error))


class SweepProgress(Callback):
    """A Hydra callback that says before and after every run of a sweep where the sweep stands, and keeps in the log of
    every run, of a sweep or not, with which error it failed.

    The runs of a sweep may be in processes of their own, so each leaves a small file in ``<study>/.sweep``.
    """

    def __init__(self) -> None:
        self.total: int | None = None
        self.passed_over = 0
        self.started: float | None = None
        self.was_done = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.total = count_runs(config)
        self.launched = time.monotonic()
        # Of this launch alone: others may be of the same second, and in a container of the same process number.
        self.folder = Path(config.hydra.sweep.dir) / ".sweep" / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}"

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if self.total is None:
            return
        # Not the time of its result, which the file server's clock gives.
        self.was_done = (Path(config.hydra.runtime.output_dir) / "result.json").exists()
        self.started = time.monotonic()
        ended = self._ended()
        trained = [run["seconds"] for run in ended if run["state"] == "trained"]
        left = ""
        if trained:
            # Runs that will be skipped are not known before their turn, so this is at most.
            at_once = runs_at_a_time(config.hydra.launcher, config.threads)
            seconds = sum(trained) / len(trained) * (self.total - config.hydra.job.num) / at_once
            left = f", at most {_duration(seconds)} left"
        log.info(
            "run %d of %d: %s, seed %s%s%s",
            config.hydra.job.num + 1, self.total, config.method.name, config.seed, left, _failures(ended),
        )  # fmt: skip

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if self.total is None:
            if job_return.status == JobStatus.FAILED:
                _keep_in_log(job_return._return_value)
            return
        number = config.hydra.job.num + 1
        # A launcher that says how a run ended (its process died, or is of an earlier launch) did not begin it.
        seconds = time.monotonic() - (self.launched if self.started is None else self.started)
        was_done, self.was_done, self.started = self.was_done, False, None
        if job_return.status == JobStatus.FAILED:
            state = "failed"
            error = job_return._return_value
            # Where a run has a process or a machine of its own, nobody else gets to see where in the program it was.
            log.error("run %d of %d failed, the others go on: %s", number, self.total, error, exc_info=_where(error))
        elif was_done:
            state = "skipped"
        else:
            state = "trained"
        entry = {
            "state": state,
            "seconds": seconds,
            "folder": config.hydra.runtime.output_dir,
        }
        if job_return.status == JobStatus.FAILED:
            entry["reason"] = in_one_line(job_return._return_value, None)
        write_atomically(self.folder / f"{number}.json", json.dumps(entry))
        self.say_if_ended()

    def pass_over(self, runs: int) -> None:
        """Count as many runs as done before, which the sweeper does not launch."""
        self.passed_over = runs
        self.say_if_ended()

    def say_if_ended(self) -> None:
        """Log what became of the sweep, once all its runs have ended."""
        ended = self._ended()
        if len(ended) + self.passed_over == self.total:
            counts = {state: sum(run["state"] == state for run in ended) for state in ("trained", "skipped")}
            log.info(
                "sweep ended: %d runs, %d trained, %d done before%s",
                self.total, counts["trained"], counts["skipped"] + self.passed_over, _failures(ended),
            )  # fmt: skip

    def _ended(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]


def count_runs(config: DictConfig) -> int | None:
    """How many runs a sweep has; None if its sweeper decides on them as it goes."""
    overrides = sweep_overrides(config)
    return None if overrides is None else len(overrides)


def sweep_overrides(config: DictConfig) -> list[list[str]] | None:
    """The overrides of each run of a sweep, in its order; None if its sweeper decides on them as it goes."""
    sweeper = config.hydra.sweeper
    if not is_grid(sweeper):
        return None
    params = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    given = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    overrides = parsed_overrides([*params, *given])
    return [run for batch in BasicSweeper.split_arguments(overrides, None) for run in batch]


def is_grid(sweeper: Mapping[str, Any]) -> bool:
    """Whether the settings are of a sweeper that takes every combination of the values: ours, or Hydra's own."""
    return str(sweeper.get("_target_")).rpartition(".")[2] in ("GridSweeper", "BasicSweeper")


def parsed_overrides(overrides: list[str]) -> list[Override]:
    """What they say. Raises HydraException if one is none."""
    # method=glob(*) asks it for the files of the group.
    loader = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
    return OverridesParser.create(loader).parse_overrides(overrides)


def runs_at_a_time(launcher: DictConfig, threads: int | None) -> int:
    """How many runs a launcher of these settings trains at a time, if there are as many.

    Args:
        launcher: its part of the configuration.
        threads: of a run; None where its configuration leaves them open.
    """
    workers = launcher.get("n_jobs") or launcher.get("array_parallelism")
    if not isinstance(workers, int):
        return 1
    if is_local(launcher):
        from saliency_entropy.parallel import thread_count  # not for every command: it imports pandas

        return runs_at_once(max(1, workers), thread_count(), threads)
    return workers if workers > 0 else os.cpu_count() or 1


def is_local(launcher: DictConfig) -> bool:
    """Whether the settings are of this package's launcher on one machine."""
    return str(launcher.get("_target_")).endswith(".local.LocalLauncher")


def shared_threads(n_jobs: int, cores: int) -> int:
    """Of a run on one machine that leaves its threads open: the cores are shared among as many runs as are asked for.

    How many runs are left does not count: the same command again gives a run as many threads, and so the same numbers.
    """
    return max(1, cores // n_jobs)


def runs_at_once(n_jobs: int, cores: int, threads: int | None) -> int:
    """How many runs one machine trains at once: as many as are asked for, but no more than its cores hold.

    Args:
        n_jobs: asked for, from 1 on.
        cores: that there are.
        threads: of the run that has most of them; None: see :func:`shared_threads`.
    """
    return min(n_jobs, max(1, cores // (threads or shared_threads(n_jobs, cores))))


def _where(error: BaseException) -> BaseException | None:
    """The error whose traceback is shown; None for a user's mistake, of which the sentence says everything."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":  # Hydra itself cannot show that of a run in another process
        return error
    return None if isinstance(error, CompactHydraException) else error


def _keep_in_log(error: BaseException) -> None:
    """Write an error into the run's log file only: Hydra, or the sweeper, says on the terminal what failed."""
    where = _where(error)
    trace = None if where is None else (type(where), where, where.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "this launch failed: %s", (error,), trace)
    for handler in logging.root.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _failures(ended: list[dict[str, Any]]) -> str:
    failed = [Path(run["folder"]) for run in ended if run["state"] == "failed"]
    if not failed:
        return ""
    return f", {len(failed)} failed ({', '.join(f'{folder.parent.name}/{folder.name}' for folder in failed)})"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "a minute"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
