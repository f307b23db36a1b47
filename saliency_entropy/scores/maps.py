"""Where the detectors of a study look: every run's maps of the same few images, computed once and kept."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerGradCam
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn

from saliency_entropy.backbone import Backbone
from saliency_entropy.cam import detector_cam
from saliency_entropy.data import FaceBatch, Manifest
from saliency_entropy.data.dataset import FaceDataset, Transform
from saliency_entropy.data.loaders import batch_loader
from saliency_entropy.data.table import LABELS, data_hash
from saliency_entropy.errors import UserError
from saliency_entropy.functional import min_max
from saliency_entropy.page import wording
from saliency_entropy.scores.finished_runs import (
    FinishedRuns,
    checkpoint_digests,
    each_study,
    finished_runs,
    missing_files,
    read_detector,
    refuse_diverged,
)
from saliency_entropy.scores.images import ScoredImages, file_sizes
from saliency_entropy.scores.map_files import KINDS, PICTURE, RunMaps, Sample, maps_file, read_maps, save_maps

log = logging.getLogger(__name__)

# What it means that a file of maps was made from something else.
IMAGES, CHECKPOINT = "other images", "another checkpoint"


def focus(cfg: DictConfig) -> None:
    """Keep the maps of every finished run of ``cfg.study``, or of its variants, of a sample of the images of
    ``cfg.split`` of its own data, or of ``cfg.data``.

    Files that are there are left, so an interrupted command goes on. With ``cfg.overwrite``, maps that are damaged or
    were made from something else are replaced, and no others.

    Raises:
        UserError: the study, a checkpoint or the data cannot be used, or a file cannot be written; without
            ``cfg.overwrite``, maps that are there are damaged or were made from something else; or, after all others
            are kept, maps are not finite.
    """
    diverged: list[Path] = []
    for own in each_study(cfg):
        with finished_runs(own, ".focus.lock", "focus.py", "without maps") as runs:
            try:
                diverged += _keep_maps(own, runs)
            except torch.OutOfMemoryError:
                raise UserError(
                    f"{runs.device} has too little memory for batches of {cfg.batch_size}; give batch_size="
                ) from None
    refuse_diverged(cfg, diverged, "its maps, which are not kept,")


def _keep_maps(cfg: DictConfig, runs: FinishedRuns) -> list[Path]:
    """Returns the runs whose maps are not finite and are not kept."""
    manifest = _sampled(cfg, runs.images)
    chosen = manifest.table
    # With its index, by which the images are found in the manifest.
    table_hash, sizes = data_hash(chosen.reset_index()), file_sizes(manifest).tolist()
    about = f"{table_hash}/{sizes}/{json.dumps(runs.images.human_maps, sort_keys=True)}"
    sample = hashlib.sha256(about.encode()).hexdigest()[:16]

    @cache
    def batches(transform: Transform) -> list[FaceBatch]:
        """The images as a network sees them, decoded once for all runs."""
        dataset = FaceDataset(manifest, cfg.split, transform)
        return list(batch_loader(dataset, cfg.num_workers, batch_size=cfg.batch_size))

    sample_file = maps_file(runs.study, runs.name)
    if missing_files({sample_file: {IMAGES: sample}}, _sample_origin, cfg.overwrite):
        transform = read_detector(runs.folders[0], runs)[2]
        save_maps(sample_file, _sample(sample, chosen, batches(transform)))
    digests = checkpoint_digests(runs.folders)
    origins = {maps_file(folder, runs.name): {IMAGES: sample, CHECKPOINT: digest} for folder, digest in digests.items()}
    missing = missing_files(origins, _maps_origin, cfg.overwrite)
    made, diverged = 0, []
    for folder, digest in digests.items():
        file = maps_file(folder, runs.name)
        if file not in missing:
            continue
        backbone, class_index, transform = read_detector(folder, runs)
        maps = run_maps(backbone, class_index, batches(transform))
        if not all(np.isfinite(values).all() for values in maps.values()):
            diverged.append(folder)
            continue
        save_maps(file, RunMaps(sample, digest, chosen.index.to_numpy(), **maps))
        made += 1
        log.info("%s/%s: maps of %d images", folder.parent.name, folder.name, len(chosen))
    log.info(
        "maps/%s.npz: %s made, %d made before; %d images, %d with a human map",
        runs.name, wording.count(made, "run"), len(origins) - len(missing), len(chosen),
        (chosen["human_map"] != "").sum(),
    )  # fmt: skip
    return diverged


def _sample_origin(file: Path) -> dict[str, str]:
    return {IMAGES: read_maps(file, Sample).sample}


def _maps_origin(file: Path) -> dict[str, str]:
    maps = read_maps(file, RunMaps)
    return {IMAGES: maps.sample, CHECKPOINT: maps.checkpoint}


def _sampled(cfg: DictConfig, images: ScoredImages) -> Manifest:
    """The manifest of the images whose maps are made. With skip_broken, an image that cannot be decoded is replaced by
    another draw.

    Raises:
        UserError: no image can be used, or see :func:`stratified_sample`.
    """
    manifest = images.manifest
    while True:
        table = manifest.table
        if table.empty:
            raise UserError(f"{manifest.origin}: no image of split {cfg.split} can be used; mend the files")
        if cfg.with_maps:
            table = table[table["human_map"] != ""]
            if table.empty:
                raise UserError(
                    f"{manifest.origin}: split {cfg.split} has no image with a human map; give another, split=..."
                )
        sample = replace(manifest, table=table.iloc[stratified_sample(table, cfg.samples, cfg.seed)])
        if not images.skip_broken:
            return sample
        usable = images.without_broken(sample, decode=True)
        if usable is manifest:
            return sample
        images, manifest = replace(images, manifest=usable), usable


def stratified_sample(table: pd.DataFrame, count: int, seed: int) -> np.ndarray:
    """A random sample of rows, in which each label and generator has its share, and one row at least.

    Args:
        table: columns ``label, generator``.
        count: the size of the sample; all rows, if the table has no more.
        seed: decides what is drawn.

    Returns:
        Their places in the table, ascending.

    Raises:
        UserError: ``count`` is smaller than the number of labels and generators.
    """
    if count >= len(table):
        return np.arange(len(table))
    strata = list(table.groupby(["label", "generator"]).indices.values())
    if count < len(strata):
        raise UserError(
            f"samples is {count}, but the images are of {len(strata)} kinds (label and generator); give {len(strata)} "
            "or more"
        )
    shares = np.array([len(places) for places in strata]) * count / len(table)
    taken = np.ones(len(strata), dtype=int)
    while taken.sum() < count:
        taken[np.argmax(shares - taken)] += 1
    random = np.random.default_rng(seed)
    drawn = [random.choice(places, size, replace=False) for places, size in zip(strata, taken, strict=True)]
    return np.sort(np.concatenate(drawn))


def run_maps(backbone: Backbone, class_index: str, batches: Sequence[FaceBatch]) -> dict[str, np.ndarray]:
    """The maps of all :data:`KINDS` for the images of several batches.

    Args:
        backbone: a detector; it is put into evaluation mode.
        class_index: the class whose CAM the detector takes, see :func:`~saliency_entropy.cam.detector_cam`.
        batches: on any device.

    Returns:
        Kind -> ``(n, h, w)`` float32 in [0, 1]; a constant map is zeros.
    """
    backbone.eval()
    device = backbone.mean.device
    grad_cam = GradCam(backbone)
    maps: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for batch in batches:
        labels = batch.label.to(device)
        with torch.no_grad():
            output = backbone(batch.image.to(device))
        found = {
            "cam": detector_cam(output, class_index, labels),
            "cam_true": detector_cam(output, "true", labels),
            "cam_difference": detector_cam(output, "difference"),
            "grad_cam": grad_cam(output.features, output.logits.argmax(dim=1)),
        }
        for kind, values in found.items():
            maps[kind].append(min_max(values.detach()).cpu())
    return {kind: torch.cat(values).numpy() for kind, values in maps.items()}


class GradCam:
    """Grad-CAM (Selvaraju et al., ICCV 2017) by Captum, for the feature maps that a network averages.

    For these maps, the weight of channel k is ``W[c, k] / (h w)``, so that Grad-CAM is the CAM with negative values set
    to zero. Captum computes it by automatic differentiation all the same, through everything that follows the maps.

    Args:
        backbone: in evaluation mode.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._pooled = nn.Identity()  # a layer for Captum, after the last activation, on the grid
        self._captum = LayerGradCam(self._logits, self._pooled)

    def __call__(self, features: Tensor, class_index: Tensor) -> Tensor:
        """Feature maps ``(B, C, h, w)`` and a class for each image -> ``(B, h, w)``, not negative, not normalised."""
        inputs = features.detach().float().requires_grad_()
        return self._captum.attribute(inputs, target=class_index, relu_attributions=True).squeeze(1)

    def _logits(self, features: Tensor) -> Tensor:
        net = self._backbone.net
        maps = self._pooled(self._backbone.activation(features))
        prefix = getattr(net, "num_prefix_tokens", None)
        if prefix is not None:  # a vision transformer, whose head takes tokens and does not look at the first
            maps = nn.functional.pad(maps.flatten(2).transpose(1, 2), (0, 0, prefix, 0))
        return net.forward_head(maps)


def _sample(sample: str, chosen: pd.DataFrame, batches: Sequence[FaceBatch]) -> Sample:
    images = torch.cat([batch.image for batch in batches]).permute(0, 2, 3, 1).numpy()
    size = (PICTURE, PICTURE)
    pictures = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)) for image in images]
    return Sample(
        sample,
        chosen.index.to_numpy(),
        chosen["path"].to_numpy(dtype=np.str_),
        chosen["label"].map(LABELS.index).to_numpy(dtype=np.int64),
        chosen["generator"].to_numpy(dtype=np.str_),
        np.stack(pictures),
        torch.cat([batch.human_map for batch in batches]).numpy(),
        torch.cat([batch.has_map for batch in batches]).numpy(),
    )
