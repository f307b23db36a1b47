"""The runs of a sweep before they begin: their configurations and folders."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from saliency_entropy.run.choices import refuse_mixtures
from saliency_entropy.run.command import no_environment_variables
from saliency_entropy.sweep.swept import parse_overrides


@dataclass(frozen=True, eq=False)
class SweepJob:
    """One run of a sweep, compared by identity.

    Args:
        overrides: those that its configuration is composed with.
        config: that configuration, with Hydra's part.
        folder: the folder of the run.
    """

    overrides: list[str]
    config: DictConfig
    folder: Path

    @property
    def name(self) -> str:
        # A trial of a search has a study below the search's, named by its values.
        _, *trial = str(self.config.study).split("/")
        return "/".join([*trial, self.folder.parent.name, self.folder.name])

    def run(self, context: HydraContext, task: TaskFunction) -> JobReturn:
        """Run it in this process."""
        return run_job(
            hydra_context=context,
            task_function=task,
            config=self.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def failed(self, why: str) -> JobReturn:
        """The result that Hydra gets in place of a run that cannot give one."""
        ended = JobReturn(overrides=self.overrides, status=JobStatus.FAILED)
        ended.return_value = CompactHydraException(f"{self.name}: {why}")
        return ended


def sweep_jobs(
    context: HydraContext, config: DictConfig, overrides: Sequence[Sequence[str]], first: int, threads: int
) -> list[SweepJob]:
    """The runs that Hydra asks a launcher for.

    Args:
        context: Hydra's.
        config: configuration of the sweep.
        overrides: of each run.
        first: number of the first run in the sweep.
        threads: of a run whose configuration leaves them open.

    Raises:
        HydraException, OmegaConfBaseException: a run cannot be composed.
    """
    jobs = []
    runs = composed_runs(context.config_loader, config, overrides)
    for number, (own, composed) in enumerate(zip(overrides, runs, strict=True), start=first):
        added = [f"threads={threads}"] if composed.threads is None else []
        if added:
            composed.threads = threads
        folder = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir).absolute()
        with open_dict(composed):
            composed.hydra.job.num = number
            composed.hydra.job.id = str(number)
            composed.hydra.runtime.output_dir = str(folder)
        jobs.append(SweepJob([*own, *added], composed, folder))
    return jobs


def composed_runs(loader: ConfigLoader, config: DictConfig, overrides: Sequence[Sequence[str]]) -> Iterator[DictConfig]:
    """The configuration of each run of a sweep, with Hydra's part.

    Hydra takes a quarter of a second to compose one, and most runs of a study differ only in their seed, which decides
    on no other value. These are composed once.

    Args:
        loader: Hydra's.
        config: configuration of the sweep.
        overrides: of each run.

    Raises:
        UserError: a run has several options of one group.
        HydraException: a run cannot be composed.
    """
    composed: dict[tuple[str, ...], tuple[DictConfig, list[Override]]] = {}
    for own in overrides:
        but_for_seed = tuple("" if override.startswith("seed=") else override for override in own)
        if but_for_seed not in composed:
            run = loader.load_sweep_config(config, list(own))
            refuse_mixtures(run.hydra)
            composed[but_for_seed] = run, parse_overrides(None, list(run.hydra.overrides.task))
            yield copy.deepcopy(run)
        else:
            (seed,) = parse_overrides(None, [override for override in own if override.startswith("seed=")])
            yield _with_seed(*composed[but_for_seed], seed)


def _with_seed(composed: DictConfig, overrides: list[Override], seed: Override) -> DictConfig:
    run = copy.deepcopy(composed)
    run.seed = seed.value()
    overrides = [seed if override.key_or_group == "seed" else override for override in overrides]
    run.hydra.overrides.task = [override.input_line for override in overrides]
    naming = run.hydra.job.config.override_dirname
    run.hydra.job.override_dirname = get_overrides_dirname(
        overrides, kv_sep=naming.kv_sep, item_sep=naming.item_sep, exclude_keys=naming.exclude_keys
    )
    return run


def plain_config(composed: DictConfig) -> dict[str, Any]:
    """The configuration of a run or sweep without Hydra's part, resolved.

    Raises:
        UserError, OmegaConfBaseException: a value cannot be resolved, or takes in an environment variable.
    """
    own = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
    with no_environment_variables():
        return OmegaConf.to_container(own, resolve=True)
