"""What it takes to plan a sweep of many variants, and to find that all of its runs are done."""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from saliency_entropy.errors import UserError
from saliency_entropy.run.variants import write_variant
from saliency_entropy.sweep.axes import variant_runs
from saliency_entropy.sweep.jobs import plain_config

# In a small process of its own: a child's memory counts that of its parent, too, which here is PyTorch's.
MEASURE = """
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(ended.returncode)
"""

log = logging.getLogger(__name__)


def benchmark_variants(cfg: DictConfig, script: Path, folder: Path) -> None:
    """Time the plan of a sweep before and after its runs are done, and its relaunch.

    Args:
        cfg: the composed ``conf/benchmark.yaml``.
        script: the training command.
        folder: for the runs, which are made up.
    """
    shares = ",".join(f"{(number + 1) / cfg.variants:g}" for number in range(cfg.variants))
    sweep = [
        "experiment=drawn", f"seed=range({cfg.sweep.seeds})", f"data.human_maps.fraction={shares}", "study=variants",
        f"runs_dir={folder}", "checkpoints=false",  # which needs no room on the disk
    ]  # fmt: skip
    before = _measured(script.with_name("plan.py"), sweep)
    runs = _write_done_runs(script.parents[1] / "conf", sweep)
    after, again = _measured(script.with_name("plan.py"), sweep), _measured(script, sweep)
    log.info(
        "%d runs of %d variants: planned in %s, when done in %s; launched again, when done: %s",
        runs, cfg.variants, before, after, again,
    )  # fmt: skip


def _write_done_runs(conf: Path, sweep: list[str]) -> int:
    loader = ConfigLoaderImpl(create_config_search_path(str(conf)))
    number = 0
    for run in variant_runs(loader, loader.load_configuration("train", sweep, RunMode.MULTIRUN)):
        config = plain_config(run.config)
        method, seed = config["method"]["name"], config["seed"]
        study = Path(config["runs_dir"], config["study"])
        (study / method / f"seed{seed}").mkdir(parents=True)
        write_variant(study, run.variant)
        OmegaConf.save(OmegaConf.create(config), study / method / f"seed{seed}" / "config.yaml")
        result = {"method": method, "seed": seed, "epochs": 3, "wall_seconds": 60.0, "val": {"auroc": 0.5}}
        (study / method / f"seed{seed}" / "result.json").write_text(json.dumps(result))
        number += 1
    return number


def _measured(script: Path, sweep: list[str]) -> str:
    """The time and the greatest memory of a command, in words."""
    began = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE, sys.executable, str(script), *sweep],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise UserError(f"{script.name} failed: {''.join(ended.stderr.strip().splitlines()[-1:])}")
    processor, memory = map(float, ended.stdout.split())
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{time.perf_counter() - began:.1f} s ({processor:.1f} s of processor time, {memory * unit / 2**30:.2f} GiB)"
