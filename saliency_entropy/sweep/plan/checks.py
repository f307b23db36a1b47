"""What would stand in the way of the runs of a plan. A problem is a sentence."""

import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import disk_usage
from typing import Any

import timm
import torch
import wandb
from huggingface_hub import try_to_load_from_cache
from hydra.utils import instantiate
from omegaconf import DictConfig
from packaging.requirements import Requirement

from saliency_entropy.data import FaceDataModule
from saliency_entropy.data.cache import usable_bytes
from saliency_entropy.data.table import data_hash
from saliency_entropy.errors import whole_number
from saliency_entropy.run.command import sentence
from saliency_entropy.run.folder import check_same_data
from saliency_entropy.sweep.plan.runs import PlannedRun
from saliency_entropy.sweep.progress import is_local
from saliency_entropy.training import build_loss

PACKAGE = "saliency-entropy"


@contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """What a user can mend, raised in here, becomes a problem; several of a kind are told once."""
    try:
        yield
    except Exception as error:
        problem = sentence(error)
        if problem is None:
            raise
        if problem not in problems:
            problems.append(problem)


def unmet_requirements() -> list[str]:
    """The packages that this one needs and that are missing, or too old or new."""
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


def launcher_problems(launcher: DictConfig) -> list[str]:
    """What this package's launcher on one machine refuses of its settings."""
    problems: list[str] = []
    with noted(problems):
        if is_local(launcher):
            whole_number("hydra.launcher.n_jobs", launcher.get("n_jobs"), 1)
    return problems


def read_data(runs: Sequence[PlannedRun], problems: list[str]) -> FaceDataModule | None:
    """The data of runs that share them, as far as training looks at them before it opens an image: the manifest, its
    files, human maps where a method needs them, and whether those that were begun began with them; None if they cannot
    be read."""
    data: FaceDataModule | None = None
    with noted(problems):
        read: FaceDataModule = instantiate(runs[0].cfg.data, _convert_="all")
        _ = read.manifest
        data = read
    if data is None:
        return None
    for run in runs:
        with noted(problems):
            for name in build_loss(run.cfg).terms_needing_human_maps:
                data.require_human_maps(f"method {run.method} (term {name})")
    # What skip_broken leaves out is known when all images were opened; with a fraction, runs may have other maps.
    begun = [run for run in runs if run.action == "resume"]
    if begun and not data.skip_broken and data.human_maps.fraction == 1:
        digest = data_hash(data.manifest.table)
        for run in begun:
            with noted(problems):
                check_same_data(run.folder, digest)
    return data


def comes_from_hub(backbone: Mapping[str, Any]) -> bool:
    """Whether timm fetches the ImageNet weights, or has fetched them before."""
    return bool(
        backbone.get("pretrained", True) and not backbone.get("checkpoint") and not backbone.get("weights_package")
    )


def is_downloaded(timm_name: str) -> bool:
    """Whether timm has fetched these weights before."""
    known = timm.get_pretrained_cfg(timm_name, allow_unregistered=True)
    if known is None:
        return False
    if known.hf_hub_id:
        names = [known.hf_hub_filename] if known.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        return any(isinstance(try_to_load_from_cache(known.hf_hub_id, name), str) for name in names)
    return bool(known.url) and Path(torch.hub.get_dir(), "checkpoints", Path(known.url).name).exists()


def disk_problems(needs: Mapping[Path, int]) -> tuple[list[str], list[str]]:
    """Whether disks have the room, and whether their folders may be written to.

    Args:
        needs: folder, which need not be there yet -> bytes that will be written below.

    Returns:
        What there is, a phrase a disk; the problems.
    """
    phrases, problems = [], []
    on_disk: dict[int, list[Path]] = {}
    for folder in needs:
        there = nearest(folder)
        if not there.is_dir() or not os.access(there, os.W_OK):
            problems.append(f"{folder} cannot be written to; give another runs_dir= or data.cache_folder=")
        on_disk.setdefault(there.stat().st_dev, []).append(folder)
    for folders in on_disk.values():
        disk = disk_usage(nearest(folders[0]))
        need, free = sum(needs[folder] for folder in folders), usable_bytes(disk.total, disk.free)
        phrases.append(f"{gigabytes(free)} are free where {' and '.join(map(str, folders))} will be")
        if need > free:
            problems.append(
                f"the disk of {' and '.join(map(str, folders))} has {gigabytes(free)} free, but {gigabytes(need)} will "
                "be needed; make room, or give a disk with room (runs_dir=, data.cache_folder=)"
            )
    return phrases, problems


def nearest(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where that cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def logging_to(cfg: DictConfig, problems: list[str]) -> str:
    """Where the figures of a run go besides its own files, in words; asks no server."""
    if "_target_" not in cfg.logger:
        return "the runs' own files"
    before = len(problems)
    with noted(problems):
        instantiate(cfg.logger)(folder=Path(), config={})  # it refuses what it cannot use, and does nothing else
    if len(problems) > before:
        return "not known"
    if cfg.logger.get("mode") == "offline":
        return "W&B, offline: wandb sync sends it later"
    if not wandb.login(prompt=False, verify=False):
        return "W&B, but there is no key here (wandb login, or WANDB_API_KEY): it will be offline"
    return "W&B, online, with the key that is here; it was not tried"


def gigabytes(number: float) -> str:
    """``3.2 GB``; of less than a hundredth of that, ``0.4 MB``."""
    return f"{number / 1e9:.2f} GB" if number >= 1e7 else f"{number / 1e6:.2f} MB"
