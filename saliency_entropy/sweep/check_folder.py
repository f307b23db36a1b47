"""Whether a run or sweep has one option of each group, and a folder that can be made and written to."""

import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError, writing
from saliency_entropy.run.command import no_environment_variables, sentence
from saliency_entropy.run.folder import run_folder, study_folder
from saliency_entropy.run.misspelt import refuse_mixtures
from saliency_entropy.run.variants import write_variant
from saliency_entropy.sweep.axes import enter_variant

PROBE = 1 << 16  # bytes


class CheckFolder(Callback):
    """A Hydra callback that says in one sentence why a run or sweep cannot begin, or its folder cannot be made.

    Hydra makes the folder before the command begins, and would show a traceback of its own. Of a single run that is
    then refused, no folder is left whose log only repeats the sentence.
    """

    def __init__(self) -> None:
        self.made: list[Path] = []  # the folder of a run, and those above it, that were not there before

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
        self.made = []  # status tells of the runs of a sweep by their folders

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        # A user's mistake, not an error whose traceback is in the log.
        if not self.made or not isinstance(job_return._return_value, CompactHydraException):
            return
        with suppress(OSError):
            files = [path for path in self.made[0].rglob("*") if path.name != "train.log" and path.is_file()]
            if not any(path.stat().st_size for path in files):
                shutil.rmtree(self.made[0])
                for above in self.made[1:]:
                    above.rmdir()

    def _check(self, config: DictConfig, name: Callable[[], str]) -> None:
        # Hydra turns what a callback raises into a warning, except SystemExit.
        try:
            refuse_mixtures(config.hydra)
            with no_environment_variables():
                folder = Path(name())
            self.made = [path for path in (folder, *folder.parents) if not path.exists()]
            with writing(folder, "give another runs_dir="):
                folder.mkdir(parents=True, exist_ok=True)
                # Hydra will write there, and show a traceback of a full disk, too.
                with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
                    probe.write(bytes(PROBE))
        except (UserError, OmegaConfBaseException) as error:
            sys.exit(sentence(error))
