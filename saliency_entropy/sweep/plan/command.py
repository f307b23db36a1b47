"""What ``experiments/plan.py`` does: tell what the same command of ``experiments/train.py`` would do."""

import sys
import traceback
from collections import Counter
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
from saliency_entropy.sweep.plan.needs import Needs
from saliency_entropy.sweep.plan.runs import TO_TRAIN, Action, PlannedRun, planned_runs
from saliency_entropy.sweep.run_grid import print_grid, print_lines, terminal
from saliency_entropy.sweep.status import SHOWN as SHOWN_STATES

SHOWN: dict[Action, tuple[str, str, str]] = {
    "start": ("+", "bold blue", "start"),
    "resume": ("▶", "bold blue", "go on"),
    "queued": (*SHOWN_STATES["queued"], "queued"),
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
    for study in dict.fromkeys(run.study for run in runs):
        print_runs(console, study, [run for run in runs if run.study == study])
    problems = list(dict.fromkeys(f"{run.name}: {run.reason}" for run in runs if run.action == "refuse"))
    to_train = [run for run in runs if run.action in TO_TRAIN]
    if to_train:
        needs = Needs(config, runs, problems)
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
    """The grid of a study's runs, and what its signs mean."""
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


def _cell(run: PlannedRun) -> str:
    sign = SHOWN[run.action][0]
    if run.action == "resume":
        return f"{sign}{100 * run.epochs_done // run.epochs}%"
    return sign
