"""What a sweep costs beyond the training of its runs, with a launcher that trains several at a time."""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

from omegaconf import DictConfig

from saliency_entropy.errors import UserError
from saliency_entropy.run.study_folders import METHODS

log = logging.getLogger(__name__)

# Runs of a few seconds.
RUN = (
    "backbone=tiny", "backbone.image_size=48", "data=builtin", "data.source.train=32", "data.source.val=16",
    "data.source.test=24", "protocol.batch_size=8", "trainer.accelerator=cpu", "threads=1",
)  # fmt: skip


def benchmark_sweep(cfg: DictConfig, script: Path, folder: Path) -> None:
    """Time a sweep of ``cfg.sweep``, and the same command again once it is done.

    Args:
        cfg: the composed ``conf/benchmark.yaml``.
        script: the training command, unless ``cfg.sweep.command`` names another.
        folder: for the runs; with the Slurm launcher, one that every node sees.

    Raises:
        UserError: the sweep failed.
    """
    command = [
        *(cfg.sweep.command or (sys.executable, str(script))),
        "-m", *RUN, f"method={','.join(METHODS)}", f"seed=range({cfg.sweep.seeds})",
        f"trainer.max_epochs={cfg.sweep.epochs}", "study=sweep", f"runs_dir={folder}", *cfg.sweep.launcher,
    ]  # fmt: skip
    makespan = _seconds(command)
    results = [json.loads(path.read_text()) for path in folder.glob("sweep/*/*/result.json")]
    own = sum(result["wall_seconds"] for result in results)
    again = _seconds(command)
    log.info(
        "%d runs, %d at a time: %.0f s, %.2f x the sum of their own times / %d; a run has %.1f s of its own and %.2f s "
        "beside it; launched again: %.1f s",
        len(results), cfg.sweep.at_once, makespan, makespan * cfg.sweep.at_once / own, cfg.sweep.at_once,
        own / len(results), (makespan * cfg.sweep.at_once - own) / len(results), again,
    )  # fmt: skip


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise UserError(f"the sweep failed: {''.join(ended.stderr.strip().splitlines()[-1:]) or 'it said nothing'}")
    return time.perf_counter() - began
