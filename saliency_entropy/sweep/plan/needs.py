"""What the runs of a plan need, and what of it is there."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.types import RunMode
from omegaconf import DictConfig

from saliency_entropy.backbone import Backbone
from saliency_entropy.data import FaceDataModule
from saliency_entropy.data.table import SPLITS
from saliency_entropy.module import DetectorModule
from saliency_entropy.parallel import thread_count
from saliency_entropy.run.folder import finished_result
from saliency_entropy.run.result import versions
from saliency_entropy.sweep.plan import checks, costs
from saliency_entropy.sweep.plan.checks import gigabytes, noted
from saliency_entropy.sweep.plan.job_script import job_script
from saliency_entropy.sweep.plan.runs import TO_TRAIN, PlannedRun, runs_on_slurm
from saliency_entropy.sweep.progress import is_local, runs_at_a_time, shared_threads
from saliency_entropy.sweep.status import duration
from saliency_entropy.training import build_loss, build_module

GPU_OPTIONS = ("gpus", "gpus_per_node", "gpus_per_task", "gres")  # of sbatch


class Needs:
    """What the runs that are not done need together.

    Args:
        config: what Hydra composed of the command, with its own part.
        runs: all of the command.
        problems: a sentence of all that would fail is added.

    Attributes:
        script: the job script, of a launcher that submits one.
    """

    def __init__(self, config: DictConfig, runs: Sequence[PlannedRun], problems: list[str]) -> None:
        self.runs = [run for run in runs if run.action in TO_TRAIN]
        self.problems = problems
        self.on_slurm = runs_on_slurm(config)
        self.mem_gb = config.hydra.launcher.get("mem_gb") if self.on_slurm else None
        self.launcher = config.hydra.launcher
        self.at_once = _at_once(config, self.runs)
        self.script = job_script(config, runs, problems) if self.on_slurm else None
        threads = _open_threads(config, self.at_once, self.on_slurm)
        self.kinds = [_Kind(of_kind, threads, self.on_slurm, problems) for of_kind in _by_kind(runs)]

    def told(self) -> list[tuple[str, str]]:
        """Name and text of each line of the plan."""
        one = self.kinds[0]
        told = [
            ("time", self._time()),
            *(("an epoch", self._of_kind(kind, kind.epoch())) for kind in self.kinds),
            ("disk", self._disk()),
            ("memory", self._memory()),
            *dict.fromkeys(("data", kind.images()) for kind in self.kinds),
            *(("weights", self._of_kind(kind, kind.weights())) for kind in self.kinds),
            ("figures", checks.logging_to(one.cfg, self.problems)),
            ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
        ]
        if self.on_slurm:
            self._check_time_limit()
        self.problems += checks.unmet_requirements()
        self.problems += checks.launcher_problems(self.launcher)
        return told

    def _of_kind(self, kind: "_Kind", text: str) -> str:
        return text if len(self.kinds) == 1 else f"{kind.name}: {text}"

    def _time(self) -> str:
        seconds = [kind.seconds() for kind in self.kinds]
        if None in seconds:
            return "not known: no such run is done, and no step could be timed here"
        runs = "1 run" if len(self.runs) == 1 else f"{len(self.runs)} runs"
        at_once = f", {self.at_once} at a time" if self.at_once > 1 else ""
        return f"about {duration(sum(seconds) / self.at_once)} for {runs}{at_once}"

    def _check_time_limit(self) -> None:
        """A job that is told to leave before its first whole epoch leaves nothing for the next one to go on with."""
        limit, delay = self.launcher.get("timeout_min"), self.launcher.get("signal_delay_s") or 0
        if not isinstance(limit, int | float):
            return
        room = 60 * limit - delay
        for kind in self.kinds:
            longest = kind.longest_step_to_keep(_asks_for_gpus(self.launcher))
            if longest is not None and costs.JOB_START + longest[1] > room:
                what, seconds = longest
                least = math.ceil((costs.JOB_START + seconds + delay) / 60)
                self.problems.append(
                    self._of_kind(
                        kind,
                        f"{what} takes about {duration(seconds)}, but a job is told to leave after "
                        f"{duration(max(0, room))}, so that a run would never get on: give at least "
                        f"hydra.launcher.timeout_min={least}",
                    )
                )

    def _disk(self) -> str:
        studies: dict[Path, int] = {}
        decoded: dict[Path, int] = {}
        for kind in self.kinds:
            for run in kind.runs:
                studies[run.study] = studies.get(run.study, 0) + kind.bytes_left(run)
            if kind.data is not None and kind.module is not None and kind.data.cache == "disk":
                folder = Path(kind.data.cache_folder)
                decoded[folder] = decoded.get(folder, 0) + kind.data.bytes_to_keep()
        most = max(kind.run_bytes for kind in self.kinds)
        parts = [f"{gigabytes(sum(studies.values()))} for the runs ({gigabytes(most)} for a whole one)"]
        parts += [f"{gigabytes(need)} for decoded images" for need in decoded.values()]
        phrases, problems = checks.disk_problems(studies | decoded)
        self.problems += problems
        return "; ".join([" and ".join(parts), *phrases])

    def _memory(self) -> str:
        measured = [kind for kind in self.kinds if kind.cost is not None]
        if not measured:
            return "not measured"
        most = max(measured, key=_Kind.memory)
        need, device = most.memory(), most.cost.device
        told = f"{gigabytes(need)} a run ({device})"
        on_gpu = not device.startswith("processor")
        if self.on_slurm:
            if self.mem_gb and not on_gpu and need > 1e9 * self.mem_gb:
                self.problems.append(
                    f"a run needs {gigabytes(need)} of memory, and its job would have {self.mem_gb} GB: give "
                    f"hydra.launcher.mem_gb={int(need / 1e9) + 1}"
                )
            return told + (f"; a job has {self.mem_gb} GB" if self.mem_gb else "")
        free = checks.free_memory(torch.device("cuda" if on_gpu else "cpu"))
        if free is None:
            return told
        if self.at_once * need > free + most.cost.memory:  # what this process takes is free again then
            runs, remedy = "1 run needs", ""
            if self.at_once > 1:
                runs, remedy = f"{self.at_once} runs at a time need", "fewer of them (hydra.launcher.n_jobs=) or "
            self.problems.append(
                f"{runs} {gigabytes(self.at_once * need)} of memory, but {gigabytes(free)} are free: give {remedy}a "
                "smaller protocol.batch_size"
            )
        return f"{told}; {gigabytes(free)} are free"


class _Kind:
    """Runs of one network, protocol, device and data: each costs what the others do.

    Args:
        runs: of the kind, those that are done included.
        threads: of a run that leaves them open.
        elsewhere: they will run on other machines.
        problems: what was found is added.

    Attributes:
        cfg: of one of them.
        data: None if they cannot be read.
        module: None if it cannot be built.
        cost: of a step; None if a run that is done tells the time, or none could be taken.
        time: of an epoch; None if it is not known.
        run_bytes: what a run leaves on the disk.
    """

    def __init__(self, runs: Sequence[PlannedRun], threads: int, elsewhere: bool, problems: list[str]) -> None:
        self.runs = [run for run in runs if run.action in TO_TRAIN]
        self.cfg = self.runs[0].cfg
        self.elsewhere = elsewhere
        self.data: FaceDataModule | None = checks.read_data(self.runs, problems)
        self.module: DetectorModule | None = None
        with noted(problems):
            self.module = self._built()
        self.run_bytes = 0
        if self.module is not None and self.data is not None and self.cfg.checkpoints:
            self.run_bytes = costs.run_bytes(self.module, self.data)
        self.cost: costs.StepCost | None = None
        self.time = costs.time_of_done_runs([finished_result(run.folder) for run in runs if run.action == "skip"])
        needs_gpu = self.cfg.trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available()
        if self.time is None and self.module is not None and not (elsewhere and needs_gpu):
            with noted(problems):
                self.cost = costs.timed_steps(self.cfg, self.module, self.cfg.threads or threads)
        if self.cost is not None and self.data is not None:
            self.time = costs.time_of_a_run(self.cost, self.cfg, self.data)

    def _built(self) -> DetectorModule:
        config = self.runs[0].config
        backbone = config["backbone"]
        if checks.comes_from_hub(backbone):  # asked for by the runs, not by the plan
            backbone = {**backbone, "pretrained": False}
        built = Backbone(**backbone)
        if self.data is not None:
            self.data.map_size = built.cam_size
        return build_module(self.cfg, config, built, build_loss(self.cfg))

    @property
    def name(self) -> str:
        return f"{self.cfg.backbone.name}, {self.cfg.protocol.name} protocol, data {self.cfg.data.name}"

    def seconds(self) -> float | None:
        """Of all its runs, one after the other."""
        return None if self.time is None else sum(self.time.seconds(run) for run in self.runs)

    def longest_step_to_keep(self, on_gpus: bool) -> tuple[str, float] | None:
        """What of a run takes longest between two moments from which it can go on, and its seconds; None if not known.

        Args:
            on_gpus: the jobs have GPUs; what was measured on this machine's processor tells nothing of these.
        """
        if self.time is None or (self.cost is not None and on_gpus and self.cost.device.startswith("processor")):
            return None
        # Devices share a step, which is measured on one of them; time of runs that are done is theirs.
        devices = 1 if self.cost is None else max(1, self.cfg.trainer.devices * self.cfg.trainer.num_nodes)
        return max(
            ("an epoch", self.time.epoch / devices), ("scoring", self.time.scoring / devices), key=lambda step: step[1]
        )

    def bytes_left(self, run: PlannedRun) -> int:
        """What a run will add on the disk."""
        return max(0, self.run_bytes - costs.folder_bytes(run.folder))

    def memory(self) -> int:
        kept = self.data.bytes_to_keep() if self.data is not None and self.data.cache == "memory" else 0
        return self.cost.memory + kept

    def epoch(self) -> str:
        if self.time is None:
            return "not known"
        seconds = duration(self.time.epoch) if self.time.epoch >= 10 else f"{self.time.epoch:.2g} s"
        but = ""
        if self.cost is not None and self.elsewhere:
            but = "; the jobs run on other machines, which take another time"
        if self.cost is not None and self.cfg.trainer.devices * self.cfg.trainer.get("num_nodes", 1) > 1:
            but += "; several devices share a step, which this one took alone"
        return f"{seconds}, {self.time.source}{but}"

    def images(self) -> str:
        if self.data is None:
            return "cannot be read"
        counts = ", ".join(f"{len(self.data.split_table(split))} {split}" for split in SPLITS)
        maps = int((self.data.split_table("train")["human_map"] != "").sum())
        left_out = sum(sum(of_split.values()) for of_split in self.data.left_out.values())
        files = f"{left_out} files that are missing are left out" if left_out else "all files are there"
        return f"{self.data.name}: {counts} images; {maps} of the training images have a map; {files}"

    def weights(self) -> str:
        backbone = self.runs[0].config["backbone"]
        if not backbone.get("pretrained", True):
            return "random ones to begin with"
        if checks.comes_from_hub(backbone) and not checks.is_downloaded(backbone["timm_name"]):
            return "of ImageNet, not on this machine yet: the first run downloads them, for which it needs the network"
        return "of ImageNet, on this machine"


def _by_kind(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """The runs that can be trained or are done, by what decides on their cost; only kinds of which one is to train."""
    kinds: dict[str, list[PlannedRun]] = {}
    for run in runs:
        if run.action == "refuse":
            continue
        shared: dict[str, Any] = {key: run.config[key] for key in ("backbone", "protocol", "data")}
        # Seeds choose among images, not files.
        shared["data"] = {**shared["data"], "seed": None}
        shared["data"]["human_maps"] = {**(shared["data"].get("human_maps") or {}), "seed": None}
        shared["trainer"] = {**run.config["trainer"], "max_epochs": None}
        kinds.setdefault(json.dumps(shared, sort_keys=True, default=str), []).append(run)
    return [of_kind for of_kind in kinds.values() if any(run.action in TO_TRAIN for run in of_kind)]


def _at_once(config: DictConfig, runs: Sequence[PlannedRun]) -> int:
    if config.hydra.mode != RunMode.MULTIRUN:
        return 1
    most = max((run.cfg.threads for run in runs if run.cfg.threads), default=None)
    return min(len(runs), runs_at_a_time(config.hydra.launcher, most))


def _asks_for_gpus(launcher: DictConfig) -> bool:
    names = [name for name in GPU_OPTIONS if launcher.get(name)] + list(launcher.get("additional_parameters") or {})
    return any(name.replace("-", "_") in GPU_OPTIONS for name in names)


def _open_threads(config: DictConfig, at_once: int, on_slurm: bool) -> int:
    """Of a run that leaves them open: it shares the cores with those beside it, or has those of its job."""
    launcher = config.hydra.launcher
    if on_slurm:
        return min(thread_count(), launcher.get("cpus_per_task") or 1)
    if config.hydra.mode == RunMode.MULTIRUN and is_local(launcher) and isinstance(launcher.n_jobs, int):
        return shared_threads(max(1, launcher.n_jobs), thread_count())
    return shared_threads(at_once, thread_count())
