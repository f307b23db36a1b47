"""What a busy core costs a training step, by how OpenMP's threads wait for each other."""

import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from unittest.mock import patch

import torch
from omegaconf import DictConfig, OmegaConf

from benchmarks.steps import droid_cyborg_module, random_batch, take_step
from benchmarks.timing import in_turn, ratio
from saliency_entropy.backbone import Backbone
from saliency_entropy.cpu.process import use_cores

log = logging.getLogger(__name__)

WAYS_TO_WAIT = {
    "sleep": {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"},  # as the package sets it
    # As it is without the package: GNU's threads spin so many times, LLVM's and Intel's so many milliseconds.
    "spin": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
}
# Ends by itself when its parent, whose number it is given, is killed.
BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"
_step: Callable[[], None]  # a training step, in a process that takes them


def benchmark_waiting(cfg: DictConfig) -> None:
    """Time training steps of ``cfg.waiting.backbone`` on the processor: in turn with threads that sleep while they wait
    for each other and with threads that spin; first alone, then beside a process that keeps one core busy."""
    with ExitStack() as stack:
        steps = {name: stack.enter_context(_process(cfg, variables)) for name, variables in WAYS_TO_WAIT.items()}
        alone = in_turn(steps, cfg.repeats)
        with busy_core():
            beside = in_turn(steps, cfg.repeats)
    for name in steps:
        log.info(
            "%s, %d px, threads that %-5s %8.1f ms a step; beside a busy core %8.1f ms, %.2f x as long",
            cfg.waiting.backbone.name, cfg.waiting.backbone.image_size, name, 1000 * statistics.median(alone[name]),
            1000 * statistics.median(beside[name]), ratio(beside[name], alone[name]),
        )  # fmt: skip
    log.info(
        "a step with threads that spin takes %.2f x as long as with threads that sleep; beside a busy core %.2f x",
        ratio(alone["spin"], alone["sleep"]), ratio(beside["spin"], beside["sleep"]),
    )  # fmt: skip


@contextmanager
def _process(cfg: DictConfig, variables: dict[str, str]) -> Iterator[Callable[[], None]]:
    """A training step in a new process, since OpenMP reads the variables once, when PyTorch is loaded."""
    with ProcessPoolExecutor(1, get_context("spawn"), _prepare, (cfg,)) as process:
        with patch.dict(os.environ, variables):
            process.submit(_take_step).result()
        yield lambda: process.submit(_take_step).result()


def _prepare(cfg: DictConfig) -> None:
    global _step
    use_cores(cfg.threads)
    torch.manual_seed(0)
    device = torch.device("cpu")
    backbone = Backbone(**OmegaConf.to_container(cfg.waiting.backbone, resolve=True))
    module = droid_cyborg_module(cfg, backbone, device)
    optimizer = module.configure_optimizers()["optimizer"]
    batch = random_batch(cfg.protocol.batch_size, backbone.image_size, backbone.cam_size, device)
    _step = partial(take_step, partial(module.training_step, batch, 0), optimizer)


def _take_step() -> None:
    _step()


@contextmanager
def busy_core() -> Iterator[subprocess.Popen]:
    """A process that keeps one core busy meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
