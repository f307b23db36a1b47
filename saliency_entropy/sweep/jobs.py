"""The runs of a sweep before they begin: their configurations and folders."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from saliency_entropy.run.command import no_environment_variables
from saliency_entropy.run.folder import flatten, plain_values
from saliency_entropy.run.misspelt import refuse_mixtures
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
    runs = map(copy.deepcopy, composed_runs(context.config_loader, config, overrides))
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
    """The configuration of each run of a sweep, with Hydra's part. To be used, or copied, before the next is asked for.

    Hydra takes a tenth of a second to compose one, and most runs of a study differ only in single values, such as the
    seed, which decide on no other. These are composed once; Hydra, too, puts such values in last.

    Args:
        loader: Hydra's.
        config: configuration of the sweep.
        overrides: of each run.

    Raises:
        UserError: a run has several options of one group.
        HydraException: a run cannot be composed.
    """
    read = cache(lambda text: parse_overrides(None, [text])[0])
    groups = config.hydra.runtime.choices.keys()
    leaves = flatten(OmegaConf.to_container(config, resolve=False)).keys() - groups
    composed: dict[tuple[str, ...], tuple[DictConfig, list[Override]]] = {}
    for own in overrides:
        keys = [text.partition("=")[0].lstrip("+~") for text in own]
        single: dict[str, Override] = {}
        for key, text in zip(keys, own, strict=True):
            # Not where the order of the overrides counts.
            alone = keys.count(key) == 1 and not any(
                key.startswith(f"{other}.") for other in keys if other not in groups
            )
            if key in leaves and text.startswith(key) and alone and not isinstance(read(text).value(), dict | list):
                single[key] = read(text)
        kind = tuple(key if key in single else text for key, text in zip(keys, own, strict=True))
        if kind not in composed:
            run = loader.load_sweep_config(config, list(own))
            refuse_mixtures(run.hydra)
            composed[kind] = run, parse_overrides(None, run.hydra.overrides.task)
            yield run
        else:
            yield _with_values(*composed[kind], single)


def _with_values(run: DictConfig, overrides: list[Override], values: Mapping[str, Override]) -> DictConfig:
    for key, override in values.items():
        OmegaConf.update(run, key, override.value())
    overrides = [values.get(override.get_key_element(), override) for override in overrides]
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
    with no_environment_variables():
        return plain_values(composed)
