"""What ``experiments/plan.py`` does: tell what the same command of ``experiments/train.py`` would do."""

import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saliency_entropy.backbone import Backbone
from saliency_entropy.commands import no_environment_variables, sentence, users_mistake
from saliency_entropy.data import FaceDataModule
from saliency_entropy.data.manifest import thread_count
from saliency_entropy.planning import checks, costs
from saliency_entropy.planning.checks import gigabytes, noted
from saliency_entropy.planning.job_script import job_script
from saliency_entropy.planning.runs import Action, PlannedRun, planned_runs, runs_on_slurm
from saliency_entropy.run_folder import finished_result
from saliency_entropy.run_grid import print_grid, print_lines, terminal
from saliency_entropy.status import duration
from saliency_entropy.sweep import runs_at_a_time
from saliency_entropy.training import build_loss, build_module, versions

SHOWN: dict[Action, tuple[str, str, str]] = {
    "start": ("+", "bold blue", "start"),
    "resume": ("▶", "bold blue", "go on"),
    "skip": ("✓", "green", "done, nothing to do"),
    "refuse": ("✗", "bold red", "refused"),
}


class Plan(Callback):
    """A Hydra callback that shows the plan of the runs that are about to be launched, and ends the command: with 1 if
    something would fail."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        sys.exit(self._plan(config))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sys.exit(self._plan(config))

    def _plan(self, config: DictConfig) -> int | str:
        # Hydra turns what a callback raises into a warning, but lets it leave.
        try:
            with no_environment_variables():
                return show_plan(terminal(), config, GlobalHydra.instance().config_loader())
        except Exception as error:
            mistake = users_mistake(error)
            if mistake is not None:
                return sentence(mistake)
            if isinstance(error, HydraException):
                return str(error)
            traceback.print_exc()
            return 1


def show_plan(console: Console, config: DictConfig, loader: ConfigLoader) -> int:
    """Print what a command would do, and what it would need.

    Args:
        console: to print to.
        config: what Hydra composed of the command, with its own part.
        loader: what composes the configuration of each run.

    Returns:
        1 if something would fail, else 0.

    Raises:
        UserError, HydraException: the command says nothing that could be planned.
    """
    runs = planned_runs(config, loader)
    print_runs(console, Path(config.runs_dir, config.study), runs)
    problems = list(dict.fromkeys(f"{run.name}: {run.reason}" for run in runs if run.action == "refuse"))
    to_train = [run for run in runs if run.action in ("start", "resume")]
    if to_train:
        needs = _Needs(config, runs, to_train, problems)
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for name, text in needs.told():
            table.add_row(Text(name), Text(text))
        console.print(table)
        if needs.script is not None:
            console.print(Text("\nThe job script:\n", style="bold"))
            console.print(Text(needs.script.rstrip()), soft_wrap=True)
    return print_problems(console, problems, len(to_train))


def print_runs(console: Console, study: Path, runs: Sequence[PlannedRun]) -> None:
    """The grid of runs, what its signs mean, and why runs are refused."""
    console.print(Text(f"{study}: {len(runs)} {'run' if len(runs) == 1 else 'runs'}", style="bold"), soft_wrap=True)
    cells = {run.cell: (_cell(run), SHOWN[run.action][1]) for run in runs if run.cell is not None}
    if cells:
        print_grid(console, cells)
    counts = Counter(run.action for run in runs)
    legend = [f"{sign} {counts[action]} {words}" for action, (sign, _, words) in SHOWN.items() if counts[action]]
    console.print(Text("  ".join(legend) + "\n"))


def print_problems(console: Console, problems: Sequence[str], runs: int) -> int:
    """All of them, or that there is none; the exit code."""
    if not problems:
        found = "Nothing was found that would stand in its way." if runs == 1 else (
            "Nothing was found that would stand in their way." if runs else "All runs are done: nothing to do."
        )  # fmt: skip
        console.print(Text(f"\n{found}", style="bold green"))
        return 0
    console.print(Text(f"\n{len(problems)} {'problem' if len(problems) == 1 else 'problems'}:", style="bold red"))
    for number, problem in enumerate(problems, start=1):
        print_lines(console, f"{number}.", problem)
    return 1


class _Needs:
    """What the runs that are not done need, and what of it is there.

    Attributes:
        script: the job script, of a launcher that submits one.
    """

    def __init__(
        self, config: DictConfig, runs: Sequence[PlannedRun], to_train: Sequence[PlannedRun], problems: list[str]
    ) -> None:
        self.runs = to_train
        self.cfg = to_train[0].cfg
        self.problems = problems
        self.on_slurm = runs_on_slurm(config)
        self.at_once = _at_once(config, to_train)
        self.script = job_script(config, runs, problems) if self.on_slurm else None
        self.mem_gb = config.hydra.launcher.get("mem_gb") if self.on_slurm else None
        self.data = self._read_data()
        self.module = self._module()
        done = [run for run in runs if run.action == "skip"]
        self.time = costs.time_of_done_runs([finished_result(run.folder) or {} for run in done])
        self.cost = self._timed_steps() if self.time is None else None
        if self.cost is not None and self.data is not None:
            self.time = costs.time_of_a_run(self.cost, self.cfg, self.data)

    def told(self) -> list[tuple[str, str]]:
        """Name and text of each line of the plan."""
        told = [
            ("time", self._time()),
            ("disk", self._disk()),
            ("memory", self._memory()),
            ("data", self._data()),
            ("weights", self._weights()),
            ("figures", checks.logging_to(self.cfg, self.problems)),
            ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
        ]
        self.problems += checks.unmet_requirements()
        return told

    def _read_data(self) -> FaceDataModule | None:
        of_groups = [checks.read_data(group, self.problems) for group in checks.by_data(self.runs)]
        return of_groups[0]

    def _module(self) -> Any:
        backbone = self.runs[0].config["backbone"]
        if checks.comes_from_hub(backbone):
            backbone = {**backbone, "pretrained": False}
        with noted(self.problems):
            built = Backbone(**backbone)
            if self.data is not None:
                self.data.map_size = built.cam_size
            return build_module(self.cfg, self.runs[0].config, built, build_loss(self.cfg))
        return None

    def _timed_steps(self) -> costs.StepCost | None:
        if self.module is None:
            return None
        accelerator = self.cfg.trainer.accelerator
        missing = accelerator in ("gpu", "cuda") and not torch.cuda.is_available()
        if missing and self.on_slurm:
            return None  # it is the nodes that need it
        threads = self.cfg.threads or max(1, thread_count() // (1 if self.on_slurm else self.at_once))
        with noted(self.problems):
            return costs.timed_steps(self.cfg, self.module, threads)
        return None

    def _time(self) -> str:
        if self.time is None:
            return "not known: no run is done, and no step could be timed here"
        total = sum(self.time.seconds(run) for run in self.runs)
        epoch = duration(self.time.epoch) if self.time.epoch >= 10 else f"{self.time.epoch:.2g} s"
        at_once = f", {self.at_once} at a time" if self.at_once > 1 else ""
        but = ""
        if self.cost is not None and self.on_slurm:
            but = "; the jobs run on other machines, which take another time"
        if self.cost is not None and self.cfg.trainer.devices * self.cfg.trainer.get("num_nodes", 1) > 1:
            but += "; several devices share a step, which this one took alone"
        return (
            f"about {duration(total / self.at_once)} for {len(self.runs)} {'run' if len(self.runs) == 1 else 'runs'}"
            f"{at_once}; an epoch takes {epoch} ({self.time.source}){but}"
        )

    def _disk(self) -> str:
        study = self.runs[0].folder.parent.parent
        needs, parts = {}, []
        if self.module is not None and self.data is not None and self.cfg.checkpoints:
            each = costs.run_bytes(self.module, self.data)
            needs[study] = sum(max(0, each - costs.folder_bytes(run.folder)) for run in self.runs)
            parts.append(f"{gigabytes(needs[study])} for the runs ({gigabytes(each)} each)")
        if self.module is not None and self.data is not None and self.data.cache == "disk":
            folder = Path(self.data.cache_folder)
            needs[folder] = self.data.bytes_to_keep()
            parts.append(f"{gigabytes(needs[folder])} for decoded images")
        phrases, problems = checks.disk_problems(needs or {study: 0})
        self.problems += problems
        return "; ".join([*([" and ".join(parts)] if parts else []), *phrases])

    def _memory(self) -> str:
        if self.cost is None:
            return "not measured"
        need = self.cost.memory
        if self.data is not None and self.data.cache == "memory":
            need += self.data.bytes_to_keep()
        told = f"{gigabytes(need)} a run ({self.cost.device})"
        on_gpu = not self.cost.device.startswith("processor")
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
        if self.at_once * need > free + self.cost.memory:  # what this process takes is free again then
            self.problems.append(
                f"{self.at_once} {'run' if self.at_once == 1 else 'runs at a time'} need "
                f"{gigabytes(self.at_once * need)} of memory, but {gigabytes(free)} are free: give fewer "
                "(hydra.launcher.n_jobs=) or a smaller protocol.batch_size"
            )
        return f"{told}; {gigabytes(free)} are free"

    def _data(self) -> str:
        if self.data is None:
            return "cannot be read"
        counts = ", ".join(f"{len(self.data.split_table(split))} {split}" for split in ("train", "val", "test"))
        maps = int((self.data.split_table("train")["human_map"] != "").sum())
        return f"{self.data.name}: {counts} images; {maps} of the training images have a map; all files are there"

    def _weights(self) -> str:
        backbone = self.runs[0].config["backbone"]
        if not backbone.get("pretrained", True):
            return "random ones to begin with"
        if checks.comes_from_hub(backbone) and not checks.is_downloaded(backbone["timm_name"]):
            return "of ImageNet, not on this machine yet: the first run downloads them, for which it needs the network"
        return "of ImageNet, on this machine"


def _cell(run: PlannedRun) -> str:
    sign = SHOWN[run.action][0]
    if run.action == "resume":
        return f"{sign}{100 * run.epochs_done // run.epochs}%"
    return sign


def _at_once(config: DictConfig, runs: Sequence[PlannedRun]) -> int:
    if config.hydra.mode != RunMode.MULTIRUN:
        return 1
    at_once = min(len(runs), runs_at_a_time(config.hydra.launcher))
    if config.hydra.launcher._target_.endswith(".local.LocalLauncher") and runs[0].cfg.threads:
        at_once = min(at_once, max(1, thread_count() // runs[0].cfg.threads))
    return at_once
