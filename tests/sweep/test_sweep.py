"""A study in one command: every run once, whatever fails, whatever was there before."""

import copy
import importlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from saliency_entropy.run import lock as run_lock
from saliency_entropy.run.folder import register_resolvers
from saliency_entropy.sweep.cores import runs_at_once, runs_that_fit, shared_threads
from saliency_entropy.sweep.jobs import composed_runs
from saliency_entropy.sweep.progress import SweepProgress
from saliency_entropy.sweep.swept import sweep_overrides

METHODS = ("hseb", "droid")
ROOT = Path(__file__).parents[2]


def state(folder: Path) -> dict[str, object]:
    """What must be the same in two launches of a run."""
    result = json.loads((folder / "result.json").read_text())
    # The checkpoint's digest is of the file, in which there are seconds, too; a commit may be made meanwhile.
    for name in ("wall_seconds", "finished", "git_commit", "study", "checkpoint"):
        del result[name]
    weights = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    return {
        "result": result,
        "metrics": (folder / "metrics.csv").read_text(),
        "scores": pd.read_parquet(folder / "scores" / "test.parquet").to_csv(),
        "weights": {name: tensor.numpy().tobytes() for name, tensor in weights.items()},
    }


def lines(text: str, word: str) -> list[str]:
    """Those that begin with a word, without their time."""
    stripped = [line.partition("] ")[2] for line in text.splitlines()]
    return [line for line in stripped if line.startswith(word)]


@pytest.mark.timeout(1800)
def test_two_methods_in_one_process_in_two_and_alone(
    command: Callable, train_small: Callable[..., Path], tmp_path: Path
) -> None:
    sweep = ["-m", "seed=0,1", f"method={','.join(METHODS)}", "trainer.max_epochs=1"]
    one = command(*sweep, "study=one")
    assert one.code == 0, one.err
    expected = [f"run {number} of 4: {method}, seed {seed}" for number, (seed, method) in enumerate(
        [(seed, method) for seed in (0, 1) for method in METHODS], start=1)]  # fmt: skip
    assert [re.sub(", at most .* left$", "", line) for line in lines(one.out, "run ")] == expected
    assert lines(one.out, "sweep ended") == ["sweep ended: 4 runs, 4 trained, 0 done before"]
    assert one.out.splitlines()[-1].endswith("sweep ended: 4 runs, 4 trained, 0 done before")

    two = command(*sweep, "study=two", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert two.code == 0, two.err
    assert len(list((tmp_path / "runs" / "two" / ".sweep").rglob("*.json"))) == 4

    for study in ("one", "two"):
        folders = {path.parent for path in (tmp_path / "runs" / study).rglob("result.json")}
        assert folders == {tmp_path / "runs" / study / method / f"seed{seed}" for method in METHODS for seed in (0, 1)}
    results = {}
    for method in METHODS:
        for seed in (0, 1):
            both = [state(tmp_path / "runs" / study / method / f"seed{seed}") for study in ("one", "two")]
            assert both[0] == both[1], (method, seed)
            results[method, seed] = both[0]
    assert len({tuple(result["weights"].values()) for result in results.values()}) == 4

    alone = train_small(tmp_path / "alone", "method=hseb", "seed=1", "trainer.max_epochs=1")
    assert state(alone) == results["hseb", 1]


def test_a_run_that_another_launch_trains_is_no_failure_of_this_one(command: Callable, tmp_path: Path) -> None:
    sweep = ["-m", "method=cross_entropy,droid", "trainer.max_epochs=1", "study=two"]
    with run_lock.held(tmp_path / "runs" / "two" / "droid" / "seed0"):
        launched = command(*sweep)
        assert launched.code == 0, launched.err
        assert lines(launched.out, "sweep ended") == [
            "sweep ended: 2 runs, 1 trained, 0 done before, 1 left to another launch"
        ]
        (left,) = lines(launched.out, "run 2 of 2 is left to another launch")
        assert re.search(r"seed0 is being trained by process \d+ on ", left)
        assert "Error executing job" not in launched.err
        assert command("method=droid", "trainer.max_epochs=1", "study=two").code == 1  # asked for this run alone
    assert lines(command(*sweep).out, "sweep ended") == ["sweep ended: 2 runs, 1 trained, 1 done before"]


def test_a_run_that_fails_does_not_stop_the_others(
    command: Callable, faces: Path, own_faces: Path, tmp_path: Path
) -> None:
    """Then the same command trains only what is missing."""
    table = pd.read_csv(own_faces / "manifest.csv", keep_default_na=False).assign(human_map="")
    table.to_csv(own_faces / "manifest.csv", index=False)
    sweep = ["-m", "method=cross_entropy,cyborg,droid", "trainer.max_epochs=1", "study=maps"]
    first = command(*sweep, f"data.root={own_faces}")
    assert first.code == 1
    assert "Traceback" not in first.out + first.err
    failed = lines(first.out + first.err, "run 2 of 3 failed")
    assert len(failed) == 1
    assert failed[0].startswith("run 2 of 3 failed, the others go on: method cyborg (term human_saliency) needs human")
    assert lines(first.out, "run 3 of 3")[0].endswith("1 failed (cyborg/seed0)")
    assert lines(first.out, "sweep ended") == ["sweep ended: 3 runs, 2 trained, 0 done before, 1 failed (cyborg/seed0)"]
    study = tmp_path / "runs" / "maps"
    assert {path.parent.parent.name for path in study.rglob("result.json")} == {"cross_entropy", "droid"}

    for path in study.rglob("result.json"):  # by the clock of a file server that is a day ahead
        os.utime(path, (time.time() + 86_400,) * 2)
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*") if path.suffix in (".ckpt", ".json", ".csv")}
    rows = pd.read_csv(faces / "manifest.csv", keep_default_na=False)
    for source in (faces / "maps").iterdir():
        (own_faces / "maps" / source.name).write_bytes(source.read_bytes())
    rows.to_csv(own_faces / "manifest.csv", index=False)
    second = command(*sweep, f"data.root={own_faces}")
    assert second.code == 0, second.err
    assert lines(second.out, "sweep ended") == ["sweep ended: 3 runs, 1 trained, 2 done before"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (study / "cyborg" / "seed0" / "result.json").exists()


def test_the_traceback_behind_the_sentence_of_a_run_is_there_for_who_asks(
    command: Callable, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(CompactHydraException, match=r"data\.human_maps\.blur is -1"):
        command("-m", "method=cross_entropy", "data.human_maps.blur=-1")
    assert "    raise UserError(" in capfd.readouterr().out


def test_an_error_of_the_program_does_not_stop_the_others_either(
    command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saliency_entropy import training

    original = training.load_best

    def failing(module: object, folder: Path) -> None:
        if folder.name == "seed0":
            raise RuntimeError("out of memory")
        original(module, folder)

    monkeypatch.setattr(training, "load_best", failing)
    ended = command("-m", "seed=0,1", "method=droid", "trainer.max_epochs=1")
    assert ended.code == 1
    assert lines(ended.out, "sweep ended") == ["sweep ended: 2 runs, 1 trained, 0 done before, 1 failed (droid/seed0)"]
    assert "RuntimeError: out of memory" in ended.err


def test_a_done_run_is_launched_again_only_where_it_has_something_to_say(command: Callable, tmp_path: Path) -> None:
    """That it is of another configuration, or, with a logger, what it found."""
    assert command("-m", "method=droid", "seed=0", "trainer.max_epochs=1").code == 0
    again = command("-m", "method=droid", "seed=0", "trainer.max_epochs=1")
    assert again.code == 0
    assert lines(again.out, "1 of 1 runs are done")
    assert not lines(again.out, "run 1 of 1")
    assert lines(again.out, "sweep ended") == ["sweep ended: 1 runs, 0 trained, 1 done before"]

    sweep = ["-m", "method=droid", "seed=0,1", "trainer.max_epochs=1"]
    other = command(*sweep, "protocol.optimizer.lr=0.04")
    assert other.code == 1
    assert "seed0 holds a run of another configuration (protocol.optimizer.lr is 0.05 there and 0.04 here)" in other.err
    assert lines(other.out, "sweep ended") == ["sweep ended: 2 runs, 1 trained, 0 done before, 1 failed (droid/seed0)"]

    logger = tmp_path / "logger_of_this_test.py"
    logger.write_text(
        "class Logger:\n"
        "    def __init__(self, folder, **others): self.folder = folder\n"
        "    def add_finished(self, result): print('logged', self.folder.name, result['method'])\n"
    )
    given = ["+logger._target_=logger_of_this_test.Logger", "+logger._partial_=true"]
    sys.path.insert(0, str(tmp_path))
    try:
        logged = command("-m", "method=droid", "seed=0", "trainer.max_epochs=1", *given)
    finally:
        sys.path.remove(str(tmp_path))
    assert logged.code == 0, logged.err
    assert "logged seed0 droid" in logged.out


@pytest.mark.parametrize("swept", ["seed=1,1", "loss.terms.log_entropy.weight=0.1,0.10"])
def test_a_sweep_has_every_run_once(command: Callable, tmp_path: Path, swept: str) -> None:
    """Two of the same folder would be in each other's way."""
    ended = command("-m", "method=droid", swept)
    assert ended.code == 1
    assert "more than once; remove the duplicate" in ended.err
    assert not list((tmp_path / "runs").rglob("config.yaml"))


@pytest.mark.parametrize("refused", [["method=droid,no_such_method"], ["method=droid", "seed=1,1"]])
def test_a_refused_sweep_is_not_the_last_one(command: Callable, tmp_path: Path, refused: list[str]) -> None:
    """Whose runs status and report would name as missing."""
    note = tmp_path / "runs" / "faces" / "multirun.yaml"
    note.parent.mkdir(parents=True)
    note.write_text("the last one's")
    assert command("-m", *refused).code == 1
    assert note.read_text() == "the last one's"


def test_runs_that_differ_by_their_seed_are_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And are as Hydra composes each of them."""
    register_resolvers()
    GlobalHydra.instance().clear()
    swept = ["experiment=demo", "method=droid,hseb", "seed=0,7,null", "+note=${hydra:job.override_dirname}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):
        hydra = GlobalHydra.instance().hydra
        loader = hydra.config_loader
        master = hydra.compose_config("train", swept, RunMode.MULTIRUN)
        overrides = sweep_overrides(master.hydra)
        assert len(overrides) == 6
        expected = [loader.load_sweep_config(master, own) for own in overrides]
        composed = []
        original = loader.load_sweep_config
        monkeypatch.setattr(
            loader, "load_sweep_config", lambda config, own: composed.append(own) or original(config, own)
        )
        runs = [copy.deepcopy(run) for run in composed_runs(loader, master, overrides)]
    assert [own[:2] for own in composed] == [["seed=0", "method=droid"], ["seed=0", "method=hseb"]]
    for run, honest in zip(runs, expected, strict=True):
        assert OmegaConf.to_container(run) == OmegaConf.to_container(honest)
    assert [run.seed for run in runs] == [0, 0, 7, 7, None, None]
    dirnames = [run.hydra.job.override_dirname for run in runs]
    assert len(set(dirnames)) == 6


def test_launches_in_the_same_second_keep_their_notes_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One would count the runs of the other."""
    monkeypatch.setattr("saliency_entropy.sweep.progress.sweep_overrides", lambda _: [[]])
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    launches = [SweepProgress() for _ in range(2)]
    for launch in launches:
        launch.on_multirun_start(config)
    assert launches[0].folder != launches[1].folder


def test_a_single_run_is_no_sweep(command: Callable, tmp_path: Path) -> None:
    ended = command("method=droid", "trainer.max_epochs=1")
    assert not lines(ended.out, "run ") + lines(ended.out, "sweep ended")
    assert not (tmp_path / "runs" / "faces" / ".sweep").exists()


@pytest.mark.parametrize(
    ("overrides", "runs"),
    [
        (["seed=0,1,2", "method=droid,hseb"], 6),
        (["seed=range(0,10)"], 10),
        (["experiment=paper"], 60),
        (["experiment=paper", "seed=0,1"], 12),
        (["experiment=paper", "seed=3", "method=droid"], 1),
        (["seed=0", "loss.terms.log_entropy.weight=choice(0.1,0.3)"], 2),
    ],
)
def test_how_many_runs_a_sweep_has(overrides: list[str], runs: int) -> None:
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        # What Hydra gives the callback: the sweep's overrides are left out of the composition.
        kept = [override for override in overrides if override.startswith("experiment")]
        cfg = compose("train", kept, return_hydra_config=True)
    HydraConfig.instance().cfg = None
    cfg.hydra.overrides.task = overrides
    assert len(sweep_overrides(cfg.hydra)) == runs


@pytest.mark.parametrize(
    ("n_jobs", "cores", "threads", "shared", "at_once"),
    [
        (1, 2, None, 2, 1),
        (8, 2, None, 1, 2),
        (3, 8, None, 2, 3),
        (3, 8, 4, 2, 2),
        (2, 8, 16, 4, 1),
    ],
)
def test_runs_at_once_fit_the_cores(n_jobs: int, cores: int, threads: int | None, shared: int, at_once: int) -> None:
    assert shared_threads(n_jobs, cores) == shared
    assert runs_that_fit(n_jobs, cores, threads) == at_once


def test_how_many_runs_a_launcher_trains_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    local = "hydra_plugins.saliency_entropy_launchers.local.LocalLauncher"
    for launcher, threads, at_once in (
        ({"_target_": local, "n_jobs": 8}, None, 2),
        ({"_target_": local, "n_jobs": 8}, 2, 1),
        ({"_target_": "joblib", "n_jobs": 8}, 2, 8),
        ({"_target_": "slurm", "array_parallelism": 32}, 2, 32),
        ({"_target_": "basic"}, None, 1),
    ):
        assert runs_at_once(OmegaConf.create(launcher), threads) == at_once


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["grid.variant_runs", "local.setup_globals"])
def test_a_sweep_that_is_ended_before_its_first_run_says_how_to_go_on(
    command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: signal.Signals
) -> None:
    """While the runs are composed and PyTorch is imported: seconds in which one sees a mistake in the command."""

    def end(*_: object) -> list:
        os.kill(os.getpid(), number)
        return []

    Plugins.instance()  # imports them anew when it is first asked
    module, name = f"saliency_entropy.sweep.{where}".rsplit(".", 1)
    monkeypatch.setattr(importlib.import_module(module), name, end)
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    ended = command("-m", "method=droid,hseb")
    assert ended.code == 128 + number
    assert ended.err == f"ended by {number.name}: give the same command again to go on\n"
    assert not list((tmp_path / "runs" / "faces").glob("*/seed*"))
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
