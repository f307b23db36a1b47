"""``hydra/sweeper=grid``, the default: every combination of the values that are swept.

As Hydra's own sweeper, except that the runs of a study that are done are not launched again. A launcher would compose
the configuration of each, and most would start a process for it, only for the run to say that it is done.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError, writing
from saliency_entropy.run.command import ended_with_a_sentence, one_sentence
from saliency_entropy.run.folder import differing_keys, finished_result, run_folder
from saliency_entropy.run.whole_files import write_atomically
from saliency_entropy.sweep.jobs import composed_runs, plain_config
from saliency_entropy.sweep.progress import SweepProgress
from saliency_entropy.sweep.swept import sweep_overrides

log = logging.getLogger(__name__)


class GridSweeper(Sweeper):
    """See ``conf/hydra/sweeper/grid.yaml``."""

    def __init__(self, params: Mapping[str, str]) -> None:
        self.params = params  # sweep_overrides reads them from the configuration

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        overrides = sweep_overrides(self.config.hydra)
        with one_sentence():
            # All are composed before the first begins, so that a mistake in the last is found now.
            with ended_with_a_sentence():
                runs = list(composed_runs(self.context.config_loader, self.config, overrides))
            folders = [Path(run_folder(run.runs_dir, run.study, run.method.name, run.seed)) for run in runs]
            folder, times = Counter(folders).most_common(1)[0]
            if times > 1:
                raise UserError(
                    f"the command has {folder} more than once; give what differs a study= of its own, or remove the "
                    "duplicate"
                )
            # Not earlier: status and report name the missing runs of the last sweep that was not refused.
            study = Path(self.config.hydra.sweep.dir)
            with writing(study, "give another runs_dir="):
                write_atomically(study / "multirun.yaml", OmegaConf.to_yaml(self.config))
        left = [own for own, *run in zip(overrides, runs, folders, strict=True) if not _is_done(*run)]
        done = len(overrides) - len(left)
        if done:
            log.info("%d of %d runs are done", done, len(overrides))
        for callback in self.context.callbacks.callbacks:
            if isinstance(callback, SweepProgress):
                callback.pass_over(done)
        # The error of a run is raised when its return value is asked for.
        for ended in self.launcher.launch(left, initial_job_idx=done) if left else ():
            _ = ended.return_value


def _is_done(run: DictConfig, folder: Path) -> bool:
    """Whether a run has nothing left to do or to say."""
    if "_target_" in run.logger:  # a done run is logged if it has not been yet
        return False
    try:
        return finished_result(folder) is not None and not differing_keys(folder, plain_config(run))
    except (UserError, OmegaConfBaseException, OSError):
        return False  # the run says what is wrong
