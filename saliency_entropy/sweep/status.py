"""Where the runs of a study stand, as their folders tell it.

Imports neither PyTorch nor pandas: the command is given every few minutes while a sweep is trained.
"""

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.run import lock as run_lock
from saliency_entropy.run.attempts import read_attempts
from saliency_entropy.run.folder import epochs_done, finished_result, plain_yaml
from saliency_entropy.run.study_folders import method_order, run_folders, seed_folders, trial_folders
from saliency_entropy.run.variants import read_variant, variant_folders
from saliency_entropy.sweep.queue import queued_jobs
from saliency_entropy.sweep.swept import swept_runs
from saliency_entropy.sweep.terminal_grid import Cell, Sign, counted, duration, print_lines, print_runs, terminal

# running: a process holds it. queued: a Slurm job of it waits for its turn. stale: the process that held it died.
# interrupted: begun, and let go of. damaged: a reader of its files would fail. missing: not begun.
State = Literal["done", "running", "queued", "interrupted", "stale", "failed", "damaged", "missing"]
STATE_SIGNS = {
    "done": Sign("✓", "green", "done"),
    "running": Sign("▶", "bold blue", "running"),
    "queued": Sign("…", "blue", "queued"),
    "interrupted": Sign("‖", "yellow", "interrupted"),
    "stale": Sign("?", "bold yellow", "stale"),
    "failed": Sign("✗", "bold red", "failed"),
    "damaged": Sign("!", "bold red", "damaged"),
    "missing": Sign("·", "dim", "missing"),
}
WITH_PERCENT = ("running", "interrupted", "stale")
EXPLAINED = ("running", "stale", "failed", "damaged", "done")  # below the grid, run by run; of the done ones, if marked
FORMATS = ("table", "json")


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        method, seed: which run.
        state: see :data:`State`.
        epochs_done: whole epochs.
        epochs: those that it will have; None if its configuration cannot be read.
        seconds_an_epoch: of a run that is done, scoring included, or of one that a single process has trained so far;
            else None.
        detail: who trains it, its Slurm job, or why it failed; "" where there is nothing to say.
        trial: name of its trial's folder, for a run of a search; else "".
        variant: name of its variant's folder, for a run of a study with variants; else "".
    """

    method: str
    seed: int
    state: State
    epochs_done: int = 0
    epochs: int | None = None
    seconds_an_epoch: float | None = None
    detail: str = ""
    trial: str = ""
    variant: str = ""

    @property
    def name(self) -> str:
        """The folder of the run, relative to the study's."""
        return str(Path(self.variant or self.trial, self.method, f"seed{self.seed}"))


def show_status(cfg: DictConfig) -> None:
    """Print where the runs of ``cfg.study`` stand.

    Args:
        cfg: the composed ``conf/status.yaml``.

    Raises:
        UserError: there is no such study, or no such format.
    """
    if cfg.format not in FORMATS:
        raise UserError(f"format is {cfg.format!r}; choose {' or '.join(FORMATS)}")
    study = Path(str(cfg.study))
    runs = study_status(study)
    if cfg.format == "json":
        left, at_once = time_left(runs)
        variants = {folder.name: read_variant(folder) for folder in variant_folders(study)}
        document = {"study": str(study), "variants": variants, "runs": [asdict(run) for run in runs]}
        print(json.dumps(document | {"seconds_left": left, "at_once": at_once}, indent=2))
    else:
        print_status(terminal(), study, runs)


def study_status(study: Path) -> list[RunStatus]:
    """Every run that the study has, or should have: each of its methods with each of its seeds, including those of the
    last sweep. In a search, each of its trials has each of the methods and seeds. Of a study with variants, each has
    its own methods and seeds.

    Raises:
        UserError: there is no such study.
    """
    if read_variant(study):  # what a sweep and Slurm say of it is in the study's folder
        return [replace(run, variant="") for run in study_status(study.parent) if run.variant == study.name]
    variants, trials = variant_folders(study), trial_folders(study)
    failures = {} if trials else _failures_in_sweeps(study, {folder.name for folder in variants})
    if variants or trials:
        # Of a search, each trial has what any of them has.
        of_all = {(run.parent.name, _seed(run)) for trial in trials for run in seed_folders(trial)}
        runs = [
            replace(run, **{"variant" if variants else "trial": part.name})
            for part in variants or trials
            for run in _methods_and_seeds(part, seed_folders(part), of_all or swept_runs(part), failures)
        ]
    else:
        swept = swept_runs(study)
        runs = _methods_and_seeds(study, seed_folders(study) if swept else run_folders(study), swept, failures)
    usual_epochs = Counter(run.epochs for run in runs if run.epochs).most_common(1)
    queued = queued_jobs(study) or {}
    for at, run in enumerate(runs):
        job = queued.get((study / run.name).resolve())
        if job is not None and run.state in ("missing", "interrupted", "failed"):
            runs[at] = replace(run, state="queued", detail=f"Slurm job {job.job_id}")
        if run.state == "missing" and usual_epochs:
            runs[at] = replace(runs[at], epochs=run.epochs or usual_epochs[0][0])
    return runs


def _methods_and_seeds(
    study: Path, folders: Iterable[Path], others: Set[tuple[str, int]], failures: Mapping[str, tuple[float, str]]
) -> list[RunStatus]:
    """The runs that have begun and, of their methods and seeds and those of the others, the missing ones."""
    begun = {}
    for folder in folders:
        name = f"{folder.parent.name}/{folder.name}"
        begun[folder.parent.name, _seed(folder)] = run_status(
            folder, failures.get(f"{study.name}/{name}") or failures.get(name)
        )
    wanted = begun.keys() | others
    return [
        begun.get((method, seed)) or RunStatus(method, seed, "missing")
        for method in sorted({method for method, _ in wanted}, key=method_order)
        for seed in sorted({seed for _, seed in wanted})
    ]


def _seed(folder: Path) -> int:
    return int(folder.name.removeprefix("seed"))


def run_status(folder: Path, failure: tuple[float, str] | None = None) -> RunStatus:
    """Where one run stands. Its files may be in the making, or damaged: that is no error here.

    Args:
        folder: of the run.
        failure: when the last sweep said that the run failed, in seconds since 1970, and why.
    """
    method, seed = folder.parent.name, _seed(folder)
    done = epochs_done(folder)

    def status(state: State, detail: str = "", epochs: int | None = None, seconds: float | None = None) -> RunStatus:
        return RunStatus(method, seed, state, done, epochs or _epochs(folder), seconds, detail)

    try:
        result = finished_result(folder)
        if result is not None:
            epochs, seconds = result["epochs"], result["wall_seconds"]
            ended = f"ended after epoch {epochs} of {result['planned_epochs']}" if "planned_epochs" in result else ""
            return status("done", ended, epochs, seconds / epochs)
        attempts = read_attempts(folder)
    except UserError as error:
        return status("damaged", str(error).replace(f"{folder}/", ""))
    except (KeyError, TypeError, ZeroDivisionError):
        return status("damaged", "result.json was not written by a run; delete it to score the run again")
    except (OSError, UnicodeDecodeError) as error:
        return status("damaged", f"its files cannot be read ({in_one_line(error)})")

    owner, hold = run_lock.read_owner(folder), run_lock.state(folder)
    if owner is not None and hold != "free":
        state = "running" if hold == "held" else "stale"
        return status(state, str(owner), seconds=_seconds_an_epoch(folder, attempts, done))
    last = attempts[-1] if attempts else {}
    if last.get("state") in ("failed", "no room"):
        times = sum(attempt["state"] == "failed" for attempt in attempts) if last["state"] == "failed" else 1
        before = f"failed {times} times, the last time with: " if times > 1 else ""
        return status("failed", before + str(last.get("reason")))
    if failure is not None and (not attempts or _changed(folder / "attempts.json") <= failure[0]):
        return status("failed", failure[1])
    if attempts or (folder / "checkpoints" / "resume.ckpt").exists():
        return status("interrupted", seconds=_seconds_an_epoch(folder, attempts, done))
    return status("missing")


def timed_runs(runs: Iterable[RunStatus]) -> list[RunStatus]:
    """The runs that tell how long an epoch takes: those that are done, or else those that have whole epochs."""
    timed = [run for run in runs if run.seconds_an_epoch]
    return [run for run in timed if run.state == "done"] or timed


def time_left(runs: Iterable[RunStatus]) -> tuple[float | None, int]:
    """Seconds until all runs are done, and how many are trained at a time; None seconds if no run tells how long an
    epoch takes.

    A run takes as long as the :func:`timed_runs` of its method, or else as all of them.
    """
    runs = list(runs)
    timed = timed_runs(runs)
    at_once = max(1, sum(run.state == "running" for run in runs))
    if not timed:
        return None, at_once
    overall = statistics.median(run.seconds_an_epoch for run in timed)
    seconds = 0.0
    for run in runs:
        if run.state != "done":
            own = [other.seconds_an_epoch for other in timed if other.method == run.method]
            seconds += ((run.epochs or 0) - run.epochs_done) * (statistics.median(own) if own else overall)
    return max(0.0, seconds) / at_once, at_once


def print_status(console: Console, study: Path, runs: list[RunStatus]) -> None:
    """Print the grid, what its signs mean, the runs that need a word, and the time left."""
    methods, seeds = {run.method for run in runs}, {run.seed for run in runs}
    trials, variants = {run.trial for run in runs if run.trial}, {run.variant for run in runs if run.variant}
    whole = counted(len(methods), "method")
    if variants:
        whole = f"{counted(len(variants), 'variant')} × {whole}"
    elif trials:
        whole = f"{counted(len(trials), 'trial')} of a search"
    cells = []
    for run in runs:
        percent = 100 * run.epochs_done // run.epochs if run.state in WITH_PERCENT and run.epochs else None
        cells.append(Cell(run.method, run.seed, run.state, percent, run.variant or run.trial))
    title = f"{study}: {whole} × {counted(len(seeds), 'seed')}"
    print_runs(console, title, cells, STATE_SIGNS, "variant" if variants else "trial" if trials else "method")
    for state in EXPLAINED:
        explained = [run for run in runs if run.state == state and (run.detail or state != "done")]
        if explained:
            sign, style, words = STATE_SIGNS[state]
            console.print(Text(f"\n{sign} {words}", style=style))
        for run in explained:
            progress = f"epoch {run.epochs_done} of {run.epochs or '?'} done; " if state in ("running", "stale") else ""
            print_lines(console, run.name, progress + run.detail)
    console.print(Text("\n" + _summary(runs)))
    if trials:
        console.print(Text("Only trials that have begun are shown; for what they found: "), end="")
        console.print(Text(f"python experiments/weights.py study={study}"), soft_wrap=True)


def _summary(runs: list[RunStatus]) -> str:
    to_go = sum(run.state != "done" for run in runs)
    if not to_go:
        return f"all {counted(len(runs), 'run')} done"
    seconds, at_once = time_left(runs)
    if seconds is None:
        return f"{counted(to_go, 'run')} to go; the time is known when one has trained an epoch"
    return f"{counted(to_go, 'run')} to go: about {duration(seconds)}, {at_once} at a time"


def _epochs(folder: Path) -> int | None:
    try:
        epochs = plain_yaml(folder / "config.yaml")["trainer"]["max_epochs"]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return None
    return epochs if isinstance(epochs, int) and epochs > 0 else None


def _seconds_an_epoch(folder: Path, attempts: list[dict[str, Any]], done: int) -> float | None:
    """Seconds an epoch of a run that a single attempt has trained so far; None of others, since nothing says which
    epochs are of which attempt."""
    if len(attempts) != 1 or not done:
        return None
    # By one clock. Every attempt begins by writing its configuration.
    seconds = _changed(folder / "metrics.csv") - (_changed(folder / "config.yaml") or math.inf)
    return seconds / done if seconds > 0 else None


def _changed(path: Path) -> float:
    """When a file was changed, in seconds since 1970 by the file server's clock; 0 if there is no such file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _failures_in_sweeps(study: Path, variants: Set[str]) -> dict[str, tuple[float, str]]:
    """``method/seed<seed>``, in a variant ``variant/method/seed<seed>`` -> when and why it failed, for the runs that
    failed in the newest sweep that had them."""
    newest: dict[str, tuple[float, str | None]] = {}
    for path in (study / ".sweep").glob("*/*.json"):
        try:
            entry, when = json.loads(path.read_text()), path.stat().st_mtime
            *_, part, method, seed = Path(entry["folder"]).parts
            name = f"{part}/{method}/{seed}" if part in variants else f"{method}/{seed}"
            reason = str(entry.get("reason") or _logged_reason(study / name)) if entry["state"] == "failed" else None
        except (OSError, ValueError, LookupError, TypeError):
            continue  # half written, or of another version
        if name not in newest or newest[name][0] < when:
            newest[name] = when, reason
    return {name: (when, reason) for name, (when, reason) in newest.items() if reason is not None}


def _logged_reason(folder: Path) -> str:
    """The last line of a run's log, of a sweep by a version of this package that did not note the reason."""
    try:
        lines = (folder / "train.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return re.sub(r"^(\[[^\]]*\] )?(run \d+ of \d+ failed, the others go on: )?", "", lines[-1]) if lines else "unknown"
