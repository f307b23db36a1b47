"""The cost of scoring several detectors in one pass, beside its parts: decoding each image once, and bare forwards."""

import copy
import itertools
import logging
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from benchmarks.timing import in_turn, ratio
from saliency_entropy.backbone import Backbone
from saliency_entropy.data.dataset import FaceDataset, Transform
from saliency_entropy.scores.one_pass import Scored, score_images
from saliency_entropy.scores.score_table import PLAIN, ScoreTable

log = logging.getLogger(__name__)

DETECTORS = 4


def benchmark_evaluation(cfg: DictConfig, backbone: Backbone, device: torch.device, folder: Path) -> None:
    """Time a pass over some images for four detectors, score files included, and what it cannot do without.

    All in one process: with more, decoding and forwards go on at the same time, and the sum of both is no bound.
    """
    manifest = instantiate(cfg.data.source)()
    batch_size = cfg.protocol.batch_size
    table = manifest.split("train").iloc[: cfg.batches * batch_size].assign(human_map="")
    manifest = replace(manifest, table=table)
    transform = Transform(backbone.image_size, backbone.interpolation, backbone.cam_size)
    images = FaceDataset(manifest, "train", transform)
    scores = ScoreTable(manifest, "train", transform, PLAIN)
    # Copies of their own: weights that all share would stay in a core's cache.
    networks = [copy.deepcopy(backbone).eval().requires_grad_(False) for _ in range(DETECTORS)]
    batches = torch.stack([face.image for face in map(images.__getitem__, range(len(images)))]).split(batch_size)
    passes = itertools.count()

    def decode() -> None:
        for index in range(len(images)):
            images[index]

    @torch.inference_mode()
    def forward() -> None:
        for batch, network in itertools.product(batches, networks):
            network(batch.to(device))

    def one_pass() -> None:
        runs = folder / "passes" / str(next(passes))
        detectors = [
            Scored(runs / f"{n}.parquet", "0" * 16, "0" * 16, network, "predicted")
            for n, network in enumerate(networks)
        ]
        score_images(scores, detectors, device, batch_size, chunk=len(batches), num_workers=0)

    progress = logging.getLogger(score_images.__module__)
    level = progress.level
    progress.setLevel(logging.WARNING)
    try:
        seconds = in_turn({"decode": decode, "forwards": forward, "one pass": one_pass}, cfg.repeats)
    finally:
        progress.setLevel(level)
    for name, values in seconds.items():
        log.info("%-13s %8.1f ms an image", name, 1000 * statistics.median(values) / len(images))
    parts = [sum(both) for both in zip(seconds["decode"], seconds["forwards"], strict=True)]
    log.info(
        "a pass for %d detectors costs %.3f x decoding each image once and their bare forwards",
        DETECTORS, ratio(seconds["one pass"], parts),
    )  # fmt: skip
