"""Where a sweep stands: run 7 of 18, the time left, the runs that failed."""

import json
import logging
import os
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.run.lock import HeldElsewhere
from saliency_entropy.run.whole_files import write_atomically
from saliency_entropy.sweep.cores import runs_at_once
from saliency_entropy.sweep.swept import sweep_overrides
from saliency_entropy.sweep.terminal_grid import duration

log = logging.getLogger(__name__)


class SweepProgress(Callback):
    """A Hydra callback that logs before and after every run of a sweep where the sweep stands, and writes into the log
    of every run, in a sweep or not, the error that it failed with.

    The runs of a sweep may be in processes of their own, so each leaves a small file in ``<study>/.sweep``.
    """

    def __init__(self) -> None:
        self.total: int | None = None  # runs of the sweep; None for a single run, and where the sweeper chooses them
        self.passed_over = 0
        self.started: float | None = None
        self.was_done = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with suppress(UserError):  # too many runs, which the sweeper refuses
            overrides = sweep_overrides(config.hydra)
            self.total = None if overrides is None else len(overrides)
        self.launched = time.monotonic()
        # Of this launch alone: others may be of the same second, and in a container of the same process number.
        self.folder = Path(config.hydra.sweep.dir) / ".sweep" / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}"

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if self.total is None:
            return
        # Asked now, since the file server's clock decides the time of its result.
        self.was_done = (Path(config.hydra.runtime.output_dir) / "result.json").exists()
        self.started = time.monotonic()
        ended = self._ended()
        trained = [run["seconds"] for run in ended if run["state"] == "trained"]
        left = ""
        if trained:
            # Runs that will be skipped are not known before their turn, so this is an upper bound.
            at_once = runs_at_once(config.hydra.launcher, config.threads)
            seconds = sum(trained) / len(trained) * (self.total - config.hydra.job.num) / at_once
            left = f", at most {duration(seconds)} left"
        *variant, _, _ = self._name(config.hydra.runtime.output_dir).split("/")
        log.info(
            "run %d of %d: %s%s, seed %s%s%s", config.hydra.job.num + 1, self.total,
            "".join(f"{name}, " for name in variant), config.method.name, config.seed, left, self._failures(ended),
        )  # fmt: skip

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        error = job_return._return_value if job_return.status == JobStatus.FAILED else None
        if self.total is None:
            if error is not None:
                _write_into_log_file(error)
            return
        number = config.hydra.job.num + 1
        # Another launch of the sweep trains the run, which is no failure of this one. Of several processes, though,
        # only the first finds that, and has to fail for Slurm to end the others, which wait for it.
        alone = (config.trainer.devices, config.trainer.get("num_nodes", 1)) == (1, 1)
        elsewhere = alone and isinstance(getattr(error, "__cause__", None), HeldElsewhere)
        if elsewhere:
            log.info("run %d of %d is left to another launch: %s", number, self.total, error)
            job_return.status, job_return.return_value, error = JobStatus.COMPLETED, None, None
        # A launcher that reports how a run ended (its process died, or an earlier launch began it) did not start it.
        seconds = time.monotonic() - (self.launched if self.started is None else self.started)
        entry = {"state": "trained", "seconds": seconds, "folder": config.hydra.runtime.output_dir}
        if error is not None:
            entry |= {"state": "failed", "reason": in_one_line(error, None)}
            # A run in a process or on a machine of its own shows only here where in the program it was.
            log.error("run %d of %d failed, the others go on: %s", number, self.total, error, exc_info=_traced(error))
        elif elsewhere or self.was_done:
            entry["state"] = "elsewhere" if elsewhere else "skipped"
        self.was_done, self.started = False, None
        write_atomically(self.folder / f"{number}.json", json.dumps(entry))
        self.log_if_ended()

    def pass_over(self, runs: int) -> None:
        """Count runs that were done before, which the sweeper does not launch."""
        self.passed_over = runs
        self.log_if_ended()

    def log_if_ended(self) -> None:
        """Log what became of the sweep, once all its runs have ended."""
        ended = self._ended()
        if len(ended) + self.passed_over == self.total:
            counts = Counter(run["state"] for run in ended)
            elsewhere = f", {counts['elsewhere']} left to another launch" if counts["elsewhere"] else ""
            log.info(
                "sweep ended: %d runs, %d trained, %d done before%s%s",
                self.total, counts["trained"], counts["skipped"] + self.passed_over, elsewhere, self._failures(ended),
            )  # fmt: skip

    def _ended(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]

    def _name(self, folder: str) -> str:
        """The folder of a run, relative to the study's: with its variant, or its study if that is another one."""
        return os.path.relpath(folder, self.folder.parents[1]).lstrip("./")

    def _failures(self, ended: list[dict[str, Any]]) -> str:
        failed = [self._name(run["folder"]) for run in ended if run["state"] == "failed"]
        return f", {len(failed)} failed ({', '.join(failed)})" if failed else ""


def _traced(error: BaseException) -> BaseException | None:
    """The error whose traceback is shown; None for a user's mistake, whose sentence says everything."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":  # Hydra itself cannot show that of a run in another process
        return error
    return None if isinstance(error, CompactHydraException) else error


def _write_into_log_file(error: BaseException) -> None:
    """Only there: Hydra, or the sweeper, says on the terminal what failed."""
    traced = _traced(error)
    trace = None if traced is None else (type(traced), traced, traced.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "this launch failed: %s", (error,), trace)
    for handler in logging.root.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
