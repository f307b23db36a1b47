"""What a busy core costs a training step, by how OpenMP's threads wait for each other."""

import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from unittest.mock import patch

import torch
from omegaconf import DictConfig, OmegaConf

from benchmarks.steps import droid_cyborg_module, random_batch, take_step
from benchmarks.timing import in_turn
from saliency_entropy.backbone import Backbone
from saliency_entropy.parallel import thread_count

log = logging.getLogger(__name__)

WAYS_TO_WAIT = {
    "sleep": {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"},  # as the package sets it
    # As it is without the package: GNU's threads spin so many times, LLVM's and Intel's so many milliseconds.
    "spin": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
}
# Ends by itself when its parent, whose number it is given, is killed.
BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"


def benchmark_waiting(cfg: DictConfig) -> None:
    """Time training steps of ``cfg.waiting.backbone`` on the processor, alone and beside a process that keeps one core
    busy, with threads that sleep while they wait for each other and with threads that spin."""
    medians = {}
    for name, variables in WAYS_TO_WAIT.items():
        # A process of its own, since OpenMP reads the variables once, when PyTorch is loaded.
        with patch.dict(os.environ, variables), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            medians[name] = alone, beside = process.submit(_median_steps, cfg).result()
        log.info(
            "%s, %d px, threads that %-5s %8.1f ms a step; beside a busy core %8.1f ms, %.2f x as long",
            cfg.waiting.backbone.name, cfg.waiting.backbone.image_size, name, 1000 * alone, 1000 * beside,
            beside / alone,
        )  # fmt: skip
    log.info(
        "a step with threads that spin takes %.2f x as long as with threads that sleep; beside a busy core %.2f x",
        *(spin / sleep for spin, sleep in zip(medians["spin"], medians["sleep"], strict=True)),
    )


def _median_steps(cfg: DictConfig) -> tuple[float, float]:
    """Seconds of a step of ``droid_cyborg`` alone, and beside a busy core."""
    torch.set_num_threads(cfg.threads or thread_count())
    torch.manual_seed(0)
    device = torch.device("cpu")
    backbone = Backbone(**OmegaConf.to_container(cfg.waiting.backbone, resolve=True))
    module = droid_cyborg_module(cfg, backbone, device)
    optimizer = module.configure_optimizers()["optimizer"]
    batch = random_batch(cfg.protocol.batch_size, backbone.image_size, backbone.cam_size, device)

    def median() -> float:
        step = {"step": lambda: take_step(lambda: module.training_step(batch, 0), optimizer)}
        return statistics.median(in_turn(step, cfg.repeats)["step"])

    alone = median()
    with busy_core():
        return alone, median()


@contextmanager
def busy_core() -> Iterator[subprocess.Popen]:
    """A process that keeps one core busy meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
