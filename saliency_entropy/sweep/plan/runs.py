"""The runs that a command would train, and what it would do with each."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError
from saliency_entropy.run import attempts
from saliency_entropy.run import folder as run_folder
from saliency_entropy.run import lock as run_lock
from saliency_entropy.run.command import require_values, sentence
from saliency_entropy.run.misspelt import refuse_mixtures
from saliency_entropy.sweep.axes import enter_variant, variant_runs
from saliency_entropy.sweep.queue import QueuedJob, require_queued_jobs
from saliency_entropy.sweep.swept import sweep_overrides

# queued: the run has a Slurm job that waits or runs, and the launch would wait for it.
Action = Literal["start", "resume", "queued", "skip", "refuse"]
TO_TRAIN: tuple[Action, ...] = ("start", "resume", "queued")


@dataclass(frozen=True)
class PlannedRun:
    """What would become of a run.

    Attributes:
        config: its configuration as plain values; empty where it is refused.
        folder: the folder of the run.
        action: it is started, goes on, is in Slurm's queue already, is done already, or is refused.
        epochs_done: whole epochs that it has.
        reason: why it is refused.
        variant: name of the folder of its variant; "" if its study has none.
    """

    config: dict[str, Any] = field(repr=False)
    folder: Path
    action: Action
    epochs_done: int = 0
    reason: str = ""
    variant: str = ""

    @cached_property
    def cfg(self) -> DictConfig:
        return OmegaConf.create(self.config)

    @property
    def study(self) -> Path:
        """The folder of its study."""
        return self.folder.parents[2] if self.variant else self.folder.parents[1]

    @property
    def method(self) -> str:
        return self.folder.parent.name

    @property
    def name(self) -> str:
        return str(self.folder.relative_to(self.study))

    @property
    def seed(self) -> int | None:
        """None if the seed is no number, for which the run is refused."""
        seed = self.folder.name.removeprefix("seed")
        return int(seed) if seed.isdecimal() else None

    @property
    def epochs(self) -> int:
        """Epochs of the whole run."""
        return self.config["trainer"]["max_epochs"]

    @property
    def epochs_left(self) -> int:
        return max(0, self.epochs - self.epochs_done)

    def refused(self, reason: str) -> "PlannedRun":
        return replace(self, action="refuse", reason=reason)


def planned_runs(config: DictConfig, loader: ConfigLoader) -> list[PlannedRun]:
    """Every run of a command, in the order in which it would launch them.

    Args:
        config: what Hydra composed of the command, with its own part.
        loader: composes the configuration of each run of a sweep.

    Raises:
        UserError: a run has several options of one group, the sweeper chooses the runs as it goes, or Slurm does not
            say which of them it has already.
        HydraException: a run cannot be composed.
    """
    refuse_mixtures(config.hydra)
    queued = _queued(config)
    if config.hydra.mode == RunMode.MULTIRUN and not runs_on_slurm(config):
        HydraConfig.instance().set_config(config)  # a run asks Hydra whether it is in a sweep
    runs: dict[Path, PlannedRun] = {}
    for composed, variant in _configurations(config, loader):
        run = _planned(composed, queued)
        run = replace(run, variant=run.folder.parents[1].name if variant else "")
        if run.folder in runs:
            run = runs[run.folder].refused("the command has this run more than once: remove the duplicate")
        runs[run.folder] = run
    return list(runs.values())


def _configurations(config: DictConfig, loader: ConfigLoader) -> Iterator[tuple[DictConfig, bool]]:
    if config.hydra.mode != RunMode.MULTIRUN:
        yield config, bool(enter_variant(loader, config))
    elif sweep_overrides(config.hydra) is None:
        raise UserError(
            f"hydra.sweeper={config.hydra.sweeper.get('_target_')} chooses its runs as it goes, so that they are not "
            "known beforehand; plan a sweep without hydra/sweeper="
        )
    else:
        yield from ((run.config, bool(run.variant)) for run in variant_runs(loader, config))


def _queued(config: DictConfig) -> dict[Path, QueuedJob]:
    """The jobs of the runs that this package's launcher finds in Slurm's queue; other launchers do not look there."""
    if not runs_on_slurm(config) or not config.hydra.launcher._target_.endswith(".slurm.SlurmLauncher"):
        return {}
    try:
        study = Path(run_folder.study_folder(config.runs_dir, config.study)).absolute()
    except (UserError, OmegaConfBaseException):
        return {}  # its runs are refused for that
    if shutil.which("squeue") is None:
        return {}  # that there is no Slurm here is a problem of its own
    return require_queued_jobs(study)


def _planned(composed: DictConfig, queued: Mapping[Path, QueuedJob]) -> PlannedRun:
    folder = Path(str(composed.runs_dir), str(composed.study), str(composed.method.name), f"seed{composed.seed}")
    run = PlannedRun({}, folder, "start")
    try:
        require_values(composed)
        run = replace(run, config=run_folder.plain_values(composed))
        run_folder.check_same_run(run.folder, run.config)
        if run_folder.finished_result(run.folder) is not None:
            return replace(run, action="skip", epochs_done=run.config["trainer"]["max_epochs"])
        # A run's own first check, made here so that the plan of a sweep that is done does not wait for PyTorch.
        from saliency_entropy.training import checked

        checked(composed)
        job = queued.get(run.folder.resolve())
        if job is not None:
            job.require_hash(run_folder.config_hash(run.config), "it")
            return replace(run, action="queued", epochs_done=run_folder.epochs_done(run.folder))
        owner = run_lock.read_owner(run.folder)
        if owner is not None and run_lock.state(run.folder) == "held":
            return run.refused(f"it is being trained by {owner}: wait for it, or give another study=")
        if not run_folder.differing_keys(run.folder, run.config):
            attempts.refuse_after_failures(run.folder, composed.max_attempts)
    except (UserError, OmegaConfBaseException) as error:
        return run.refused(sentence(error))
    except OSError as error:
        return run.refused(f"{run.folder} cannot be looked at ({error.strerror}); give another runs_dir=")
    if (run.folder / "checkpoints" / "resume.ckpt").exists():
        return replace(run, action="resume", epochs_done=run_folder.epochs_done(run.folder))
    return run


def runs_on_slurm(config: DictConfig) -> bool:
    """Whether the launcher hands the runs to other machines."""
    return config.hydra.mode == RunMode.MULTIRUN and "slurm" in config.hydra.launcher.get("_target_", "").lower()
