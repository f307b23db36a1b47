"""``experiments/plan.py``: shows what ``experiments/train.py`` would do with the same arguments."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saliency_entropy.run.command import no_environment_variables, sentence
from saliency_entropy.run.misspelt import refused_additions
from saliency_entropy.sweep.plan.runs import TO_TRAIN, planned_runs, runs_on_slurm
from saliency_entropy.sweep.status import STATE_SIGNS
from saliency_entropy.sweep.terminal_grid import Cell, Sign, counted, print_lines, print_runs, terminal

ACTION_SIGNS = {
    "start": Sign("+", "bold blue", "start"),
    "resume": Sign("▶", "bold blue", "go on"),
    "queued": STATE_SIGNS["queued"],
    "skip": Sign("✓", "green", "done, nothing to do"),
    "refuse": Sign("✗", "bold red", "refused"),
}


class Plan(Callback):
    """A Hydra callback that shows the plan of the runs that are about to be launched, and ends the command: with 1 if
    something would fail."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        sys.exit(self._plan(config))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sys.exit(self._plan(config))

    def _plan(self, config: DictConfig) -> int | str:
        # Hydra turns what a callback raises into a warning, except SystemExit.
        try:
            with no_environment_variables(), refused_additions(config, config.hydra.overrides.task):
                return show_plan(terminal(), config, GlobalHydra.instance().config_loader())
        except Exception as error:
            mistake = sentence(error)
            if mistake is not None:
                return mistake
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
    studies: dict[Path, list[Cell]] = {}
    for run in runs:
        percent = 100 * run.epochs_done // run.epochs if run.action == "resume" else None
        studies.setdefault(run.study, []).append(Cell(run.method, run.seed, run.action, percent, run.variant))
    for study, cells in studies.items():
        parts = "variant" if cells[0].part else "method"
        print_runs(console, f"{study}: {counted(len(cells), 'run')}", cells, ACTION_SIGNS, parts)
        console.print()
    problems = list(dict.fromkeys(f"{run.name}: {run.reason}" for run in runs if run.action == "refuse"))
    to_train = sum(run.action in TO_TRAIN for run in runs)
    if to_train:
        # Imported here so that the plan of a sweep that is done does not wait for PyTorch.
        from saliency_entropy.sweep.plan.job_script import job_script
        from saliency_entropy.sweep.plan.needs import describe_needs

        script = job_script(config, runs, problems) if runs_on_slurm(config) else None
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for name, text in describe_needs(config, runs, problems):
            table.add_row(Text(name), Text(text))
        console.print(table)
        if script is not None:
            console.print(Text("\nThe job script:\n", style="bold"))
            console.print(Text(script.rstrip()), soft_wrap=True)
    return print_problems(console, problems, to_train)


def print_problems(console: Console, problems: Sequence[str], to_train: int) -> int:
    """Print the problems of the runs to train, or that there are none; returns the exit code."""
    if problems:
        console.print(Text(f"\n{counted(len(problems), 'problem')}:", style="bold red"))
        for number, problem in enumerate(problems, start=1):
            print_lines(console, f"{number}.", problem)
        return 1
    found = f"Nothing was found that would stand in {'its' if to_train == 1 else 'their'} way."
    console.print(Text(f"\n{found if to_train else 'All runs are done: nothing to do.'}", style="bold green"))
    return 0
