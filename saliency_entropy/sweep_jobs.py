"""What the launchers of a sweep share: the runs as they are before they begin."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.commands import sentence


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
        return f"{self.folder.parent.name}/{self.folder.name}"

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
    for number, own in enumerate(overrides, start=first):
        composed = context.config_loader.load_sweep_config(config, list(own))
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
