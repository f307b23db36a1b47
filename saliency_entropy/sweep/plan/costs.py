"""What the runs of a plan cost: seconds, memory and bytes on the disk."""

import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from saliency_entropy.data import FaceBatch, FaceDataModule
from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.module import DetectorModule
from saliency_entropy.run.result import SCORED_SPLITS
from saliency_entropy.sweep.plan.runs import PlannedRun

STEPS = 4  # real ones, of which the first is not timed
ENOUGH = 5.0  # seconds of timed steps after which no further one is taken
JOB_START = 12.0  # seconds of a Slurm job until it trains, most of them to import PyTorch
SAMPLE = 10_000  # rows of a score table whose size is measured


@dataclass(frozen=True)
class StepCost:
    """One training step of the composed configuration on random images, as it was measured.

    Attributes:
        device: in words.
        step: seconds of forward, backward and update.
        image: seconds an image of a forward without gradients.
        memory: bytes that a run needs on the device.
    """

    device: str
    step: float
    image: float
    memory: int


@dataclass(frozen=True)
class RunTime:
    """How long a run takes.

    Attributes:
        epoch: seconds of one, validation included.
        scoring: seconds of what comes after the last.
        source: how it is known, in words.
    """

    epoch: float
    scoring: float
    source: str

    def seconds(self, run: PlannedRun) -> float:
        return run.epochs_left * self.epoch + self.scoring


def timed_steps(cfg: DictConfig, module: DetectorModule, threads: int) -> StepCost:
    """Take a few training steps on random images; the module's weights are of no use afterwards.

    Args:
        cfg: of a run.
        module: of the same.
        threads: of the processor.

    Raises:
        UserError: the device that is asked for is not here, or has too little memory.
    """
    trainer = cfg.trainer
    try:
        fabric = Fabric(
            accelerator=trainer.accelerator, devices=1, precision=trainer.precision, plugins=[LightningEnvironment()]
        )
        with _as_in_training(bool(trainer.get("deterministic")), threads):
            return _timed(fabric, module, cfg.protocol.batch_size, cfg.data.eval_batch_size)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"a training step does not fit into the memory of the device ({in_one_line(error)}); give a smaller "
            "protocol.batch_size or backbone.image_size"
        ) from None
    except (MisconfigurationException, RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"trainer.accelerator={trainer.accelerator}, trainer.precision={trainer.precision} cannot be used on this "
            f"machine: {in_one_line(error)}"
        ) from error


def _timed(fabric: Fabric, module: DetectorModule, batch_size: int, eval_batch_size: int | None) -> StepCost:
    backbone = module.backbone
    own = module.configure_optimizers()["optimizer"]
    # The module itself is called, not what is set up around it, which takes no dataclass for an output.
    _, optimizer = fabric.setup(module, own)
    cuda = fabric.device.type == "cuda"

    def batch(size: int) -> FaceBatch:
        return random_batch(size, backbone.image_size, backbone.cam_size, fabric.device)

    def seconds() -> float:
        if cuda:
            torch.cuda.synchronize(fabric.device)
        return time.perf_counter()

    times: list[float] = []
    training = batch(batch_size)
    module.train()
    while len(times) < STEPS and sum(times[1:]) < ENOUGH:
        start = seconds()
        optimizer.zero_grad()
        with fabric.autocast():
            total, _ = module.loss(module(training))
        fabric.backward(total)
        optimizer.step()
        times.append(seconds() - start)
    module.eval()
    scored = batch(eval_batch_size or batch_size)
    with torch.no_grad(), fabric.autocast():
        module(scored)
        start = seconds()
        module(scored)
        forward = seconds() - start
    memory = torch.cuda.max_memory_reserved(fabric.device) if cuda else peak_memory()
    return StepCost(device_name(fabric.device), statistics.median(times[1:]), forward / len(scored.label), memory)


def device_name(device: torch.device) -> str:
    """As a person calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"processor, {threads} {'thread' if threads == 1 else 'threads'}" if device.type == "cpu" else device.type


def peak_memory() -> int:
    """Bytes of memory that this process has needed so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def _as_in_training(deterministic: bool, threads: int) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as Lightning does
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])


def time_of_a_run(cost: StepCost, cfg: DictConfig, data: FaceDataModule) -> RunTime:
    """From the time of a step. The images are taken for decoded; a step on cached images costs a hundredth more."""
    images = {split: len(data.split_table(split)) for split in ("train", *SCORED_SPLITS)}
    batch = cfg.protocol.batch_size
    steps = math.ceil(images["train"] / batch)
    if data.train_batches is not None:
        steps = min(steps, data.train_batches)
    elif data.skip_last_batch_of_one and images["train"] % batch == 1:
        steps -= 1
    source = (
        f"{'1 step' if steps == 1 else f'{steps} steps'} of {cost.step:.3g} s and {images['val']} validation images of "
        f"{1000 * cost.image:.3g} ms, measured here ({cost.device})"
    )
    scoring = sum(images[split] for split in SCORED_SPLITS) * cost.image
    return RunTime(steps * cost.step + images["val"] * cost.image, scoring, source)


def time_of_done_runs(results: Sequence[Any]) -> RunTime | None:
    """From the results of the runs that are done, scoring included; None if there is none."""
    seconds = [
        result["wall_seconds"] / result["epochs"]
        for result in results
        if isinstance(result, dict) and result.get("wall_seconds") and result.get("epochs")
    ]
    if not seconds:
        return None
    number = "run of this kind that is" if len(seconds) == 1 else f"{len(seconds)} runs of this kind that are"
    return RunTime(float(np.median(seconds)), 0.0, f"as the {number} done took")


def checkpoint_bytes(module: DetectorModule) -> tuple[int, int]:
    """Of the weights alone (``best.ckpt``), and with the optimizer's state (``resume.ckpt``)."""
    weights = sum(tensor.nbytes for tensor in module.state_dict().values())
    optimizer = module.configure_optimizers()["optimizer"]
    # A step without a gradient to speak of makes the state that a real one makes.
    for parameter in module.backbone.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = sum(
        value.nbytes
        for of_parameter in optimizer.state_dict()["state"].values()
        for value in of_parameter.values()
        if isinstance(value, torch.Tensor)
    )
    for parameter in module.backbone.parameters():
        parameter.grad = None
    return weights, weights + state


def score_bytes(data: FaceDataModule) -> int:
    """Of the score tables of a run: the manifest's columns and five figures an image, as they are written."""
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
    """Of all files in a folder, in which runs may be writing at this moment; 0 if there is none."""
    size = 0
    for path in folder.rglob("*") if folder.exists() else ():
        with suppress(FileNotFoundError):  # it has been moved to its place since it was listed
            size += path.stat().st_size if path.is_file() else 0
    return size


def run_bytes(module: DetectorModule, data: FaceDataModule) -> int:
    """What a run leaves: ``best.ckpt``, ``resume.ckpt`` and the one before it, the scores."""
    weights, with_optimizer = checkpoint_bytes(module)
    return weights + 2 * with_optimizer + score_bytes(data)


def random_batch(size: int, image_size: int, map_size: tuple[int, int], device: torch.device) -> FaceBatch:
    return FaceBatch(
        image=torch.randint(0, 256, (size, 3, image_size, image_size), dtype=torch.uint8, device=device),
        label=torch.arange(size, device=device) % 2,
        human_map=torch.rand(size, *map_size, device=device),
        has_map=torch.ones(size, dtype=torch.bool, device=device),
        row=torch.arange(size, device=device),
    )
