"""What the report of a large study costs: time and memory of a process of its own."""

import logging
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from benchmarks.made_up_study import TITLES, write_study, write_variant

log = logging.getLogger(__name__)

# The paper's test set: 100,000 images of each generator, and as many real ones.
GENERATORS = ("progan", "starganv2", "stylegan", "stylegan2", "stylegan2-ada", "stylegan3")
REAL = {"celeba-hq": 0.3, "ffhq": 0.7}


def benchmark_report(cfg: DictConfig, folder: Path) -> None:
    """Write a study of random scores and time its report, bootstrap and figures included, from reading to writing."""
    images = scored_like_the_paper(cfg.report.images)
    study = write_study(folder / "report_study", dict.fromkeys(TITLES, cfg.report.seeds), images=images)
    _time_report("report", len(TITLES) * cfg.report.seeds, len(images), study)


def benchmark_comparison(cfg: DictConfig, folder: Path) -> None:
    """The same of a study with variants, along a numeric axis: the page that compares them, and the report of each."""
    images = scored_like_the_paper(cfg.comparison.images)
    study = folder / "comparison_study"
    for number in range(cfg.variants):
        values = {"data.human_maps.fraction": (number + 1) / cfg.variants}
        write_variant(study, values, dict.fromkeys(TITLES, cfg.comparison.seeds), images=images)
    runs = cfg.variants * len(TITLES) * cfg.comparison.seeds
    _time_report(f"comparison of {cfg.variants} variants", runs, len(images), study)


def _time_report(name: str, runs: int, images: int, study: Path) -> None:
    # A process of its own: the peak of this one's memory may be that of another measurement.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        seconds, processor_seconds, peak = process.submit(_report, study).result()
    log.info(
        "%s of %d runs of %d test images: %.0f s (%.0f s of processor time), %.2f GiB at most",
        name, runs, images, seconds, processor_seconds, peak / 2**30,
    )  # fmt: skip


def scored_like_the_paper(count: int) -> pd.DataFrame:
    """About ``count`` rows, a seventh of them real, as a run's scores name them."""
    each = max(count // (len(GENERATORS) + 1), 1)
    groups = [("synthetic", name, "", each) for name in GENERATORS]
    groups += [("real", "", name, max(round(each * share), 1)) for name, share in REAL.items()]
    return pd.concat(
        [
            pd.DataFrame({"path": np.char.mod(f"{generator}{source}/%06d.png", np.arange(rows))}).assign(
                label=label, generator=generator, source=source, split="test", human_map=""
            )
            for label, generator, source, rows in groups
        ],
        ignore_index=True,
    )


def _report(study: Path) -> tuple[float, float, int]:
    """Seconds, processor seconds and the greatest number of bytes in memory."""
    from saliency_entropy.study.axis_report import write_reports

    started, processor = time.perf_counter(), time.process_time()
    write_reports(OmegaConf.create({"study": str(study), "output": None, "reference": None, "gallery_images": 0}))
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
