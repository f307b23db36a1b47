"""What the runs of a plan need, and what of it is there."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.types import RunMode
from omegaconf import DictConfig

from saliency_entropy.backbone import Backbone
from saliency_entropy.data import FaceDataModule
from saliency_entropy.data.table import SPLITS
from saliency_entropy.errors import UserError, whole_number
from saliency_entropy.module import DetectorModule
from saliency_entropy.run.folder import flatten, plain_yaml
from saliency_entropy.run.result import versions
from saliency_entropy.run.study_folders import seed_folders
from saliency_entropy.run.variants import variant_folders
from saliency_entropy.sweep.cores import is_local, runs_at_once
from saliency_entropy.sweep.plan import checks, disk
from saliency_entropy.sweep.plan.checks import noted
from saliency_entropy.sweep.plan.disk import gigabytes
from saliency_entropy.sweep.plan.runs import TO_TRAIN, PlannedRun, runs_on_slurm
from saliency_entropy.sweep.status import RunStatus, run_status, timed_runs
from saliency_entropy.sweep.terminal_grid import counted, duration
from saliency_entropy.training import build_loss, build_module

# The groups of the configuration that decide what a run costs, and keys in them that do not: seeds choose among images.
COSTLY = ("backbone", "protocol", "data", "trainer")
OF_NO_COST = (
    "data.seed", "data.human_maps.seed", "data.human_maps.fraction", "data.cache_folder", "protocol.class_index",
    "protocol.optimizer.lr", "trainer.max_epochs",
)  # fmt: skip
JOB_START = 12.0  # seconds of a Slurm job until it trains, most of them to import PyTorch


class Kind:
    """Runs of one network, protocol, device and data: each costs as much as the others.

    Args:
        runs: of the kind, to be trained.
        timed: the runs of the kind that tell how long an epoch takes.
        elsewhere: whether the runs will be on other machines.
        problems: what would fail is added.

    Attributes:
        cfg: configuration of one of the runs.
        data: None if they cannot be read.
        module: None if it cannot be built.
        seconds_an_epoch: None if no run tells it.
        run_bytes: the bytes that a run leaves on the disk.
    """

    def __init__(
        self, runs: Sequence[PlannedRun], timed: Sequence[RunStatus], elsewhere: bool, problems: list[str]
    ) -> None:
        self.runs = runs
        self.cfg = runs[0].cfg
        self.timed = timed
        self.seconds_an_epoch = statistics.median(run.seconds_an_epoch for run in timed) if timed else None
        self.data: FaceDataModule | None = checks.read_data(runs, problems)
        self.module: DetectorModule | None = None
        with noted(problems):
            self.module = self._built()
            checks.check_targets(runs, math.prod(self.module.backbone.cam_size), problems)
            if not elsewhere or torch.cuda.is_available() or self.cfg.trainer.accelerator not in ("gpu", "cuda"):
                checks.require_device(self.cfg.trainer)
        self.run_bytes = 0
        if self.module is not None and self.data is not None and self.cfg.checkpoints:
            self.run_bytes = disk.run_bytes(self.module, self.data)

    def _built(self) -> DetectorModule:
        config = self.runs[0].config
        backbone = config["backbone"]
        if checks.comes_from_hub(backbone):  # the runs ask for the weights, the plan does not
            backbone = {**backbone, "pretrained": False}
        built = Backbone(**backbone)
        if self.data is not None:
            self.data.map_size = built.cam_size
        return build_module(self.cfg, config, built, build_loss(self.cfg))

    @property
    def name(self) -> str:
        return f"{self.cfg.backbone.name}, {self.cfg.protocol.name} protocol, data {self.cfg.data.name}"

    def epoch(self) -> str:
        """How long an epoch takes, and which runs tell it."""
        seconds = self.seconds_an_epoch
        if seconds is None:
            return "not known yet"
        state = "finished" if self.timed[0].state == "done" else "unfinished"
        source = counted(len(self.timed), f"{state} run")
        return f"{duration(seconds) if seconds >= 10 else f'{seconds:.2g} s'} ({source} of this kind)"

    def images(self) -> str:
        if self.data is None:
            return "cannot be read"
        counts = ", ".join(f"{len(self.data.split_table(split))} {split}" for split in SPLITS)
        maps = int((self.data.split_table("train")["human_map"] != "").sum())
        left_out = sum(sum(files.values()) for files in self.data.left_out.values())
        found = f"{left_out} files that are missing are left out" if left_out else "all files are there"
        shares = {run.config["data"]["human_maps"]["fraction"] for run in self.runs}
        mapped = f"{maps} of the training images have a map; " if len(shares) == 1 else ""
        return f"{self.data.name}: {counts} images; {mapped}{found}"

    def weights(self) -> str:
        backbone = self.runs[0].config["backbone"]
        if not backbone.get("pretrained", True):
            return "random to begin with"
        if checks.comes_from_hub(backbone) and not checks.is_downloaded(backbone["timm_name"]):
            return "of ImageNet, not on this machine yet: the first run downloads them, for which it needs the network"
        return "of ImageNet, on this machine"


def describe_needs(config: DictConfig, runs: Sequence[PlannedRun], problems: list[str]) -> list[tuple[str, str]]:
    """Name and text of each line of the plan.

    Args:
        config: what Hydra composed of the command, with its own part.
        runs: all runs of the command, some of them to be trained.
        problems: a sentence for everything that would fail is added.
    """
    to_train = [run for run in runs if run.action in TO_TRAIN]
    by_kind: dict[str, list[PlannedRun]] = {}
    for run in to_train:
        by_kind.setdefault(_kind(run.config), []).append(run)
    trained = _trained_runs({run.study for run in runs})
    elsewhere = runs_on_slurm(config)
    kinds = [Kind(of, timed_runs(trained.get(kind, [])), elsewhere, problems) for kind, of in by_kind.items()]

    def lines(name: str, texts: Iterable[str]) -> list[tuple[str, str]]:
        named = zip(kinds, texts, strict=True)
        return [(name, text if len(kinds) == 1 else f"{kind.name}: {text}") for kind, text in named]

    told = [
        ("time", _time(config, to_train, kinds)),
        *lines("an epoch", [kind.epoch() for kind in kinds]),
        ("disk", _disk(kinds, problems)),
        *dict.fromkeys(("data", kind.images()) for kind in kinds),
        *lines("weights", [kind.weights() for kind in kinds]),
        ("figures", checks.logging_to(kinds[0].cfg, problems)),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
    ]
    launcher = config.hydra.launcher
    if elsewhere:
        for kind in kinds:
            with noted(problems):
                _require_time_for_an_epoch(launcher, kind, "" if len(kinds) == 1 else f"{kind.name}: ")
    problems += checks.unmet_requirements()
    if is_local(launcher):
        with noted(problems):
            whole_number("hydra.launcher.n_jobs", launcher.get("n_jobs"), 1)
    return told


def _kind(config: dict[str, Any]) -> str:
    """What two runs share if one costs as much as the other."""
    flat = flatten(config)
    shared = {key: flat[key] for key in sorted(flat) if key.split(".")[0] in COSTLY and key not in OF_NO_COST}
    return json.dumps(shared, default=str)


def _trained_runs(studies: Iterable[Path]) -> dict[str, list[RunStatus]]:
    """Kind -> where each run of the studies stands, whatever its variant."""
    trained: dict[str, list[RunStatus]] = {}
    folders = [part for study in studies if study.is_dir() for part in variant_folders(study) or [study]]
    for folder in [folder for part in folders for folder in seed_folders(part)]:
        try:
            kind = _kind(plain_yaml(folder / "config.yaml"))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # not begun, or damaged, which the run says
        trained.setdefault(kind, []).append(run_status(folder))
    return trained


def _time(config: DictConfig, runs: Sequence[PlannedRun], kinds: Sequence[Kind]) -> str:
    at_once = 1
    if config.hydra.mode == RunMode.MULTIRUN:
        most_threads = max((run.config["threads"] for run in runs if run.config["threads"]), default=None)
        at_once = min(len(runs), runs_at_once(config.hydra.launcher, most_threads))
    known = [kind for kind in kinds if kind.seconds_an_epoch is not None]
    timed = sum(len(kind.runs) for kind in known)
    together = f", {at_once} at a time" if at_once > 1 else ""
    parts = []
    if known:
        seconds = sum(kind.seconds_an_epoch * run.epochs_left for kind in known for run in kind.runs)
        parts.append(f"about {duration(seconds / at_once)} for {counted(timed, 'run')}{together}")
    if timed < len(runs):
        which = "this kind" if len(kinds) == 1 else "each kind"
        number = counted(len(runs) - timed, "run") + ("" if known else together)
        parts.append(f"not known yet for {number}; known when a run of {which} has trained an epoch in the study")
    return "; ".join(parts)


def _disk(kinds: Sequence[Kind], problems: list[str]) -> str:
    studies: dict[Path, int] = {}
    images: dict[tuple[Path, object, object, object], int] = {}  # which kinds may share
    for kind in kinds:
        for run in kind.runs:
            left = max(0, kind.run_bytes - disk.folder_bytes(run.folder))
            studies[run.study] = studies.get(run.study, 0) + left
        if kind.data is not None and kind.module is not None and kind.data.cache == "disk":
            data = kind.data
            which = Path(data.cache_folder), data.manifest.origin, data.image_size, data.interpolation
            images[which] = data.bytes_to_keep()
    decoded: dict[Path, int] = {}
    for (folder, *_), need in images.items():
        decoded[folder] = decoded.get(folder, 0) + need
    most = max(kind.run_bytes for kind in kinds)
    parts = [f"{gigabytes(sum(studies.values()))} for the runs ({gigabytes(most)} for a whole one)"]
    parts += [f"{gigabytes(need)} for decoded images" for need in decoded.values()]
    if any(kind.data is None or kind.module is None for kind in kinds):
        parts = ["what the runs need is not known"]
    phrases, found = disk.free_space(studies | decoded)
    problems += found
    return "; ".join([" and ".join(parts), *phrases])


def _require_time_for_an_epoch(launcher: DictConfig, kind: Kind, name: str) -> None:
    """Raises UserError if a job is told to leave before its first whole epoch, with which the next one would go on."""
    limit, delay = launcher.get("timeout_min"), launcher.get("signal_delay_s") or 0
    if not isinstance(limit, int | float) or kind.seconds_an_epoch is None:
        return
    room, needed = 60 * limit - delay, JOB_START + kind.seconds_an_epoch
    if needed > room:
        raise UserError(
            f"{name}an epoch takes about {duration(kind.seconds_an_epoch)}, but a job is told to leave after "
            f"{duration(max(0, room))}, so the run would never advance: give at least "
            f"hydra.launcher.timeout_min={math.ceil((needed + delay) / 60)}"
        )
