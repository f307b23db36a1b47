"""``hydra/sweeper=grid``, the one that is used if none is named: every combination of the values that are swept.

Hydra's own, but for the runs of a study that are done: they are not launched again. A launcher would compose the
configuration of each, and most would start a process for it, only for the run to say that it is done.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError, writing
from saliency_entropy.run.command import ended_with_a_sentence, one_sentence
from saliency_entropy.run.folder import differing_keys, finished_result, run_folder, write_atomically
from saliency_entropy.sweep.jobs import composed_runs, plain_config
from saliency_entropy.sweep.progress import SweepProgress, sweep_overrides

log = logging.getLogger(__name__)


class GridSweeper(Sweeper):
    """See ``conf/hydra/sweeper/grid.yaml``."""

    def __init__(self, params: Mapping[str, str]) -> None:
        self.params = params  # read by sweep_overrides, of the configuration

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        overrides = sweep_overrides(self.config)
        # All are composed before the first begins, so that a mistake in the last is found now.
        with ended_with_a_sentence():
            runs = list(composed_runs(self.context.config_loader, self.config, overrides))
        _refuse_twice(runs)
        # Not before: of the last sweep that had runs, status and report name those that are missing.
        folder = Path(self.config.hydra.sweep.dir)
        with one_sentence(), writing(folder, "give another runs_dir="):
            write_atomically(folder / "multirun.yaml", OmegaConf.to_yaml(self.config))
        left = [own for own, run in zip(overrides, runs, strict=True) if not _is_done(run)]
        done = len(overrides) - len(left)
        if done:
            log.info("%d of %d runs are done", done, len(overrides))
        for callback in self.context.callbacks.callbacks:
            if isinstance(callback, SweepProgress):
                callback.pass_over(done)
        # An error of a run is raised when it is asked for what it returned.
        for ended in self.launcher.launch(left, initial_job_idx=done) if left else ():
            _ = ended.return_value


def _refuse_twice(runs: list[DictConfig]) -> None:
    folders = Counter(_folder(run) for run in runs)
    twice = [folder for folder, times in folders.items() if times > 1]
    if twice:
        raise CompactHydraException(
            f"the command has {twice[0]} more than once; give what differs a study= of its own, or leave out the double"
        )


def _folder(run: DictConfig) -> Path:
    """Raises CompactHydraException if the run's name is none."""
    with one_sentence():
        return Path(run_folder(run.runs_dir, run.study, run.method.name, run.seed))


def _is_done(run: DictConfig) -> bool:
    """Whether nothing is to be done or said by a run."""
    if "_target_" in run.logger:  # it may have to be logged elsewhere still
        return False
    folder = _folder(run)
    try:
        if finished_result(folder) is None:
            return False
        return not differing_keys(folder, plain_config(run))
    except (UserError, OmegaConfBaseException, OSError):
        return False  # the run says what is wrong
