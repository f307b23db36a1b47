"""Every run of a study, scored on its own images or on others, as they are and corrupted."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from omegaconf import DictConfig

from saliency_entropy.data import Manifest
from saliency_entropy.data.dataset import Transform
from saliency_entropy.data.table import data_hash
from saliency_entropy.detector import read_network, usable_device
from saliency_entropy.errors import UserError, listing
from saliency_entropy.metrics import SCORES
from saliency_entropy.page import wording
from saliency_entropy.parallel import thread_count
from saliency_entropy.run.checkpoint import best_checkpoint, file_digest
from saliency_entropy.scores.corruptions import NONE, Variant, variants
from saliency_entropy.scores.finished_runs import check_settings, finished_folders, set_name, writing_alone
from saliency_entropy.scores.images import ScoredImages, file_sizes, read_images
from saliency_entropy.scores.one_pass import MADE_FROM, Scored, made_from, remove_parts, score_images
from saliency_entropy.scores.tables import SUFFIX, ImageScores, ScoreTable, VariantScores, sampled

log = logging.getLogger(__name__)

# Whole numbers, and the least that each may be.
NUMBERS = {"batch_size": 1, "chunk": 1}
NUMBERS_OR_NULL = {"threads": 1, "num_workers": 0, "corruption_images": 2}


@dataclass(frozen=True)
class Target:
    """A score file that every run is to have.

    Attributes:
        name: of ``scores/<name>.parquet``.
        table: makes its rows, from a manifest, a split, a transform and :attr:`variants`.
        variants: of each image.
        images: the images that it is about.
        own: it is of the images that the runs were scored on when they were trained.
    """

    name: str
    table: Callable[[Manifest, str, Transform, Sequence[Variant]], ScoreTable]
    variants: list[Variant]
    images: ScoredImages
    own: bool


def evaluate(cfg: DictConfig) -> None:
    """Score every finished run of ``cfg.study`` on ``cfg.split`` of its own data, or of ``cfg.data``.

    Each run gets ``scores/<set>.parquet``, and with ``cfg.corruptions`` also ``scores/<set>+corruptions.parquet``, of
    a sample of the images. What is there already is left; an interrupted pass is gone on with. With ``cfg.overwrite``,
    files that are damaged or were made from something else are replaced, and no others.

    Raises:
        UserError: the study, a checkpoint or the data cannot be used, or a file cannot be written; without
            ``cfg.overwrite``, a score file is damaged or was made from something else.
    """
    check_settings(cfg, NUMBERS, NUMBERS_OR_NULL)
    if cfg.corruptions is not None:
        _variants(cfg)
    study = Path(str(cfg.study))
    folders = finished_folders(study, "not scored")
    images = read_images(cfg, folders)
    name = set_name(cfg, images)
    if name.endswith(SUFFIX):
        raise UserError(f"set={name} is how files of corrupted images are called; give another")
    torch.set_num_threads(cfg.threads or thread_count())
    device = usable_device(cfg.device)
    own = "data" not in cfg and name == cfg.split
    targets = [Target(name, ImageScores, [Variant(NONE, 0)], images, own)]
    if cfg.corruptions is not None:
        table = sampled(images.manifest.table, cfg.corruption_images)
        some = replace(images, manifest=replace(images.manifest, table=table))
        targets.append(Target(name + SUFFIX, VariantScores, _variants(cfg), some, own=False))
    with writing_alone(study, ".evaluate.lock", f"{study} is being scored"):
        for target in targets:
            _score(cfg, folders, target, device)


def _variants(cfg: DictConfig) -> list[Variant]:
    return variants([cfg.corruptions] if isinstance(cfg.corruptions, str) else list(cfg.corruptions))


def _score(cfg: DictConfig, folders: Sequence[Path], target: Target, device: torch.device) -> None:
    """Group the runs by what their networks see, and make a pass for each group."""
    waiting, sizes = _waiting(cfg, folders, target)
    groups: dict[Transform, list[Scored]] = defaultdict(list)
    try:
        for folder, (identity, digest) in waiting.items():
            backbone, class_index = read_network(best_checkpoint(folder))
            backbone.eval().requires_grad_(False).to(device)
            transform = target.images.transform(backbone.image_size, backbone.interpolation, backbone.cam_size)
            groups[transform].append(Scored(_score_file(folder, target), identity, digest, backbone, class_index))
    except torch.OutOfMemoryError:
        raise UserError(f"{device} has too little memory for {len(waiting)} detectors; give device=cpu") from None
    for transform, detectors in groups.items():
        if len(groups) > 1:
            log.info("%d detectors that see %d px", len(detectors), transform.image_size)
        score_images(
            target.table(target.images.manifest, cfg.split, transform, target.variants),
            detectors,
            sizes,
            device,
            cfg.batch_size,
            cfg.chunk,
            cfg.num_workers,
            target.images.skip_broken,
        )
    before = len(folders) - len(waiting)
    scored = f"{wording.count(len(waiting), 'run')} scored" if waiting else "nothing to do"
    log.info("scores/%s.parquet: %s%s", target.name, scored, f", {before} scored before" if before else "")


def _score_file(folder: Path, target: Target) -> Path:
    return folder / "scores" / f"{target.name}.parquet"


def _waiting(
    cfg: DictConfig, folders: Sequence[Path], target: Target
) -> tuple[dict[Path, tuple[str, str]], np.ndarray]:
    """The runs without this score file, each with the file's identity and the checkpoint's digest, and the sizes of the
    images' files.

    Raises:
        UserError: names all checkpoints that cannot be read, and all score files that were made from something else.
    """
    files = {folder: _score_file(folder, target) for folder in folders}
    theirs = {folder: _made_from(file, cfg.overwrite) for folder, file in files.items()}
    # A run scores its own images when it is trained, and does not say what from: taken as it is, unless overwritten.
    asked = [folder for folder in folders if cfg.overwrite or not (target.own and theirs[folder] == "")]
    if target.images.manifest.table.empty:
        raise UserError(f"{target.images.manifest.origin}: no image of split {cfg.split} can be used; mend some")
    # Another batch size changes the last bits of scores.
    settings = (SCORES, sorted(target.images.human_maps.items()), target.variants, cfg.batch_size)
    about_images = f"{data_hash(target.images.manifest.table)}/{settings}"
    sizes = file_sizes(target.images.manifest) if asked else np.empty(0, np.int64)
    waiting: dict[Path, tuple[str, str]] = {}
    others, unreadable = [], []
    for folder in asked:
        checkpoint = best_checkpoint(folder)
        try:
            digest = file_digest(checkpoint)
        except OSError as error:
            unreadable.append(f"{checkpoint} ({error.strerror})")
            continue
        identity = hashlib.sha256(f"{about_images}/{digest}".encode()).hexdigest()[:16]
        if theirs[folder] == made_from(identity, sizes):
            continue
        if theirs[folder] is None or cfg.overwrite:
            waiting[folder] = identity, digest
        else:
            others.append(f"{folder.parent.name}/{folder.name}")
    problems = []
    if unreadable:
        problems.append(
            f"{len(unreadable)} of {len(folders)} runs have no checkpoint that can be read: {listing(unreadable)}; "
            "delete these folders and train them again, or move them out of the study"
        )
    if others:
        problems.append(
            f"scores/{target.name}.parquet of {wording.first_few(others)} is there, but of other images or another "
            "number of them, of another checkpoint, of other corruptions or with another batch size; give "
            "overwrite=true, or another name with set=..."
        )
    if problems:
        raise UserError("\n".join(problems))
    for folder, file in files.items():
        remove_parts(file, waiting[folder][0] if folder in waiting else None)
    return waiting, sizes


def _made_from(file: Path, overwrite: bool) -> str | None:
    """What a score file says that it was made from, "" if nothing; None if there is no such file, or it is damaged and
    to be overwritten."""
    if not file.exists():
        return None
    try:
        with pq.ParquetFile(file) as scores:
            if overwrite:
                for _ in scores.iter_batches():  # its end alone does not tell whether its rows are whole
                    pass
            return (scores.schema_arrow.metadata or {}).get(MADE_FROM, b"").decode()
    except (ValueError, OSError):
        if overwrite:
            return None
        raise UserError(f"{file} is damaged; delete it, or give overwrite=true") from None
