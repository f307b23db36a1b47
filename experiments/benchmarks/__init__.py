"""What the package costs, measured side by side."""

import logging
import tempfile
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from benchmarks.evaluation import benchmark_evaluation
from benchmarks.judging import benchmark_judging
from benchmarks.loading import benchmark_cached_epoch, benchmark_decoding
from benchmarks.report import benchmark_comparison, benchmark_report
from benchmarks.steps import benchmark_steps
from benchmarks.sweep import benchmark_sweep
from benchmarks.variants import benchmark_variants
from benchmarks.waiting import benchmark_waiting
from saliency_entropy.backbone import Backbone
from saliency_entropy.cpu.process import use_cores
from saliency_entropy.detector import usable_device
from saliency_entropy.errors import UserError, whole_number

log = logging.getLogger(__name__)

PARTS = (
    "steps", "waiting", "cached_epoch", "decoding", "evaluation", "judging", "report", "comparison", "sweep",
    "variants",
)  # fmt: skip


def benchmark(cfg: DictConfig, script: Path) -> None:
    """Measure ``cfg.parts`` of the package and print what they cost.

    Args:
        cfg: the composed ``conf/benchmark.yaml``.
        script: the training command.

    Raises:
        UserError: a number is not a whole number from 1 on, or there is no such part.
    """
    for name in (
        "repeats",
        "batches",
        "images",
        "report.seeds",
        "report.images",
        "comparison.seeds",
        "comparison.images",
        "sweep.at_once",
        "sweep.seeds",
        "sweep.epochs",
        "variants",
    ):
        whole_number(name, OmegaConf.select(cfg, name), 1)
    unknown = [part for part in cfg.parts if part not in PARTS]
    if unknown:
        raise UserError(f"parts names {unknown[0]!r}; choose of {', '.join(PARTS)}")
    use_cores(cfg.threads)
    device = usable_device(cfg.device)
    torch.manual_seed(0)
    backbone = Backbone(**OmegaConf.to_container(cfg.backbone, resolve=True)).to(device)
    log.info(
        "%s, %d px, batch %d, %s, %d threads, median of %d",
        cfg.backbone.name, backbone.image_size, cfg.protocol.batch_size, device, torch.get_num_threads(), cfg.repeats,
    )  # fmt: skip
    if "steps" in cfg.parts:
        benchmark_steps(cfg, backbone, device)
    if "waiting" in cfg.parts:
        benchmark_waiting(cfg)
    with tempfile.TemporaryDirectory() as folder:
        if "cached_epoch" in cfg.parts:
            benchmark_cached_epoch(cfg, backbone, device, folder)
        if "decoding" in cfg.parts:
            benchmark_decoding(cfg, backbone, Path(folder))
        if "evaluation" in cfg.parts:
            benchmark_evaluation(cfg, backbone, device, Path(folder))
        if "judging" in cfg.parts:
            benchmark_judging(cfg, backbone, script.with_name("predict.py"), Path(folder))
        if "report" in cfg.parts:
            benchmark_report(cfg, Path(folder))
        if "comparison" in cfg.parts:
            benchmark_comparison(cfg, Path(folder))
        if "sweep" in cfg.parts:
            benchmark_sweep(cfg, script, Path(folder))
        if "variants" in cfg.parts:
            benchmark_variants(cfg, script, Path(folder))
