"""The cost of a training step with saliency terms, beside a plain one and beside the usual way to write it."""

import logging
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from saliency_entropy.backbone import Backbone
from saliency_entropy.data import FaceBatch
from saliency_entropy.data.manifest import thread_count
from saliency_entropy.device import usable_device
from saliency_entropy.errors import UserError
from saliency_entropy.losses import CrossEntropy, HumanSaliency, LogEntropy, LossSum
from saliency_entropy.module import DetectorModule

log = logging.getLogger(__name__)


def benchmark_steps(cfg: DictConfig) -> None:
    """Time three training steps of one backbone in turn and print medians and ratios.

    ``plain``: cross-entropy alone, no CAM. ``droid_cyborg``: the package's step, every metric included.
    ``two forwards``: the same loss as the CYBORG authors' script computes it, with a second forward for the feature
    maps and a loop over the images.
    """
    torch.set_num_threads(cfg.threads or thread_count())
    if not isinstance(cfg.repeats, int) or cfg.repeats < 1:
        raise UserError(f"repeats is {cfg.repeats!r}; give a whole number from 1 on")
    device = usable_device(cfg.device)
    torch.manual_seed(0)
    backbone = Backbone(**OmegaConf.to_container(cfg.backbone, resolve=True))
    loss = LossSum(
        {
            "cross_entropy": CrossEntropy(weight=0.5),
            "human_saliency": HumanSaliency(weight=0.5),
            "log_entropy": LogEntropy(weight=0.3),
        }
    )
    module = DetectorModule(backbone, loss, instantiate(cfg.protocol.optimizer)).to(device).train()
    optimizer = module.configure_optimizers()["optimizer"]
    batch = random_batch(cfg.protocol.batch_size, backbone.image_size, backbone.cam_size, device)

    losses: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: F.cross_entropy(backbone(batch.image).logits, batch.label),
        "droid_cyborg": lambda: module.training_step(batch, 0),
        "two forwards": lambda: two_forwards_loss(backbone, batch),
    }

    def seconds(loss: Callable[[], Tensor]) -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    times: dict[str, list[float]] = {name: [] for name in losses}
    for repeat in range(cfg.repeats + 1):
        for name, loss_of_step in losses.items():
            elapsed = seconds(loss_of_step)
            if repeat:  # the first of each warms caches and allocators
                times[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in times.items()}
    # Pair by pair, so that a machine that changes its speed meanwhile does not decide the ratio.
    against_plain = statistics.median(b / a for a, b in zip(times["plain"], times["droid_cyborg"], strict=True))
    against_two = statistics.median(b / a for a, b in zip(times["droid_cyborg"], times["two forwards"], strict=True))
    log.info(
        "%s, %d px, batch %d, %s, %d threads, median of %d",
        cfg.backbone.name, backbone.image_size, len(batch.label), device, torch.get_num_threads(), cfg.repeats,
    )  # fmt: skip
    for name, value in medians.items():
        log.info("%-13s %8.1f ms a step", name, 1000 * value)
    log.info("droid_cyborg costs %.3f x a plain cross-entropy step", against_plain)
    log.info("two forwards and a loop cost %.2f x droid_cyborg", against_two)


def random_batch(size: int, image_size: int, map_size: tuple[int, int], device: torch.device) -> FaceBatch:
    return FaceBatch(
        image=torch.randint(0, 256, (size, 3, image_size, image_size), dtype=torch.uint8, device=device),
        label=torch.arange(size, device=device) % 2,
        human_map=torch.rand(size, *map_size, device=device),
        has_map=torch.ones(size, dtype=torch.bool, device=device),
        row=torch.arange(size, device=device),
    )


def two_forwards_loss(backbone: Backbone, batch: FaceBatch) -> Tensor:
    """The loss of ``droid_cyborg`` with a forward for the logits, one for the feature maps, and a loop over images."""
    logits = backbone(batch.image).logits
    _, features, weight = backbone(batch.image)
    human_loss, log_entropy = [], []
    for index, chosen in enumerate(logits.argmax(dim=1).tolist()):
        cam = (weight[chosen][:, None, None] * features[index]).sum(dim=0)
        cam = (cam - cam.min()) / (cam.max() - cam.min())
        human_loss.append(F.mse_loss(cam, batch.human_map[index]))
        p = cam / (cam.sum() + 1e-10) + 1e-10
        log_entropy.append(torch.log(-(p * torch.log(p)).sum()))
    return (
        0.5 * F.cross_entropy(logits, batch.label)
        + 0.5 * torch.stack(human_loss).mean()
        + 0.3 * torch.stack(log_entropy).mean()
    )
