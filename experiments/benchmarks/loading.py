"""The cost of reading images: from the decode cache, from memory, and decoded anew."""

import itertools
import logging
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.steps import droid_cyborg_module, take_step
from benchmarks.timing import in_turn, ratio
from saliency_entropy.backbone import Backbone
from saliency_entropy.cpu.cores import thread_count
from saliency_entropy.data import FaceBatch, FaceDataModule
from saliency_entropy.data.cache import DecodeCache
from saliency_entropy.data.dataset import read_image
from saliency_entropy.data.forked import map_in_processes

log = logging.getLogger(__name__)


def benchmark_cached_epoch(cfg: DictConfig, backbone: Backbone, device: torch.device, folder: str) -> None:
    """Time training steps on images from the decode cache beside the same steps on images held in memory."""
    module = droid_cyborg_module(cfg, backbone, device)
    optimizer = module.configure_optimizers()["optimizer"]
    loaders = {name: _data(cfg, backbone, cache=name, cache_folder=folder).train_dataloader()
               for name in ("memory", "disk")}  # fmt: skip

    def train(loader: DataLoader) -> None:
        for batch in _batches(loader, cfg.protocol.batch_size, cfg.batches):
            on_device = FaceBatch(*(part.to(device, non_blocking=True) for part in batch))
            take_step(lambda: module.training_step(on_device, 0), optimizer)  # noqa: B023 (called at once)

    def load(loader: DataLoader) -> None:
        for _ in _batches(loader, cfg.protocol.batch_size, 10 * cfg.batches):
            pass

    steps = in_turn({name: partial(train, loader) for name, loader in loaders.items()}, cfg.repeats)
    loads = in_turn({name: partial(load, loader) for name, loader in loaders.items()}, cfg.repeats)
    for name in loaders:
        log.info(
            "%-13s %8.1f ms a step, of which %.2f ms to load its batch",
            name,
            1000 * statistics.median(steps[name]) / cfg.batches,
            100 * statistics.median(loads[name]) / cfg.batches,
        )
    log.info(
        "an epoch from the decode cache costs %.3f x one on images in memory", ratio(steps["disk"], steps["memory"])
    )


def benchmark_decoding(cfg: DictConfig, backbone: Backbone, folder: Path) -> None:
    """Time filling the decode cache, and streaming without one, beside a bare loop that decodes and resizes with Pillow
    on one core, and beside that loop on every core at once, which is the most that the machine can do."""
    data = _data(cfg, backbone, cache="none")
    paths = itertools.islice(itertools.cycle(data.split_table("train")["path"]), cfg.images)
    files = [data.manifest.file(path) for path in paths]
    size, interpolation = backbone.image_size, backbone.interpolation
    caches = itertools.count()

    cores = thread_count()

    def bare(first: int = 0, step: int = 1) -> None:
        for file in files[first::step]:
            with Image.open(file) as image:
                image.convert("RGB").resize((size, size), Image.Resampling[interpolation.upper()])

    def filled() -> None:
        cache = DecodeCache(folder / str(next(caches)), {}, (3, size, size), "uint8")
        cache.open([[file] for file in files], partial(read_image, size=size, interpolation=interpolation))

    def streamed() -> None:
        for _ in _batches(data.train_dataloader(), cfg.protocol.batch_size, -(-cfg.images // cfg.protocol.batch_size)):
            pass

    def on_all_cores() -> None:
        list(map_in_processes(lambda number: bare(number, cores), range(cores), cores, "begin again"))

    ways = {"bare loop": bare, "on all cores": on_all_cores, "cache filled": filled, "streamed": streamed}
    seconds = in_turn(ways, cfg.repeats)
    for name, values in seconds.items():
        log.info("%-13s %8.0f images a second", name, cfg.images / statistics.median(values))
    for name in ("on all cores", "cache filled", "streamed"):
        speed = ratio(seconds["bare loop"], seconds[name]) / cores
        log.info("%s: %.2f x the speed of the bare loop times %d cores", name, speed, cores)


def _data(cfg: DictConfig, backbone: Backbone, **options: object) -> FaceDataModule:
    only_train = {"cached_splits": ["train"], "check": "headers"}
    data = instantiate(cfg.data, **only_train, **options, map_size=backbone.cam_size, _convert_="all")
    data.setup("fit")
    return data


def _batches(loader: DataLoader, batch_size: int, number: int) -> Iterator[FaceBatch]:
    """``number`` batches, epoch after epoch; only whole ones, all of which cost the same."""
    whole = (batch for _ in itertools.count() for batch in loader if len(batch.row) == batch_size)
    return itertools.islice(whole, number)
