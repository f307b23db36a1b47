"""``hydra/sweeper=search``: trials of values that are given as intervals, until there are enough of them.

hydra-optuna-sweeper does the same in principle, but starts counting again at each launch, repeats the choices of its
seed, abandons trials that were interrupted, and needs an Optuna of 2022.
"""

import importlib.util
import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from saliency_entropy.errors import UserError, whole_number
from saliency_entropy.run import lock as run_lock
from saliency_entropy.run.command import one_sentence, require_values
from saliency_entropy.run.folder import scientific_config, study_folder
from saliency_entropy.sweep.jobs import plain_config
from saliency_entropy.sweep.swept import parse_overrides

if TYPE_CHECKING:
    from saliency_entropy.sweep.search import Search

log = logging.getLogger(__name__)


class SearchSweeper(Sweeper):
    """See ``conf/hydra/sweeper/search.yaml``."""

    def __init__(self, n_trials: int, n_random: int, parallel: int, seed: int, params: Mapping[str, str]) -> None:
        self.n_trials = n_trials
        self.n_random = n_random
        self.parallel = parallel
        self.seed = seed
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        # Not an import: it is Hydra that imports its plugins, for every command.
        if importlib.util.find_spec("optuna") is None:
            raise CompactHydraException("hydra/sweeper=search needs Optuna: pip install 'saliency-entropy[sweeps]'")
        with one_sentence():
            for name, least in (("n_trials", 1), ("n_random", 0), ("parallel", 1), ("seed", 0)):
                whole_number(f"hydra.sweeper.{name}", getattr(self, name), least)
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from saliency_entropy.sweep.search import Search

        with one_sentence():
            self._read(arguments)
            folder = Path(study_folder(self.config.runs_dir, self.config.study))
            with run_lock.held(folder):
                search = Search(folder, self.intervals, self._settings(), self.seed, self.n_random, self.parallel)
                self._run(search)

    def _read(self, arguments: list[str]) -> None:
        """Sort the overrides into :attr:`intervals`, :attr:`repeats` and :attr:`fixed`."""
        from saliency_entropy.sweep.search import Interval

        overrides = {override.get_key_element(): override for override in parse_overrides(self.params, arguments)}
        overrides.pop("study", None)  # every trial has its own
        self.intervals: dict[str, Interval] = {}
        self.repeats: dict[str, list[str]] = {}
        self.fixed: list[str] = []
        for key, override in overrides.items():
            if not override.is_sweep_override():
                self.fixed.append(override.input_line)
            elif override.is_interval_sweep():
                bounds = override.value()
                interval = Interval(float(bounds.start), float(bounds.end), "log" in bounds.tags)
                if not (math.isfinite(interval.low) and interval.low < interval.high < math.inf):
                    raise UserError(f"{override.input_line} is no interval: give the lower bound first")
                if interval.log and interval.low <= 0:
                    raise UserError(f"{override.input_line}: an interval of logarithms begins above 0")
                self.intervals[key] = interval
            else:
                self.repeats[key] = list(override.sweep_string_iterator())
        if others := sorted(self.repeats.keys() - {"method", "seed"}):
            raise UserError(
                f"a search repeats its trials with other methods and seeds only: give {others[0]} one value, or an "
                "interval"
            )
        if not self.intervals:
            raise UserError("nothing is searched: give at least one value as an interval, KEY=interval(0.05,1.0)")

    def _settings(self) -> dict[str, Any]:
        """The configuration that the trials of a search share, and how they are chosen."""
        config = OmegaConf.masked_copy(self.config, [key for key in self.config if key != "hydra"])
        swept = [key.lstrip("+") for key in (*self.intervals, *self.repeats)]
        for key in swept:
            OmegaConf.update(config, key, None, force_add=True)
        require_values(config)
        shared = scientific_config(plain_config(config))
        own = {f"hydra.sweeper.{name}": getattr(self, name) for name in ("seed", "n_random", "parallel")}
        return (
            {key: value for key, value in shared.items() if key not in swept}
            | self.repeats
            | {key: list(interval) for key, interval in self.intervals.items()}
            | own
        )

    def _run(self, search: "Search") -> None:
        configured = {key: OmegaConf.select(self.config, key.lstrip("+")) for key in self.intervals}
        failed: dict[int, JobReturn] = {}
        jobs = 0
        while True:
            # Trials are chosen in groups of ``parallel``; a kill may have left a part of a group.
            while search.count < self.n_trials and (search.count % self.parallel or not self._left(search, failed)):
                search.add(configured)
            trials = self._left(search, failed)
            if not trials:
                break
            for number, values in trials.items():
                shown = ", ".join(f"{key}={value:g}" for key, value in values.items())
                log.info("trial %d of %d: %s", number + 1, self.n_trials, shown)
            overrides = [self._overrides(values) for values in trials.values()]
            returns = iter(self.launcher.launch(list(itertools.chain(*overrides)), initial_job_idx=jobs))
            for number, launched in zip(trials, overrides, strict=True):
                runs = list(itertools.islice(returns, len(launched)))
                jobs += len(runs)
                bad = next((run for run in runs if run.status != JobStatus.COMPLETED), None)
                if bad is None:
                    self._end(search, number, runs)
                else:
                    failed[number] = bad
                    log.error("trial %d failed, the others go on: %s", number + 1, bad._return_value)
        self._summarise(search, failed)
        for bad in failed.values():
            _ = bad.return_value  # raises its error

    def _left(self, search: "Search", failed: Mapping[int, JobReturn]) -> dict[int, dict[str, float]]:
        return {number: values for number, values in search.open_trials().items() if number not in failed}

    def _overrides(self, values: Mapping[str, float]) -> list[list[str]]:
        """The overrides of each run of a trial."""
        name = "_".join(f"{value:g}" for value in values.values())
        own = [f"{key}={value!r}" for key, value in values.items()] + [f"study={self.config.study}/{name}"]
        repeats = itertools.product(
            *([f"{key}={value}" for value in repeated] for key, repeated in self.repeats.items())
        )
        return [[*self.fixed, *repeat, *own] for repeat in repeats]

    def _end(self, search: "Search", number: int, runs: Sequence[JobReturn]) -> None:
        values = [run.return_value for run in runs]
        if any(value is None for value in values):
            raise UserError("the runs of a search give no objective: they must be scored (checkpoints=true)")
        objective = math.fsum(values) / len(values)
        search.end(number, objective)
        log.info("trial %d of %d: validation AUROC %.4f", number + 1, self.n_trials, objective)

    def _summarise(self, search: "Search", failed: Mapping[int, JobReturn]) -> None:
        ended = [trial for trial in search.study.get_trials(deepcopy=False) if trial.value is not None]
        if ended:
            best = search.study.best_trial
            values = " ".join(f"{key}={value:g}" for key, value in best.params.items())
            log.info("best of %d trials: number %d, validation AUROC %.4f: %s",
                     len(ended), best.number + 1, best.value, values)  # fmt: skip
        if failed:
            log.error("%d trials failed: the same command tries them again", len(failed))
