"""Whether a run or sweep has one option of each group, and a folder that can be made and written to."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError, writing
from saliency_entropy.run.choices import refuse_mixtures
from saliency_entropy.run.command import no_environment_variables, sentence
from saliency_entropy.run.folder import run_folder, study_folder
from saliency_entropy.run.variants import write_variant
from saliency_entropy.sweep.axes import enter_variant

PROBE = 1 << 16  # bytes


class CheckFolder(Callback):
    """A Hydra callback that says in one sentence why a run or sweep cannot begin, or its folder cannot be made.

    Hydra makes the folder before the command begins, and would show a traceback of its own.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        def folder() -> str:
            # Before Hydra reads the run's study, to make its folder.
            variant = enter_variant(GlobalHydra.instance().config_loader(), config)
            if variant:
                write_variant(Path(study_folder(config.runs_dir, config.study)), variant)
            return run_folder(config.runs_dir, config.study, config.method.name, config.seed)

        self._check(config, folder)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._check(config, lambda: study_folder(config.runs_dir, config.study))

    def _check(self, config: DictConfig, name: Callable[[], str]) -> None:
        # Hydra turns what a callback raises into a warning, except SystemExit.
        try:
            refuse_mixtures(config.hydra)
            with no_environment_variables():
                folder = Path(name())
            with writing(folder, "give another runs_dir="):
                folder.mkdir(parents=True, exist_ok=True)
                # Hydra will write there, and show a traceback of a full disk, too.
                with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
                    probe.write(bytes(PROBE))
        except (UserError, OmegaConfBaseException) as error:
            sys.exit(sentence(error))
