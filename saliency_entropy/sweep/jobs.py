"""The runs of a sweep as they are before they begin."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.run.command import no_environment_variables, sentence
from saliency_entropy.sweep.progress import parsed_overrides


@dataclass(frozen=True)
class SweepJob:
    """One run of a sweep.

    Args:
        overrides: what its configuration is composed with.
        config: that configuration, with Hydra's part.
        folder: where it will leave everything.
    """

    overrides: list[str]
    config: DictConfig
    folder: Path

    @property
    def name(self) -> str:
        # A trial of a search has a study below the search's, which its values name.
        _, *trial = str(self.config.study).split("/")
        return "/".join([*trial, self.folder.parent.name, self.folder.name])

    def failed(self, why: str) -> JobReturn:
        """What Hydra is told in place of a run that cannot tell it."""
        ended = JobReturn(overrides=self.overrides, status=JobStatus.FAILED)
        ended.return_value = CompactHydraException(f"{self.name}: {why}")
        return ended


def sweep_jobs(
    context: HydraContext, config: DictConfig, overrides: Sequence[Sequence[str]], first: int, threads: int
) -> list[SweepJob]:
    """The runs that Hydra asks a launcher for.

    Args:
        context: Hydra's.
        config: of the sweep.
        overrides: of each run.
        first: number of the first of them in the sweep.
        threads: of a run whose configuration leaves them open.
    """
    jobs = []
    runs = composed_runs(context.config_loader, config, overrides)
    for number, (own, composed) in enumerate(zip(overrides, runs, strict=True), start=first):
        with open_dict(composed):
            composed.hydra.job.num = number
            composed.hydra.job.id = str(number)
        added = [f"threads={threads}"] if composed.threads is None else []
        if added:
            composed.threads = threads
        try:
            folder = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir).absolute()
        except OmegaConfBaseException as error:
            raise CompactHydraException(sentence(error)) from error
        with open_dict(composed):
            composed.hydra.runtime.output_dir = str(folder)
        jobs.append(SweepJob([*own, *added], composed, folder))
    return jobs


def composed_runs(loader: ConfigLoader, config: DictConfig, overrides: Sequence[Sequence[str]]) -> Iterator[DictConfig]:
    """The configuration of each run of a sweep, with Hydra's part.

    Hydra takes a quarter of a second for one, and most runs of a study differ from another by their seed only, which
    decides on nothing else. Those are composed once.

    Args:
        loader: Hydra's.
        config: of the sweep.
        overrides: of each run.

    Raises:
        HydraException: a run cannot be composed.
    """
    composed: dict[tuple[str, ...], tuple[DictConfig, list[Override]]] = {}
    for own in overrides:
        shared = tuple("" if override.startswith("seed=") else override for override in own)
        if shared not in composed:
            run = loader.load_sweep_config(config, list(own))
            composed[shared] = run, parsed_overrides(list(run.hydra.overrides.task))
            yield copy.deepcopy(run)
        else:
            (seed,) = parsed_overrides([override for override in own if override.startswith("seed=")])
            yield _of_another_seed(*composed[shared], seed)


def _of_another_seed(composed: DictConfig, overrides: list[Override], seed: Override) -> DictConfig:
    run = copy.deepcopy(composed)
    run.seed = seed.value()
    overrides = [seed if one.key_or_group == "seed" else one for one in overrides]
    run.hydra.overrides.task = [one.input_line for one in overrides]
    naming = run.hydra.job.config.override_dirname
    run.hydra.job.override_dirname = get_overrides_dirname(
        overrides, kv_sep=naming.kv_sep, item_sep=naming.item_sep, exclude_keys=naming.exclude_keys
    )
    return run


def plain_config(composed: DictConfig) -> dict[str, Any]:
    """A run's configuration without Hydra's part, resolved.

    Raises:
        OmegaConfBaseException: a value cannot be resolved, or takes in the environment.
    """
    own = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
    with no_environment_variables():
        return OmegaConf.to_container(own, resolve=True)
