"""``hydra/sweeper=grid``, the default: every combination of the values that are swept.

As Hydra's own sweeper, except that the runs of a study that are done are not launched again. A launcher would compose
the configuration of each, and most would start a process for it, only for the run to say that it is done.
"""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError, writing
from saliency_entropy.run.command import ended_with_a_sentence, one_sentence
from saliency_entropy.run.folder import is_done, run_folder
from saliency_entropy.run.variants import write_variant
from saliency_entropy.run.whole_files import write_atomically
from saliency_entropy.sweep.axes import VariantRun, variant_runs
from saliency_entropy.sweep.jobs import plain_config
from saliency_entropy.sweep.progress import SweepProgress
from saliency_entropy.sweep.swept import swept_together

log = logging.getLogger(__name__)


class GridSweeper(Sweeper):
    """See ``conf/hydra/sweeper/grid.yaml``."""

    def __init__(self, params: Mapping[str, str]) -> None:
        self.params = params  # they are read from the configuration

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        study = Path(self.config.hydra.sweep.dir)
        left: list[list[str]] = []
        folders: dict[Path, VariantRun] = {}
        with one_sentence():
            # All are composed before the first begins, so that a mistake in the last is found now.
            with ended_with_a_sentence():
                for run in variant_runs(self.context.config_loader, self.config):
                    cfg = run.config
                    folder = Path(run_folder(cfg.runs_dir, cfg.study, cfg.method.name, cfg.seed))
                    if folder in folders:
                        raise UserError(f"the command has {folder} more than once; remove the duplicate")
                    folders[folder] = run
                    if not _is_done(cfg, folder):
                        left.append(run.overrides)
            # Not earlier: status and report name the missing runs of the last sweep that was not refused.
            with writing(study, "give another runs_dir="):
                write_atomically(study / "multirun.yaml", OmegaConf.to_yaml(self.config))
                self._write_variants(folders)
        done = len(folders) - len(left)
        if done:
            log.info("%d of %d runs are done", done, len(folders))
        for callback in self.context.callbacks.callbacks:
            if isinstance(callback, SweepProgress):
                callback.pass_over(done)
        # The error of a run is raised when its return value is asked for.
        for ended in self.launcher.launch(left, initial_job_idx=done) if left else ():
            _ = ended.return_value

    def _write_variants(self, folders: Mapping[Path, VariantRun]) -> None:
        """Give each variant its values, and a note of the sweep's runs that are its own."""
        variants: dict[Path, list[VariantRun]] = {}
        for folder, run in folders.items():
            if run.variant:
                variants.setdefault(folder.parents[1], []).append(run)
        config = copy.deepcopy(self.config)
        config.hydra.sweeper.params = {}
        for folder, runs in variants.items():
            write_variant(folder, runs[0].variant)
            config.hydra.overrides.task = swept_together([run.overrides for run in runs])
            write_atomically(folder / "multirun.yaml", OmegaConf.to_yaml(config))


def _is_done(run: DictConfig, folder: Path) -> bool:
    """Whether a run has nothing left to do or to say: with a logger, it is logged if it has not been yet."""
    try:
        return "_target_" not in run.logger and is_done(folder, plain_config(run))
    except (UserError, OmegaConfBaseException, OSError):
        return False  # the run says what is wrong
