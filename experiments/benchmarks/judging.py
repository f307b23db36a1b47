"""The cost of judging image files, beside a bare loop over the same images decoded, and beside the exported file."""

import importlib.util
import logging
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from benchmarks.timing import in_turn, ratio
from saliency_entropy.backbone import Backbone
from saliency_entropy.data.images import load_image
from saliency_entropy.detector import Detector
from saliency_entropy.use.export import FORMATS, ExportedDetector

log = logging.getLogger(__name__)


def benchmark_judging(cfg: DictConfig, backbone: Backbone, script: Path, folder: Path) -> None:
    """Time :meth:`~saliency_entropy.detector.Detector.judge` on files, ONNX Runtime on the same images, and the command
    for one image from its start."""
    manifest = instantiate(cfg.data.source)()
    paths = [
        manifest.file(name) for name in manifest.split("train")["path"].iloc[: cfg.batches * cfg.protocol.batch_size]
    ]
    config = OmegaConf.to_container(cfg.backbone, resolve=True)
    path = folder / "best.ckpt"
    weights = {f"backbone.{name}": value for name, value in backbone.cpu().state_dict().items()}
    torch.save({"detector": {"backbone": config, "class_index": "predicted"}, "state_dict": weights}, path)
    detector = Detector.from_checkpoint(path, cfg.device)
    pixels = [torch.from_numpy(load_image(path, backbone.image_size, backbone.interpolation)) for path in paths]
    batches = torch.stack(pixels).split(cfg.protocol.batch_size)

    @torch.no_grad()
    def forward() -> None:
        for batch in batches:
            detector.backbone(batch.to(detector.device).permute(0, 3, 1, 2)).logits.cpu()

    def judge() -> None:
        list(detector.judge(paths, cfg.protocol.batch_size))

    def judge_pixels() -> None:
        for batch in batches:
            detector(batch.permute(0, 3, 1, 2))

    things = {"bare forwards": forward, "files judged": judge, "pixels judged": judge_pixels}
    if importlib.util.find_spec("onnxruntime") and detector.device.type == "cpu":
        exported = ExportedDetector(detector.backbone, "predicted", 1.0).eval()
        _, run = FORMATS["onnx"](exported, batches[0].numpy(), {})
        things["ONNX Runtime"] = lambda: [run(batch.numpy()) for batch in batches]
    seconds = in_turn(things, cfg.repeats)
    for name, values in seconds.items():
        log.info("%-13s %8.1f ms an image", name, 1000 * statistics.median(values) / len(paths))
    log.info(
        "files are judged at %.3f x the speed of bare forwards",
        ratio(seconds["bare forwards"], seconds["files judged"]),
    )
    if "ONNX Runtime" in seconds:
        log.info(
            "ONNX Runtime takes %.3f x the time of the checkpoint",
            ratio(seconds["ONNX Runtime"], seconds["pixels judged"]),
        )
    started = time.perf_counter()
    command = [
        sys.executable,
        str(script),
        f"checkpoint={path}",
        f"images={paths[0]}",
        f"output={folder}/out",
        "device=cpu",
    ]
    subprocess.run(command, check=True, capture_output=True)
    log.info("predict takes %.1f s from its start to the score of one image", time.perf_counter() - started)
