"""Sweeps that are killed over and over, compared with one that is left alone.

Every launch is a fork of this process, which has imported everything and used nothing: so a launch costs its own work,
not ten seconds of imports.
"""

import json
import logging
import os
import random
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from saliency_entropy import training  # noqa: F401  imported here, so that it need not be in every launch
from saliency_entropy.errors import UserError, whole_number
from saliency_entropy.run.attempts import read_attempts
from saliency_entropy.run.whole_files import PART, write_atomically

log = logging.getLogger(__name__)

LONGEST = 600.0  # seconds; a launch that takes longer hangs
WRITES = ("fsync", "link", "replace", "truncate", "unlink")  # of the module os
NOT_COMPARED = ("wall_seconds", "finished", "git_commit")
REPORT_EVERY = 10  # kills


@dataclass(frozen=True)
class Launch:
    """How one launch ended.

    Attributes:
        killed: whether the launch, or one of its runs, was killed.
        seconds: how long the launch took.
    """

    killed: bool
    seconds: float


@dataclass(frozen=True)
class Kill:
    """When a launch is to be killed.

    Attributes:
        kind: ``time``: at a moment; ``write``: at a place in a write; ``run``: at a moment, but only one process of
            those that the launch has started for its runs.
        after: so many seconds or, for a ``write``, places.
    """

    kind: str
    after: float


@dataclass
class Tally:
    """What happened so far.

    Attributes:
        kills: their number by kind, see :class:`Kill`.
        attempts: at the runs of the finished sweeps.
        lost: runs without a result.
        twice: runs that were trained again though they were done.
        differing: runs that differ from those that were left alone.
    """

    kills: dict[str, int] = field(default_factory=lambda: {"time": 0, "write": 0, "run": 0})
    launches: int = 0
    sweeps: int = 0
    runs: int = 0
    attempts: int = 0
    lost: int = 0
    twice: int = 0
    differing: int = 0

    def figures(self) -> dict[str, Any]:
        return {
            "kills": sum(self.kills.values()),
            "kills_at_a_moment": self.kills["time"],
            "kills_in_a_write": self.kills["write"],
            "kills_of_a_run_alone": self.kills["run"],
            "launches": self.launches,
            "sweeps": self.sweeps,
            "runs": self.runs,
            "attempts": self.attempts,
            "runs_lost": self.lost,
            "runs_done_twice": self.twice,
            "runs_that_differ": self.differing,
        }


def chaos(cfg: DictConfig, script: Path) -> None:
    """Kill ``cfg.kills`` launches of ``cfg.sweep``, print what happened and write it to ``chaos.json``.

    Args:
        cfg: the composed ``conf/chaos.yaml``.
        script: the training command.

    Raises:
        UserError: a run was lost, done twice, or differs from the one that was left alone.
    """
    for name in ("kills", "seeds", "processes"):
        whole_number(name, cfg[name], 1)
    if cfg.output is not None and Path(cfg.output).exists() and any(Path(cfg.output).iterdir()):
        raise UserError(f"output={cfg.output} is not empty; give an empty folder, or a new one")
    with tempfile.TemporaryDirectory() as folder:
        tally = _chaos(cfg, script, Path(cfg.output or folder).absolute())
    figures = tally.figures()
    if cfg.output is not None:
        write_atomically(Path(cfg.output) / "chaos.json", json.dumps(figures, indent=2) + "\n")
    log.info("%s", ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items()))
    if tally.lost or tally.twice or tally.differing:
        raise UserError("a sweep that was killed differs from the one that was left alone: see the lines above")


def _chaos(cfg: DictConfig, script: Path, folder: Path) -> Tally:
    sweep = ["-m", f"seed=range({cfg.seeds})", f"method={','.join(cfg.methods)}", *cfg.sweep]
    if cfg.processes > 1:
        sweep += ["hydra/launcher=local", f"hydra.launcher.n_jobs={cfg.processes}"]
    else:
        sweep.append("hydra/launcher=basic")
    dice, tally = random.Random(cfg.seed), Tally()
    alone = folder / "alone"
    points = folder / "points"
    whole = _launch(script, sweep, alone, _count_into(points), None)
    writes = len(points.read_bytes())  # of all processes
    expected = {run: _content(alone / run) for run in _runs(alone)}
    log.info("left alone: %d runs in %.1f s, %d places in writes to be killed at", len(expected), whole.seconds, writes)
    kinds = ["time", "write"] if cfg.processes == 1 else ["time", "write", "run"]

    def kills() -> Iterator[Kill | None]:
        while sum(tally.kills.values()) < cfg.kills:
            kind = dice.choice(kinds)
            # A process that trains one run does not pass more places than belong to one.
            places = writes if cfg.processes == 1 else writes // len(expected)
            yield Kill(kind, dice.randrange(places) if kind == "write" else dice.uniform(0, whole.seconds))
        while True:
            yield None

    while sum(tally.kills.values()) < cfg.kills:
        tally.sweeps += 1
        _kill_until_done(script, sweep, folder / f"killed{tally.sweeps}", dice, kills(), tally)
        _compare(folder / f"killed{tally.sweeps}", expected, tally)
    return tally


def _kill_until_done(
    script: Path, sweep: list[str], runs: Path, dice: random.Random, kills: Iterator[Kill | None], tally: Tally
) -> None:
    """Launch a sweep and kill it, over and over, until a launch comes to its end."""
    done: dict[Path, tuple[int, int]] = {}
    for kill in kills:
        # Settings that may differ between launches and change no result.
        loading = [f"data.num_workers={dice.randrange(3)}", f"data.cache={dice.choice(['disk', 'memory', 'none'])}"]
        strike = _kill_at(int(kill.after)) if kill and kill.kind == "write" else _spare
        launch = _launch(script, [*sweep, *loading], runs, strike, kill)
        tally.launches += 1
        if launch.killed:
            tally.kills[kill.kind] += 1
            if not sum(tally.kills.values()) % REPORT_EVERY:
                log.info("%d kills, %d launches, %d sweeps", sum(tally.kills.values()), tally.launches, tally.sweeps)
        results = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in runs.rglob("result.json")}
        for path, was in done.items():
            if results.get(path) != was:
                tally.twice += 1
                log.error("%s was done, and the next launch did it again or deleted it", path.parent)
        done = results
        if not launch.killed:
            return


def _compare(runs: Path, expected: dict[Path, dict[str, Any]], tally: Tally) -> None:
    tally.runs += len(expected)
    for run, content in expected.items():
        folder = runs / run
        if not (folder / "result.json").exists():
            tally.lost += 1
            log.error("%s is lost", folder)
            continue
        attempts = [attempt["state"] for attempt in read_attempts(folder)]
        tally.attempts += len(attempts)
        if attempts.count("finished") > 1:
            tally.twice += 1
            log.error("%s has attempts: %s", folder, attempts)
        found = differences(content, _content(folder))
        # A kill after result.json may leave a temporary file of the attempts: nobody writes to a run that is done.
        left = [path.name for path in folder.rglob(f"*{PART}")]
        found += [f"{name} is left" for name in left if not name.startswith(".attempts.json.")]
        if "failed" in attempts:
            found.append("an attempt failed")
        if found:
            tally.differing += 1
            log.error("%s: %s", folder, "; ".join(found))


def _runs(runs: Path) -> list[Path]:
    return sorted(path.parent.relative_to(runs) for path in runs.rglob("result.json"))


def _content(folder: Path) -> dict[str, Any]:
    """What is the same in two equal runs."""
    result = json.loads((folder / "result.json").read_text())
    state = torch.load(folder / "checkpoints" / "resume.ckpt", weights_only=True)
    return {
        "result.json": {key: value for key, value in result.items() if key not in NOT_COMPARED},
        **{name: state[name] for name in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers")},
        **{
            str(path.relative_to(folder)): path.read_bytes()
            for path in (folder / "metrics.csv", folder / "checkpoints" / "best.ckpt", *folder.glob("scores/*"))
        },
    }


def differences(one: Any, other: Any, key: str = "") -> list[str]:
    """The keys at which two values, tensors inside them included, are not the same bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for name in {**one, **other}
            for found in differences(one.get(name), other.get(name), f"{key} {name}".strip())
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            found for at, pair in enumerate(zip(one, other, strict=True)) for found in differences(*pair, f"{key} {at}")
        ]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
    else:
        same = type(one) is type(other) and one == other
    return [] if same else [f"{key} differs"]


# --- launches


def _launch(
    script: Path, arguments: Sequence[str], runs: Path, strike: Callable[[], None], kill: Kill | None
) -> Launch:
    """Run the command in a process of its own, which is killed as ``kill`` says; ``strike`` is called at every place in
    a write of the launch or of one of its runs."""
    runs.mkdir(parents=True, exist_ok=True)
    printed = runs / "launches.log"
    printed.touch()
    before = printed.stat().st_size
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _run(script, [*arguments, f"runs_dir={runs}"], printed, strike)
    try:
        status = None
        if kill is not None and kill.kind != "write":
            status = _ended(pid, began + kill.after)
            if status is None and kill.kind == "run":
                status = _kill_a_run(pid, began + LONGEST)
            elif status is None:
                os.kill(pid, signal.SIGKILL)
        if status is None:
            status = _ended(pid, began + LONGEST)
        if status is None:
            raise UserError(f"a launch took more than {LONGEST:.0f} s; see {printed}")
    except BaseException:
        _kill(pid)
        raise
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if kill is not None and kill.kind != "time" and os.waitstatus_to_exitcode(status) == 1:
        killed = b"its process was killed by SIGKILL" in printed.read_bytes()[before:]
    if status and not killed:
        raise UserError(f"a launch ended with status {status}; see {printed}")
    return Launch(killed, time.monotonic() - began)


def _kill_a_run(pid: int, until: float) -> int | None:
    """Kill the latest process that a launch has started, as soon as it has one. Returns the launch's status if it ends
    before."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while (status := _ended(pid, time.monotonic())) is None and time.monotonic() < until:
        if started := children.read_text().split():
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(int(started[-1]), signal.SIGKILL)
                break
        time.sleep(0.01)
    return status


def _ended(pid: int, until: float) -> int | None:
    """The status of a process; None if it has not ended by then."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() > until:
            return None
        time.sleep(0.002)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _run(script: Path, arguments: list[str], printed: Path, strike: Callable[[], None]) -> None:
    """Run the training command in a fork of this process; does not return."""
    code = 70
    try:
        handle = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        # As in a new process: so far, Hydra and the logging are those of the command that kills.
        GlobalHydra.instance().clear()
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
        logging.root.handlers.clear()
        sys.argv = [str(script), *arguments]
        with _striking(strike):
            runpy.run_path(str(script), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# --- places in writes


@contextmanager
def _striking(strike: Callable[[], None]) -> Iterator[None]:
    """Call ``strike`` before and after every call that changes a name on the disk or flushes a file to it, and in the
    middle of writing a file."""
    originals = {name: getattr(os, name) for name in WRITES}
    write_bytes = Path.write_bytes

    def surrounded(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            strike()
            result = original(*arguments, **options)
            strike()
            return result

        return call

    def halved(path: Path, data: Any) -> int:
        data = memoryview(data)
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            strike()
            file.write(data[len(data) // 2 :])
        return len(data)

    for name, original in originals.items():
        setattr(os, name, surrounded(original))
    Path.write_bytes = halved
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
        Path.write_bytes = write_bytes


def _spare() -> None:
    """Never kill."""


def _kill_at(place: int) -> Callable[[], None]:
    """A strike that kills the process once it has passed so many places."""
    left = iter(range(place))

    def strike() -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    return strike


def _count_into(path: Path) -> Callable[[], None]:
    """A strike that counts the places: it adds a byte for each to a file."""

    def strike() -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, b".")
        os.close(handle)

    return strike
