"""Every run of a study, scored on its own images or on others, as they are and corrupted."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from omegaconf import DictConfig

from saliency_entropy.data.dataset import Transform
from saliency_entropy.data.table import REPEATED, Manifest, data_hash, images_hash
from saliency_entropy.errors import UserError, listing
from saliency_entropy.metrics import SCORES
from saliency_entropy.page import wording
from saliency_entropy.run.result import IMAGES
from saliency_entropy.scores.corruptions import Variant, variants
from saliency_entropy.scores.finished_runs import (
    FinishedRuns,
    checkpoint_digests,
    each_study,
    finished_runs,
    missing_files,
    read_detector,
    refuse_diverged,
)
from saliency_entropy.scores.images import file_digests, file_sizes
from saliency_entropy.scores.one_pass import MADE_FROM, Scored, made_from, remove_interrupted_passes, score_images
from saliency_entropy.scores.score_table import PLAIN, SUFFIX, VARIANT_SCORES, ScoreTable, sampled

log = logging.getLogger(__name__)

# What it means that a score file was made from something else.
OTHERS = (
    "other images or another number of them, another checkpoint, other corruptions or batches of another batch_size"
)


def evaluate(cfg: DictConfig) -> None:
    """Score every finished run of ``cfg.study``, or of its variants, on ``cfg.split`` of its own data, or of
    ``cfg.data``.

    Each run gets ``scores/<set>.parquet``, and with ``cfg.corruptions`` also ``scores/<set>+corruptions.parquet``, of
    a sample of the images. Files that are there are left, and an interrupted pass goes on. With ``cfg.overwrite``,
    files that are damaged or were made from something else are replaced, and no others.

    Raises:
        UserError: the study, a checkpoint or the data cannot be used, or a file cannot be written; without
            ``cfg.overwrite``, a score file is damaged or was made from something else; or, after all runs are scored,
            scores are not finite.
    """
    corruptions = [cfg.corruptions] if isinstance(cfg.corruptions, str) else cfg.corruptions
    corrupted = None if corruptions is None else variants(corruptions)
    diverged: list[Path] = []
    for own in each_study(cfg):
        with finished_runs(own, ".evaluate.lock", "evaluate.py", "not scored") as runs:
            if runs.name.endswith(SUFFIX):
                raise UserError(f"set={runs.name} is a name for files of corrupted images; give another")
            _score(own, runs, PLAIN)
            if corrupted is not None:
                manifest = runs.images.manifest
                sample = replace(manifest, table=sampled(manifest.table, own.corruption_images))
                images = replace(runs.images, manifest=sample)
                _score(own, replace(runs, images=images, name=runs.name + SUFFIX), corrupted)
            diverged += [run for run in runs.folders if not _is_finite(_score_file(run, runs))]
    refuse_diverged(cfg, diverged, f"the scores in scores/{runs.name}.parquet")


def _score(cfg: DictConfig, runs: FinishedRuns, its_variants: Sequence[Variant]) -> None:
    """Make the score files that are missing, in one pass for all runs whose networks see images alike."""
    manifest = runs.images.manifest
    detectors = _missing(cfg, runs, its_variants)
    groups: dict[Transform, list[Scored]] = defaultdict(list)
    try:
        for folder, (identity, digest) in detectors.items():
            backbone, class_index, transform = read_detector(folder, runs)
            groups[transform].append(Scored(_score_file(folder, runs), identity, digest, backbone, class_index))
    except torch.OutOfMemoryError:
        raise UserError(
            f"{runs.device} has too little memory for {len(detectors)} detectors; give device=cpu"
        ) from None
    for transform, group in groups.items():
        if len(groups) > 1:
            log.info("%d detectors that see %d px", len(group), transform.image_size)
        table = ScoreTable(manifest, cfg.split, transform, its_variants)
        score_images(table, group, runs.device, cfg.batch_size, cfg.chunk, cfg.num_workers, runs.images.skip_broken)
    before = len(runs.folders) - len(detectors)
    scored = f"{wording.count(len(detectors), 'run')} scored" if detectors else "nothing to do"
    log.info("scores/%s.parquet: %s%s", runs.name, scored, f", {before} scored before" if before else "")


def _score_file(folder: Path, runs: FinishedRuns) -> Path:
    return folder / "scores" / f"{runs.name}.parquet"


def _missing(cfg: DictConfig, runs: FinishedRuns, its_variants: Sequence[Variant]) -> dict[Path, tuple[str, str]]:
    """The runs whose score file is missing, each with the file's identity and the checkpoint's digest."""

    def read_origin(file: Path) -> dict[str, str]:
        about, identity = _about(file, cfg.overwrite), identities[file.parent.parent]
        # Scores of earlier versions do not name their images, whose sizes then have to do.
        now = of_files(file_digests if IMAGES in about else file_sizes)
        return {OTHERS: identity if about.get(MADE_FROM) == made_from(identity, now) else ""}

    images = runs.images
    if images.manifest.table.empty:
        raise UserError(f"{images.manifest.origin}: no image of split {cfg.split} can be used; mend the files")
    files = {folder: _score_file(folder, runs) for folder in runs.folders}
    # A run scores its own images when it is trained, and notes these alone. Such a file is left, unless
    # overwrite=true.
    if "data" not in cfg and runs.name == cfg.split and not cfg.overwrite:
        trained = [file for file in files.values() if file.exists() and MADE_FROM not in _about(file, False)]
        if cfg.split not in REPEATED:  # the maps of the others may have been replaced in training, or left out
            _refuse_changed(images.manifest, trained)
        files = {run: file for run, file in files.items() if file not in trained}
    # Another batch size changes the last bits of scores.
    settings = (SCORES, sorted(images.human_maps.items()), list(its_variants), cfg.batch_size)
    about_images = f"{data_hash(images.manifest.table)}/{settings}"
    digests = checkpoint_digests(list(files))
    identities = {
        folder: hashlib.sha256(f"{about_images}/{digest}".encode()).hexdigest()[:16]
        for folder, digest in digests.items()
    }
    of_files = cache(lambda read: read(images.manifest))
    origins = {files[folder]: {OTHERS: identity} for folder, identity in identities.items()}
    missing = missing_files(origins, read_origin, cfg.overwrite)
    detectors = {folder: (identities[folder], digests[folder]) for folder in files if files[folder] in missing}
    for folder in runs.folders:
        remove_interrupted_passes(_score_file(folder, runs), identities[folder] if folder in detectors else None)
    return detectors


def _refuse_changed(manifest: Manifest, files: Sequence[Path]) -> None:
    """Raises UserError if images that training scored have other bytes by now; names the files of their scores."""
    if not files:
        return
    digests = pd.Series(file_digests(manifest), manifest.table["path"])
    changed = []
    for file in files:
        with _reading(file):
            scored = pq.read_table(file, columns=["path"])["path"].to_pylist()
        there = [path for path in scored if path in digests.index]
        now, then = images_hash(there, digests[there].to_numpy()), _about(file, False).get(IMAGES)
        if then and now and now != then:
            changed.append(str(file))
    if changed:
        raise UserError(
            f"{listing(changed)}: made from other images, whose bytes or names have changed since; put them back, "
            "give another name, set=..., or overwrite=true"
        )


def _is_finite(file: Path) -> bool:
    with _reading(file):
        table = pq.read_table(file, columns=list(VARIANT_SCORES))
    return all(np.isfinite(column.to_numpy()).all() for column in table.columns)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError):
        raise UserError(f"{file} is damaged; delete it, or give overwrite=true") from None


def _about(file: Path, whole: bool) -> dict[bytes, str]:
    """What a score file says that it was made from.

    Args:
        file: a score file.
        whole: read all of its rows, since its end alone does not tell whether they can be.

    Raises:
        UserError: the file is damaged.
    """
    with _reading(file), pq.ParquetFile(file) as scores:
        if whole:
            for _ in scores.iter_batches():
                pass
        return {key: text.decode() for key, text in (scores.schema_arrow.metadata or {}).items()}
