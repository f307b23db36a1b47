"""The cost of a training step with saliency terms, beside a plain one and beside the usual way to write it."""

import logging
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from benchmarks.timing import in_turn, ratio
from saliency_entropy.backbone import Backbone
from saliency_entropy.data import FaceBatch
from saliency_entropy.losses import CrossEntropy, HumanSaliency, LogEntropy, LossSum
from saliency_entropy.module import DetectorModule

log = logging.getLogger(__name__)


def benchmark_steps(cfg: DictConfig, backbone: Backbone, device: torch.device) -> None:
    """Time three training steps of one backbone in turn and print medians and ratios.

    ``plain``: cross-entropy alone, no CAM. ``droid_cyborg``: the package's step, every metric included.
    ``two forwards``: the same loss as the CYBORG authors' script computes it, with a second forward for the feature
    maps and a loop over the images.
    """
    module = droid_cyborg_module(cfg, backbone, device)
    optimizer = module.configure_optimizers()["optimizer"]
    batch = random_batch(cfg.protocol.batch_size, backbone.image_size, backbone.cam_size, device)

    def step(loss: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: take_step(loss, optimizer)

    steps = {
        "plain": step(lambda: F.cross_entropy(backbone(batch.image).logits, batch.label)),
        "droid_cyborg": step(lambda: module.training_step(batch, 0)),
        "two forwards": step(lambda: two_forwards_loss(backbone, batch)),
    }
    seconds = in_turn(steps, cfg.repeats)
    for name, values in seconds.items():
        log.info("%-13s %8.1f ms a step", name, 1000 * statistics.median(values))
    log.info("droid_cyborg costs %.3f x a plain cross-entropy step", ratio(seconds["droid_cyborg"], seconds["plain"]))
    log.info(
        "two forwards and a loop cost %.2f x droid_cyborg", ratio(seconds["two forwards"], seconds["droid_cyborg"])
    )


def droid_cyborg_module(cfg: DictConfig, backbone: Backbone, device: torch.device) -> DetectorModule:
    loss = LossSum(
        {
            "cross_entropy": CrossEntropy(weight=0.5),
            "human_saliency": HumanSaliency(weight=0.5),
            "log_entropy": LogEntropy(weight=0.3),
        }
    )
    return DetectorModule(backbone, loss, instantiate(cfg.protocol.optimizer)).to(device).train()


def take_step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


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


def random_batch(size: int, image_size: int, map_size: tuple[int, int], device: torch.device) -> FaceBatch:
    return FaceBatch(
        image=torch.randint(0, 256, (size, 3, image_size, image_size), dtype=torch.uint8, device=device),
        label=torch.arange(size, device=device) % 2,
        human_map=torch.rand(size, *map_size, device=device),
        has_map=torch.ones(size, dtype=torch.bool, device=device),
        row=torch.arange(size, device=device),
        digest=torch.ones(size, dtype=torch.int64, device=device),
    )
