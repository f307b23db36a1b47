"""The frame of a command that keeps something beside every finished run of a study: its scores, or its maps."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from saliency_entropy.backbone import Backbone
from saliency_entropy.cpu.process import use_cores
from saliency_entropy.data.dataset import Transform
from saliency_entropy.data.table import SPLITS
from saliency_entropy.detector import read_network, usable_device
from saliency_entropy.errors import UserError, in_one_line, listing, whole_number
from saliency_entropy.run.checkpoint import best_checkpoint, file_digest
from saliency_entropy.run.folder import check_name, finished_result
from saliency_entropy.run.study_folders import run_folders, seed_folders
from saliency_entropy.run.variants import variant_folders
from saliency_entropy.scores.images import ScoredImages, read_images

log = logging.getLogger(__name__)

# The whole numbers of both commands' configurations, and the least that each may be.
NUMBERS = {
    "batch_size": 1, "chunk": 1, "samples": 1, "seed": 0, "threads": 1, "num_workers": 0, "corruption_images": 2,
}  # fmt: skip
OR_NULL = ("threads", "num_workers", "corruption_images")


@dataclass(frozen=True)
class FinishedRuns:
    """The finished runs of a study, and the images that all of them are shown.

    Attributes:
        study: the study's folder.
        folders: those of the finished runs.
        images: of one split of the study's own data, or of other data.
        name: of the set of images, and so of the files that are kept of it.
        device: where the networks run.
    """

    study: Path
    folders: list[Path]
    images: ScoredImages
    name: str
    device: torch.device


def each_study(cfg: DictConfig) -> Iterator[DictConfig]:
    """The configuration of the command, for the study or, one after the other, for its variants with finished runs."""
    variants = [
        folder
        for folder in variant_folders(Path(str(cfg.study)))
        if any((run / "result.json").exists() for run in seed_folders(folder))
    ]
    if not variants:
        yield cfg
    for folder in variants:
        log.info("%s", folder.name)
        yield OmegaConf.merge(cfg, {"study": str(folder)})


@contextmanager
def finished_runs(cfg: DictConfig, lock: str, command: str, consequence: str) -> Iterator[FinishedRuns]:
    """Check the configuration, read the study and its images, and keep a second such command out meanwhile.

    Args:
        cfg: of the command.
        lock: the name of the file that is locked in the study's folder.
        command: its script, which is named if another process of it holds the lock.
        consequence: what the log says of a run that is not finished: ``not scored``.

    Raises:
        UserError: a setting, the study or the data cannot be used, another process holds the lock, or a file cannot be
            written.
    """
    for name, least in NUMBERS.items():
        if name in cfg:
            whole_number(name, cfg[name], least, or_null=name in OR_NULL)
    if cfg.split not in SPLITS:
        raise UserError(f"split is {cfg.split!r}; choose one of {', '.join(SPLITS)}")
    study = Path(str(cfg.study))
    folders = _finished_folders(study, consequence)
    images = read_images(cfg, folders)
    name = _set_name(cfg, images)
    use_cores(cfg.threads)
    device = usable_device(cfg.device)
    try:
        with FileLock(study / lock, timeout=0):
            yield FinishedRuns(study, folders, images, name, device)
    except Timeout:
        raise UserError(f"{command} works on {study} in another process; wait for it") from None
    except OSError as error:
        raise UserError(
            f"{error.filename or study} cannot be read or written ({error.strerror or in_one_line(error)}); make room "
            "or give yourself access, then the same command goes on"
        ) from None


def _finished_folders(study: Path, consequence: str) -> list[Path]:
    folders = run_folders(study)
    finished = [folder for folder in folders if finished_result(folder) is not None]
    if not finished:
        raise UserError(f"no run in {study} is finished; give the command that trains them again")
    unfinished = [f"{folder.parent.name}/{folder.name}" for folder in folders if folder not in finished]
    if unfinished:
        log.warning("not finished, and so %s: %s", consequence, listing(unfinished))
    return finished


def _set_name(cfg: DictConfig, images: ScoredImages) -> str:
    """The name of the set of images: ``cfg.set``, or that of the other data or of the split."""
    name = str(cfg.set or (images.data_name if "data" in cfg else cfg.split))
    check_name("set", name)
    if name in SPLITS and ("data" in cfg or name != cfg.split):
        raise UserError(f"set={name} is the name of the study's own {name} images, which a report reads; give another")
    return name


def read_detector(folder: Path, runs: FinishedRuns) -> tuple[Backbone, str, Transform]:
    """A run's network, the class of its CAM, and its transform of images and human maps."""
    backbone, class_index, _ = read_network(best_checkpoint(folder))
    transform = runs.images.transform(backbone.image_size, backbone.interpolation, backbone.cam_size)
    return backbone.eval().requires_grad_(False).to(runs.device), class_index, transform


def refuse_diverged(cfg: DictConfig, runs: Sequence[Path], what: str) -> None:
    """Raises UserError if there are ``runs`` of which ``what`` is not finite, after all others are done."""
    if runs:
        names = listing(os.path.relpath(run, str(cfg.study)) for run in runs)
        raise UserError(
            f"{names}: {what} are not finite, since training diverged; no verdict rests on them, and all other "
            "runs are done: train these again with a lower learning rate (debug=finite says where it begins)"
        )


def checkpoint_digests(folders: Sequence[Path]) -> dict[Path, str]:
    """What the weights of each run are, see :func:`~saliency_entropy.run.checkpoint.file_digest`.

    Raises:
        UserError: names all checkpoints that cannot be read.
    """
    digests, unreadable = {}, []
    for folder in folders:
        try:
            digests[folder] = file_digest(best_checkpoint(folder))
        except OSError as error:
            unreadable.append(f"{best_checkpoint(folder)} ({error.strerror})")
    if unreadable:
        raise UserError(
            f"{len(unreadable)} of {len(folders)} runs have no checkpoint that can be read: {listing(unreadable)}; "
            "delete these folders and train them again, or move them out of the study"
        )
    return digests


def missing_files(
    made_from: Mapping[Path, Mapping[str, str]], read_origin: Callable[[Path], Mapping[str, str]], overwrite: bool
) -> list[Path]:
    """The files that are still to be made: those that are absent and, with ``overwrite``, those that are damaged or
    were made from something else.

    Args:
        made_from: file -> what it is to be made from: what a mismatch means (``other images``) -> the digest expected.
        read_origin: file -> what it was made from; raises UserError if it is damaged.
        overwrite: whether files may be replaced.

    Raises:
        UserError: without ``overwrite``, a file is damaged, or files were made from something else; names all of these.
    """
    missing, others = [], []
    differences: dict[str, None] = {}
    for file, origin in made_from.items():
        try:
            found = read_origin(file) if file.exists() else None
        except UserError:
            if not overwrite:
                raise
            found = None
        if found is None or (overwrite and found != origin):
            missing.append(file)
        elif found != origin:
            others.append(str(file))
            differences |= dict.fromkeys(what for what in origin if found.get(what) != origin[what])
    if others:
        raise UserError(
            f"{listing(others)}: made from {' and '.join(differences)}; give another name, set=..., or overwrite=true"
        )
    return missing
