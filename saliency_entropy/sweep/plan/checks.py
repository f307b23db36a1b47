"""What would make the runs of a plan fail. A problem is a sentence."""

import importlib.metadata
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
import wandb
from huggingface_hub import try_to_load_from_cache
from hydra.utils import instantiate
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from packaging.requirements import Requirement

from saliency_entropy.data import FaceDataModule
from saliency_entropy.data.table import data_hash
from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.run.command import sentence
from saliency_entropy.run.devices import require_gpu
from saliency_entropy.run.folder import check_same_data
from saliency_entropy.sweep.plan.runs import PlannedRun
from saliency_entropy.training import build_loss

PACKAGE = "saliency-entropy"


@contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """Add a user's mistake that is raised in the block to the problems, once."""
    try:
        yield
    except Exception as error:
        problem = sentence(error)
        if problem is None:
            raise
        if problem not in problems:
            problems.append(problem)


def unmet_requirements() -> list[str]:
    """The packages that this one needs and that are missing, too old or too new."""
    problems = []
    for text in importlib.metadata.requires(PACKAGE) or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            problems.append(
                f"{requirement.name}{requirement.specifier} is needed, "
                f"{'and is not installed' if found is None else f'but {found} is installed'}: "
                f"pip install '{requirement.name}{requirement.specifier}'"
            )
    return problems


def require_device(trainer: DictConfig) -> None:
    """Raises UserError if this machine lacks the device that is asked for, or the device the precision."""
    require_gpu(trainer)
    try:
        Fabric(
            accelerator=trainer.accelerator, devices=1, precision=trainer.precision, plugins=[LightningEnvironment()]
        )
    except (MisconfigurationException, RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"trainer.accelerator={trainer.accelerator}, trainer.precision={trainer.precision} cannot be used on this "
            f"machine: {in_one_line(error)}"
        ) from error


def read_data(runs: Sequence[PlannedRun], problems: list[str]) -> FaceDataModule | None:
    """The data that runs share, with the checks that training makes before it opens an image: the manifest, its files,
    human maps where a method needs them, and whether runs that go on began with them; None if they cannot be read."""
    data: FaceDataModule | None = None
    with noted(problems):
        read: FaceDataModule = instantiate(runs[0].cfg.data, _convert_="all")
        table = read.manifest.table
        data = read
    if data is None:
        return None
    for run in _one_of_each_loss(runs):
        with noted(problems):
            for name in build_loss(run.cfg).terms_needing_human_maps:
                data.require_human_maps(f"method {run.method} (term {name})")
    # What skip_broken leaves out is known when all images were opened; of a part or shuffled, runs may
    # have other maps.
    begun = [run for run in runs if run.action == "resume"]
    maps = data.human_maps
    if begun and not data.skip_broken and maps.fraction == 1 and maps.control != "shuffled":
        digest = data_hash(table)
        for run in begun:
            with noted(problems):
                check_same_data(run.folder, digest)
    return data


def check_targets(runs: Sequence[PlannedRun], cells: int, problems: list[str]) -> None:
    """Whether a CAM of so many cells can have the entropies that the losses of the runs ask for."""
    for run in _one_of_each_loss(runs):
        with noted(problems):
            build_loss(run.cfg).check_targets(cells)


def _one_of_each_loss(runs: Sequence[PlannedRun]) -> Collection[PlannedRun]:
    return {json.dumps([run.method, run.config["loss"]]): run for run in runs}.values()


def comes_from_hub(backbone: Mapping[str, Any]) -> bool:
    """Whether timm fetches the ImageNet weights, or has fetched them."""
    return bool(
        backbone.get("pretrained", True) and not backbone.get("checkpoint") and not backbone.get("weights_package")
    )


def is_downloaded(timm_name: str) -> bool:
    """Whether timm has fetched these weights."""
    known = timm.get_pretrained_cfg(timm_name, allow_unregistered=True)
    if known is None:
        return False
    if known.hf_hub_id:
        names = [known.hf_hub_filename] if known.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        return any(isinstance(try_to_load_from_cache(known.hf_hub_id, name), str) for name in names)
    return bool(known.url) and Path(torch.hub.get_dir(), "checkpoints", Path(known.url).name).exists()


def logging_to(cfg: DictConfig, problems: list[str]) -> str:
    """Where the figures of a run go beside its own files, in words; asks no server."""
    if "_target_" not in cfg.logger:
        return "the runs' own files"
    before = len(problems)
    with noted(problems):
        instantiate(cfg.logger)(folder=Path(), config={})  # it refuses what it cannot use, and does nothing else
    if len(problems) > before:
        return "not known"
    if os.environ.get("WANDB_MODE") == "disabled":
        return "the runs' own files alone, since WANDB_MODE is disabled"
    if cfg.logger.get("mode") == "offline":
        return "W&B, offline: wandb sync sends it later"
    if not wandb.login(prompt=False, verify=False):
        return "W&B, but there is no key here (wandb login, or WANDB_API_KEY): it will be offline"
    return "W&B, online, with the key that is here; it was not tried"
