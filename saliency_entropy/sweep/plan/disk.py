"""The disk that the runs of a plan need, and what is free of it."""

import os
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from shutil import disk_usage

import numpy as np
import pandas as pd
import torch

from saliency_entropy.data import FaceDataModule
from saliency_entropy.data.cache import usable_bytes
from saliency_entropy.module import DetectorModule
from saliency_entropy.run.result import SCORED_SPLITS

SAMPLE = 10_000  # rows of a score table whose size is measured


def run_bytes(module: DetectorModule, data: FaceDataModule) -> int:
    """Bytes that a run leaves: ``best.ckpt``, ``resume.ckpt`` and the one before it, the scores."""
    weights, with_optimizer = checkpoint_bytes(module)
    return weights + 2 * with_optimizer + _score_bytes(data)


def checkpoint_bytes(module: DetectorModule) -> tuple[int, int]:
    """Bytes of the weights alone (``best.ckpt``), and with the optimizer's state (``resume.ckpt``)."""
    weights = sum(tensor.nbytes for tensor in module.state_dict().values())
    optimizer = module.configure_optimizers()["optimizer"]
    # A step with gradients of 0 makes the same state as a real one.
    for parameter in module.backbone.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = sum(
        value.nbytes
        for values in optimizer.state_dict()["state"].values()
        for value in values.values()
        if isinstance(value, torch.Tensor)
    )
    return weights, weights + state


def _score_bytes(data: FaceDataModule) -> int:
    """Bytes of the score tables of a run: the manifest's columns and five figures an image, as they are written."""
    total = 0.0
    random = np.random.default_rng(0)
    for split in SCORED_SPLITS:
        table = data.split_table(split)
        sample = table.iloc[:SAMPLE]
        figures = pd.DataFrame(random.random((len(sample), 5), dtype=np.float32), sample.index).add_prefix("score_")
        file = BytesIO()
        pd.concat([sample, figures], axis=1).to_parquet(file, index=False)
        total += file.tell() * len(table) / max(1, len(sample))
    return round(total)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder, in which runs may be writing at this moment; 0 if there is no such folder."""
    size = 0
    for path in folder.rglob("*") if folder.exists() else ():
        with suppress(FileNotFoundError):  # it has been moved since it was listed
            size += path.stat().st_size if path.is_file() else 0
    return size


def free_space(needs: Mapping[Path, int]) -> tuple[list[str], list[str]]:
    """Whether disks have the room, and whether their folders can be written to.

    Args:
        needs: folder, which need not exist yet -> bytes that will be written below it.

    Returns:
        A phrase a disk that says what is free; the problems.
    """
    phrases, problems = [], []
    on_disk: dict[int, list[Path]] = {}
    for folder in needs:
        parent = _nearest(folder)
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            problems.append(f"{folder} cannot be written to; give another runs_dir= or data.cache_folder=")
        on_disk.setdefault(parent.stat().st_dev, []).append(folder)
    for folders in on_disk.values():
        disk, names = disk_usage(_nearest(folders[0])), " and ".join(map(str, folders))
        need, free = sum(needs[folder] for folder in folders), usable_bytes(disk.total, disk.free)
        inodes = os.statvfs(_nearest(folders[0]))
        if inodes.f_files and inodes.f_favail < 30:  # a run makes about so many files; btrfs and others count none
            left = f"the disk of {names} has {inodes.f_favail} inodes left (df -i)"
            problems.append(f"{left}; delete files there, or give another disk (runs_dir=, data.cache_folder=)")
        phrases.append(f"{gigabytes(free)} are free where {names} will be")
        if need > free:
            problems.append(
                f"the disk of {names} has {gigabytes(free)} free, but {gigabytes(need)} will be needed; make room, or "
                "give a disk with room (runs_dir=, data.cache_folder=)"
            )
    return phrases, problems


def _nearest(folder: Path) -> Path:
    """The folder, or the first one above it that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def gigabytes(number: float) -> str:
    """``3.2 GB``; below a hundredth of that, ``0.4 MB``."""
    return f"{number / 1e9:.2f} GB" if number >= 1e7 else f"{number / 1e6:.2f} MB"
