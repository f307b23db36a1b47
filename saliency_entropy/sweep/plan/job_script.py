"""The job script that a launcher would submit to Slurm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.sweep.plan.checks import noted
from saliency_entropy.sweep.plan.runs import TO_TRAIN, PlannedRun

# The settings of hydra-submitit-launcher that do not go into the script.
NOT_IN_SCRIPT = ("_target_", "submitit_folder", "max_num_timeout")


def job_script(config: DictConfig, runs: Sequence[PlannedRun], problems: list[str]) -> str | None:
    """The text of the job script, as submitit makes it; None if it cannot be made, or there is nothing to submit.

    Args:
        config: configuration of the sweep, with Hydra's part.
        runs: all of the sweep. This package's launcher submits those that are neither done nor queued already,
            hydra-submitit-launcher's all.
        problems: a sentence for what the launcher would refuse is added.
    """
    launcher = config.hydra.launcher
    try:
        if launcher._target_.startswith("hydra_plugins.hydra_submitit_launcher."):
            settings = OmegaConf.to_container(launcher, resolve=True)
            options = {name: value for name, value in settings.items() if name not in NOT_IN_SCRIPT}
            return _script(Path(settings["submitit_folder"]).absolute(), options, len(runs))
        own = instantiate(launcher)
        with noted(problems):
            own.setup(hydra_context=None, task_function=None, config=config)
            for run in runs:
                if run.action in TO_TRAIN:
                    own.check_processes(run.cfg)
        submitted = sum(run.action not in ("skip", "queued") for run in runs)
        return _script(Path(own.folder, ".submitit", "%j"), own.options, submitted) if submitted else None
    except (HydraException, UserError, ImportError, AttributeError, TypeError, ValueError) as error:
        problems.append(f"the job script cannot be made: {in_one_line(error, None)}")
        return None


def _script(folder: Path, options: dict[str, Any], runs: int) -> str:
    from submitit.slurm.slurm import SlurmExecutor

    class Anywhere(SlurmExecutor):
        """Makes a script on machines without Slurm, too."""

        @classmethod
        def affinity(cls) -> int:
            return 1

    executor = Anywhere(folder)
    executor.update_parameters(**executor._convert_parameters(options))
    if runs > 1:
        executor.parameters["map_count"] = runs
    return executor._make_submission_file_text(executor._submitit_command_str, "plan")
