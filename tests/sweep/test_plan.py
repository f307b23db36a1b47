"""A plan says what the same command would do, does none of it, and names all that would fail."""

import itertools
import json
import logging
import os
import re
import resource
import runpy
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from saliency_entropy.run import lock as run_lock
from saliency_entropy.run.folder import config_hash
from saliency_entropy.run.variants import write_variant
from saliency_entropy.sweep import local
from saliency_entropy.sweep.plan import checks, disk
from saliency_entropy.sweep.queue import QueuedJob, record_jobs
from saliency_entropy.training import checked

ROOT = Path(__file__).parents[2]
Planned = namedtuple("Planned", ["code", "out", "err"])


@pytest.fixture
def plan(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> Callable[..., Planned]:
    """``experiments/plan.py`` with a small run's overrides and ``runs_dir=tmp_path/runs``; flags come first. Lines are
    joined, so that what is looked for is not broken."""

    def run(*arguments: str, defaults: list[str] | None = None) -> Planned:
        flags = [argument for argument in arguments if argument.startswith("-")]
        overrides = [*(small if defaults is None else defaults), f"runs_dir={tmp_path}/runs"]
        overrides += [argument for argument in arguments if argument not in flags]
        monkeypatch.setattr(sys, "argv", ["plan.py", *flags, *overrides])
        GlobalHydra.instance().clear()
        handlers, level = logging.root.handlers[:], logging.root.level
        capfd.readouterr()
        code: object = 0
        try:
            runpy.run_path(str(ROOT / "experiments" / "plan.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
            if isinstance(code, str):  # as the interpreter does it
                print(code, file=sys.stderr)
                code = 1
        finally:
            logging.root.handlers[:] = handlers
            logging.root.setLevel(level)
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
        out, err = capfd.readouterr()
        return Planned(code, out, err)

    return run


def words(planned: Planned) -> str:
    return " ".join(planned.out.split())


def rows(planned: Planned) -> dict[str, list[str]]:
    """Method -> the signs of its seeds."""
    lines = planned.out.partition("───")[2].splitlines()[1:]
    return {line.split()[0]: line.split()[1:] for line in itertools.takewhile(str.strip, lines)}


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def done(train_small: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be read only."""
    return train_small(tmp_path_factory.mktemp("done") / "droid" / "seed0", "method=droid")


def copy_of_done(done: Path, tmp_path: Path, seed: int = 0, **changed: object) -> Path:
    """A copy of the finished run in the command's study, with another seed or configuration."""
    folder = tmp_path / "runs" / "faces" / "droid" / f"seed{seed}"
    shutil.copytree(done, folder)
    config = OmegaConf.load(folder / "config.yaml")
    config.seed = config.data.seed = seed
    for key, value in changed.items():
        OmegaConf.update(config, key, value)
    OmegaConf.save(config, folder / "config.yaml")
    return folder


def begun(done: Path, tmp_path: Path, seed: int = 0) -> Path:
    """A copy of the finished run as it was after the first of its two epochs."""
    folder = copy_of_done(done, tmp_path, seed)
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "scores")
    table = pd.read_csv(folder / "metrics.csv")
    table[:1].to_csv(folder / "metrics.csv", index=False)
    return folder


def killed_holder(folder: Path) -> None:
    """Leave the claim of a process that was killed while it held a run."""
    program = (
        "import sys, time; from pathlib import Path; from saliency_entropy.run import lock\n"
        "with lock.held(Path(sys.argv[1])): print(flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.readline()
        process.kill()


def attempts(*reasons: str) -> str:
    return json.dumps(
        [{"started": "2026-11-25T07:00:00+00:00", "ended": None, "state": "failed", "reason": why} for why in reasons]
    )


# --- which runs


def test_a_plan_trains_and_writes_nothing(plan: Callable[..., Planned], tmp_path: Path) -> None:
    single = plan("method=droid")
    assert single.code == 0, single.out + single.err
    assert rows(single) == {"droid": ["+"]}
    assert "Nothing was found that would stand in its way." in single.out
    sweep = plan("-m", "method=droid,hseb", "seed=0,1,2")
    assert sweep.code == 0, sweep.out + sweep.err
    assert rows(sweep) == {"hseb": ["+"] * 3, "droid": ["+"] * 3}
    assert "+ 6 start" in sweep.out
    assert list(tmp_path.iterdir()) == []


def test_the_plan_of_a_sweep_that_is_done_does_not_wait_for_pytorch(
    done: Path, small: list[str], tmp_path: Path
) -> None:
    copy_of_done(done, tmp_path)
    program = (
        "import runpy, sys\n"
        "sys.argv[:] = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'pytorch_lightning', 'timm', 'wandb', 'pandas'} & set(sys.modules)\n"
    )
    overrides = [*small, f"runs_dir={tmp_path}/runs", "method=droid", "seed=0"]
    command = [sys.executable, "-c", program, str(ROOT / "experiments" / "plan.py"), "-m", *overrides]
    planned = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "All runs are done: nothing to do." in planned.stdout


def test_every_kind_of_run_and_all_that_is_refused(plan: Callable[..., Planned], done: Path, tmp_path: Path) -> None:
    copy_of_done(done, tmp_path, 0)
    begun(done, tmp_path, 1)
    copy_of_done(done, tmp_path, 2, **{"protocol.optimizer.momentum": 0.5})
    used_up = begun(done, tmp_path, 3)
    (used_up / "attempts.json").write_text(attempts("no room", "no room", "OutOfMemoryError: 3 GiB"))
    held = begun(done, tmp_path, 4)
    again = begun(done, tmp_path, 5)
    (again / "attempts.json").write_text(attempts("no room", "no room"))
    killed_holder(begun(done, tmp_path, 6))
    with run_lock.held(held):
        before = contents(tmp_path)
        planned = plan("-m", "method=droid", "seed=range(0,8)")
        claim = next((held / ".owner").glob("*.claim"))
        after = contents(tmp_path)
        assert after.keys() == before.keys()
        assert all(after[path] == before[path] for path in before if path != claim)  # its sign of life
    assert planned.code == 1
    assert rows(planned) == {"droid": ["✓", "▶50%", "✗", "✗", "✗", "▶50%", "▶50%", "+"]}
    assert "+ 1 start  ▶ 3 go on  ✓ 1 done, nothing to do  ✗ 3 refused" in planned.out
    text = words(planned)
    assert "3 problems:" in text
    assert "(protocol.optimizer.momentum is 0.5 there and 0.9 here)" in text
    assert "failed 3 times, the last time with: OutOfMemoryError: 3 GiB; see train.log" in text
    assert f"droid/seed4: it is being trained by process {os.getpid()} on " in text


def test_what_is_planned_is_what_is_trained(
    plan: Callable[..., Planned], command: Callable, done: Path, tmp_path: Path
) -> None:
    begun(done, tmp_path, 0)
    sweep = ["-m", "method=droid,cross_entropy", "seed=0,1"]
    planned = plan(*sweep)
    assert planned.code == 0, planned.out + planned.err
    assert rows(planned) == {"cross_entropy": ["+", "+"], "droid": ["▶50%", "+"]}
    ended = command(*sweep)
    assert ended.code == 0, ended.err
    assert "sweep ended: 4 runs, 4 trained, 0 done before" in ended.out
    told = float(re.search(r"\(([\d.]+) MB for a whole one\)", words(planned))[1]) * 1e6
    left = disk.folder_bytes(tmp_path / "runs" / "faces" / "cross_entropy" / "seed0")
    assert told == pytest.approx(left, rel=0.15)
    again = plan(*sweep)
    assert again.code == 0
    assert rows(again) == {"cross_entropy": ["✓", "✓"], "droid": ["✓", "✓"]}
    assert "All runs are done: nothing to do." in again.out


@pytest.mark.parametrize(
    ("overrides", "runs"),
    [
        (["experiment=paper", "data=builtin", "seed=0,1"], 12),
        (["-m", "seed=0", "method=glob(*)"], 7),
    ],
)
def test_a_sweep_is_that_of_the_command(
    plan: Callable[..., Planned], small: list[str], overrides: list[str], runs: int
) -> None:
    defaults = [one for one in small if not one.startswith("data")]
    planned = plan(*overrides, "data.source.train=8", "data.source.val=8", "data.source.test=12", defaults=defaults)
    assert planned.code == 0, planned.out + planned.err
    assert f": {runs} run" in planned.out
    assert f"+ {runs} start" in planned.out


def test_runs_that_began_with_other_data(
    plan: Callable[..., Planned], done: Path, own_faces: Path, tmp_path: Path
) -> None:
    folder = begun(done, tmp_path, 0)
    OmegaConf.save(
        OmegaConf.merge(
            OmegaConf.load(folder / "config.yaml"),
            {"data": {"root": str(own_faces), "source": {"path": f"{own_faces}/manifest.csv", "root": str(own_faces)}}},
        ),
        folder / "config.yaml",
    )
    assert plan("method=droid", f"data.root={own_faces}").code == 0
    table = pd.read_csv(own_faces / "manifest.csv", dtype=str, keep_default_na=False)
    table[:-1].to_csv(own_faces / "manifest.csv", index=False)
    planned = plan("method=droid", f"data.root={own_faces}")
    assert planned.code == 1
    assert "seed0 began with other data: the manifest has changed since" in words(planned)


# --- time and disk


def test_a_file_that_is_moved_away_while_its_folder_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run does it, which may be trained meanwhile."""
    for name in ("metrics.csv", ".metrics.csv.part"):
        (tmp_path / name).write_bytes(bytes(7))
    is_file = Path.is_file

    def overtaken(path: Path) -> bool:
        found = is_file(path)
        if path.suffix == ".part":
            path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", overtaken)
    assert disk.folder_bytes(tmp_path) == 7


def test_the_time_is_that_of_the_runs_that_are_done(plan: Callable[..., Planned], done: Path, tmp_path: Path) -> None:
    folder = copy_of_done(done, tmp_path, 0)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"wall_seconds": 7200.0}))
    begun(done, tmp_path, 1)
    planned = plan("-m", "method=droid", "seed=0,1,2,3,4", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3")
    # 7 epochs of an hour, of three runs at a time.
    told = "time about 2 h 20 min for 4 runs, 3 at a time an epoch 60 min (1 finished run of this kind)"
    assert told in words(planned)
    # Of another study or kind it tells nothing.
    for other in ("study=other", "protocol.batch_size=4"):
        planned = words(plan("-m", "method=droid", "seed=5,6", other))
        assert (
            "time not known yet for 2 runs; known when a run of this kind has trained an epoch in the study" in planned
        )
        assert "an epoch not known yet" in planned


def test_before_a_run_is_done_the_epochs_of_others_tell_the_time(
    plan: Callable[..., Planned], done: Path, tmp_path: Path
) -> None:
    """Of runs that the command does not have, too; but not where several attempts may have trained them."""
    for seed, seconds in ((0, 600), (1, 1200), (2, 7)):
        folder = begun(done, tmp_path, seed)
        for file, when in (("config.yaml", 1_000_000), ("metrics.csv", 1_000_000 + seconds)):
            os.utime(folder / file, (when, when))
    (folder / "attempts.json").write_text(attempts("no room", "no room"))
    planned = words(plan("method=droid", "seed=5"))
    assert "time about 30 min for 1 run an epoch 15 min (2 unfinished runs of this kind)" in planned


@pytest.mark.parametrize(("n_jobs", "threads", "at_once"), [(8, "null", 2), (8, "2", 1), (1, "null", 1)])
def test_as_many_runs_at_a_time_as_the_local_launcher_begins(
    plan: Callable[..., Planned], command: Callable, monkeypatch: pytest.MonkeyPatch, n_jobs: int, threads: str,
    at_once: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    sweep = ["-m", "method=droid", "seed=0,1,2", "hydra/launcher=local", f"hydra.launcher.n_jobs={n_jobs}"]
    sweep.append(f"threads={threads}")
    planned = words(plan(*sweep))
    assert (f"for 3 runs, {at_once} at a time" in planned) == (at_once > 1)
    begun = []
    monkeypatch.setattr(local.LocalLauncher, "_run", lambda _, jobs, at_once, gpus: begun.append(at_once) or [])
    assert command(*sweep).code == 0
    assert begun == [at_once]


def test_kinds_of_runs_are_told_apart(plan: Callable[..., Planned]) -> None:
    """A sweep over networks, each in a study of its own; all are checked, not the first only."""
    sweep = ["-m", "method=droid", "seed=0,1", "study=size${backbone.image_size}"]
    planned = plan(*sweep, "backbone.image_size=32,48")
    assert planned.code == 0, planned.out + planned.err
    assert planned.out.count("+ 2 start") == 2
    assert words(planned).count("an epoch tiny, paper protocol, data faces: ") == 2
    assert "for 4 runs" in words(planned)
    wrong = plan(*sweep, "backbone.image_size=48,-1")
    assert wrong.code == 1
    assert "1 problem: 1. backbone.image_size is -1; give whole pixels" in words(wrong)


def test_variants_are_planned_together(plan: Callable[..., Planned], done: Path, tmp_path: Path) -> None:
    """By what the finished runs of any of them tell."""
    variant = tmp_path / "runs" / "v" / "fraction=0.5"
    shutil.copytree(done, variant / "droid" / "seed0")
    config = OmegaConf.load(done / "config.yaml")
    config.data.human_maps.fraction = 0.5
    OmegaConf.save(config, variant / "droid" / "seed0" / "config.yaml")
    write_variant(variant, {"data.human_maps.fraction": 0.5})
    planned = plan("-m", "study=v", "method=droid", "seed=0,1", "data.human_maps.fraction=1,0.5")
    assert planned.code == 0
    assert "/v: 4 runs" in planned.out
    assert "+ 3 start  ✓ 1 done, nothing to do" in planned.out
    assert re.search(r"fraction=0\.5/droid +✓ +\+", planned.out)
    assert re.search(r"time +about \d+ s for 3 runs ", planned.out)
    assert re.search(r"an epoch +.* s \(1 finished run of this kind\)", planned.out)
    other = plan("-m", "study=v", "method=droid", "seed=0", "backbone=tiny,resnet50")
    assert (other.code, "differ in data.human_maps.fraction" in other.err) == (1, True)
    single = plan("study=v", "method=droid", "data.human_maps.fraction=0.5")
    assert "All runs are done" in single.out


def test_checkpoints_are_as_large_as_planned(done: Path, configure: Callable) -> None:
    from saliency_entropy.backbone import Backbone
    from saliency_entropy.training import build_loss, build_module, checked

    cfg = configure("method=droid")
    module = build_module(cfg, checked(cfg), Backbone(**cfg.backbone), build_loss(cfg))
    weights, with_optimizer = disk.checkpoint_bytes(module)
    assert with_optimizer == pytest.approx(2 * weights, rel=0.05)  # SGD keeps a momentum of each weight
    for planned, name in ((weights, "best.ckpt"), (with_optimizer, "resume.ckpt")):
        assert planned == pytest.approx((done / "checkpoints" / name).stat().st_size, rel=0.15)


def test_images_that_are_decoded_need_no_more_room(
    plan: Callable[..., Planned], command: Callable, tmp_path: Path
) -> None:
    # 43 images of 3 x 48 x 48 bytes.
    assert "and 0.30 MB for decoded images" in words(plan("method=droid"))
    shared = plan("-m", "method=droid", "study=v", "+data.human_maps.control=none,inverted")
    assert "and 0.30 MB for decoded images" in words(shared)
    assert command("method=droid", "trainer.max_epochs=1", "study=other").code == 0
    assert "and 0.00 MB for decoded images" in words(plan("method=droid"))
    assert "for decoded images" not in words(plan("method=droid", "data.cache=none"))


def test_a_disk_without_room_is_a_problem(plan: Callable[..., Planned], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(disk, "disk_usage", lambda _: usage(10**12, 10**12 - 10**9, 10**9))
    planned = plan("-m", "method=droid", "seed=0,1")
    assert planned.code == 1
    assert re.search(
        r"the disk of .+ and .+ has 0\.00 MB free, but [\d.]+ .B will be needed; make room", words(planned)
    )


@pytest.mark.parametrize(("files", "left", "fails"), [(1000, 3, True), (1000, 500, False), (0, 0, False)])
def test_a_disk_without_inodes_is_a_problem(
    plan: Callable[..., Planned], monkeypatch: pytest.MonkeyPatch, files: int, left: int, fails: bool
) -> None:
    """Some file systems count none in all."""
    counts = namedtuple("counts", ["f_files", "f_favail"])(files, left)
    monkeypatch.setattr(disk.os, "statvfs", lambda _: counts)
    monkeypatch.setattr(disk, "disk_usage", lambda _: namedtuple("usage", ["total", "free"])(10**12, 10**12))
    planned = plan("method=droid")
    assert planned.code == fails
    assert bool(re.search(r"the disk of .+ has 3 inodes left \(df -i\); delete files there", words(planned))) == fails


def test_what_cannot_be_read_has_no_size(plan: Callable[..., Planned]) -> None:
    planned = plan("method=droid", "data.root=/no/where")
    assert "disk what the runs need is not known; " in words(planned)
    assert "0.00 MB" not in words(planned)


# --- everything that would fail


def test_all_problems_are_told_at_once(
    plan: Callable[..., Planned], own_faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_csv(own_faces / "manifest.csv", dtype=str, keep_default_na=False).assign(human_map="")
    table.to_csv(own_faces / "manifest.csv", index=False)
    monkeypatch.setattr(checks.importlib.metadata, "requires", lambda _: ["torch>=99", "no-such-package>=1", "numpy"])
    planned = plan(
        "-m", f"data.root={own_faces}", "method=droid,cyborg,hseb", "logger=wandb", "logger.mode=onlin",
        "backbone.image_size=-1",
    )  # fmt: skip
    assert planned.code == 1
    text = words(planned)
    assert "6 problems:" in text
    for problem in (
        "method cyborg (term human_saliency) needs human maps",
        "method hseb (term entropy_match) needs human maps",
        "logger.mode is 'onlin'; choose online or offline",
        f"torch>=99 is needed, but {torch.__version__.split('+')[0]}",
        "no-such-package>=1 is needed, and is not installed: pip install 'no-such-package>=1'",
        "backbone.image_size is -1; give whole pixels",
    ):
        assert problem in text, problem


def test_files_that_are_missing_are_named(plan: Callable[..., Planned], own_faces: Path) -> None:
    (own_faces / "test" / "4.png").unlink()
    (own_faces / "maps" / "train_1.png").unlink()
    planned = plan(f"data.root={own_faces}", "method=droid")
    assert planned.code == 1
    assert "row 37, 'test/4.png', does not exist" in words(planned)
    assert "row 3, 'maps/train_1.png', does not exist" in words(planned)
    assert "data cannot be read" in words(planned)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=droids"], "Could not find 'method/droids'"),
        (["-m", "method=droid,droids"], "Could not find 'method/droids'"),
        (["sed=3"], "Could not override 'sed'"),
        (["experiment=weights"], "chooses its runs as it goes, so that they are not known beforehand"),
        (["method=???"], "method"),
    ],
)
def test_a_command_that_cannot_be_planned(
    plan: Callable[..., Planned], tmp_path: Path, arguments: list[str], message: str
) -> None:
    planned = plan(*arguments)
    assert planned.code == 1
    assert message in planned.err
    assert "Traceback" not in planned.out + planned.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=-1"], "seed is -1; give a whole number from 0 to"),
        (["-m", "seed=1,x"], "droid_cyborg/seedx: seed is 'x'; give a whole number from 0 to"),
        (["-m", "seed=0,1", "trainer.devices=2"], "trainer.devices is 2 in a sweep"),
        (["-m", "hydra/launcher=local", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs is 0; give a whole number"),
        (["study=../x"], "study='../x' cannot name a folder"),
        (["protocol.class_index=real"], "protocol.class_index is 'real'; choose one of predicted, true,"),
        (["data.root=/no/where"], "data.root=/no/where does not exist"),
        (["protocol.optimizer.lr=fast"], "protocol.optimizer or protocol.scheduler cannot be used ("),
        (["loss.terms.cross_entropy.weight=nan"], "the weight of a CrossEntropy term is nan; give a number"),
        (["-m", "method=hseb", "loss.terms.entropy_match.target=1,9"], "target=9 is no entropy of a CAM of"),
        (["trainer.precision=half"], "Precision 'half' is invalid"),
        (["backbone.checkpoint=/no/where"], "backbone.checkpoint=/no/where does not exist"),
        (["data.root=${oc.env:HOME}"], "environment variable HOME in a configuration is refused"),
        (
            ["-m", "method=droid", "seed=0,0"],
            "droid/seed0: the command has this run more than once: remove the duplicate",
        ),
        (
            ["method=droid", "runs_dir=/dev/null/runs"],
            "/dev/null/runs/faces/droid/seed0 cannot be looked at (Not a directory); give another runs_dir=",
        ),
        pytest.param(
            ["method=droid", "trainer.accelerator=gpu"],
            "trainer.accelerator is gpu, but PyTorch",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_training_would_refuse_is_a_problem(
    plan: Callable[..., Planned], tmp_path: Path, arguments: list[str], message: str
) -> None:
    planned = plan(*arguments)
    assert planned.code == 1
    assert message in words(planned)
    assert "Traceback" not in planned.out + planned.err
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_not_given(plan: Callable[..., Planned]) -> None:
    planned = plan(defaults=["data=faces", "backbone=tiny"])
    assert planned.code == 1
    assert "data.root must be given: data.root=..." in words(planned)


@pytest.mark.parametrize("flags", [["method=droid", "--multirun"], ["-cd", "{0}", "method=droid", "-m"]])
def test_flags_stand_where_they_do_for_training(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd, flags: list[str]
) -> None:
    overrides = [*small, f"runs_dir={tmp_path}/runs", "seed=0,1"]
    where = flags.index("method=droid")
    words = [flag.format(tmp_path) for flag in flags]
    monkeypatch.setattr(sys, "argv", ["plan.py", *words[: where + 1], *overrides, *words[where + 1 :]])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "experiments" / "plan.py"), run_name="__main__")
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    assert not end.value.code
    assert "+ 2 start" in capfd.readouterr().out


def test_an_error_of_the_program_launches_nothing(
    plan: Callable[..., Planned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("saliency_entropy.sweep.plan.command.planned_runs", fail)
    planned = plan("-m", "method=droid", "seed=0,1")
    assert planned.code == 1
    assert "RuntimeError: a fault" in planned.err
    assert list(tmp_path.iterdir()) == []


# --- W&B and weights


def test_where_the_figures_go(plan: Callable[..., Planned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert "figures the runs' own files" in words(plan("method=droid"))
    offline = plan("method=droid", "logger=wandb", "logger.mode=offline")
    assert "figures W&B, offline: wandb sync sends it later" in words(offline)
    monkeypatch.setattr(checks.wandb, "login", lambda **_: False)
    keyless = plan("method=droid", "logger=wandb")
    assert keyless.code == 0  # as training, which says so and goes on
    assert "there is no key here (wandb login, or WANDB_API_KEY): it will be offline" in words(keyless)
    monkeypatch.setattr(checks.wandb, "login", lambda **_: True)
    assert "figures W&B, online, with the key that is here" in words(plan("method=droid", "logger=wandb"))


def test_weights_that_are_downloaded_are_told_and_not_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    densenet = {"timm_name": "densenet121.tv_in1k", "pretrained": True}
    assert checks.comes_from_hub(densenet)
    assert not checks.comes_from_hub(densenet | {"pretrained": False})
    assert not checks.comes_from_hub(densenet | {"checkpoint": "file.pth"})
    assert not checks.comes_from_hub(densenet | {"weights_package": "package"})
    monkeypatch.setattr(checks, "try_to_load_from_cache", lambda *_: None)
    assert not checks.is_downloaded(densenet["timm_name"])
    monkeypatch.setattr(checks, "try_to_load_from_cache", lambda *_: str(tmp_path))
    assert checks.is_downloaded(densenet["timm_name"])


# --- Slurm


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch that keeps the script and takes no job; returns where."""
    pytest.importorskip("submitit")
    programs = tmp_path_factory.mktemp("slurm")
    for name, script in (("sbatch", f'cp "$1" {programs}/script; exit 1'), ("srun", "exit 1"), ("squeue", "exit 0")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return programs / "script"


@pytest.mark.parametrize("launcher", ["slurm", "submitit_slurm"])
def test_the_job_script_is_what_is_submitted(
    plan: Callable[..., Planned], command: Callable, done: Path, tmp_path: Path, slurm: Path, launcher: str
) -> None:
    if launcher == "slurm":
        copy_of_done(done, tmp_path, 0)  # which is not submitted
    arguments = [
        "-m", "method=droid", "seed=0,1,2", f"hydra/launcher={launcher}", "hydra.launcher.partition=gpu",
        "hydra.launcher.timeout_min=77", "hydra.launcher.mem_gb=20", "hydra.launcher.array_parallelism=2",
        "hydra.launcher.gpus_per_node=1", "hydra.launcher.setup=[module load cuda]",
    ]  # fmt: skip
    planned = plan(*arguments)
    assert planned.code == 0, planned.out + planned.err
    ended = command(*arguments)
    assert ended.code == 1  # sbatch took nothing
    script = slurm.read_text().strip()
    assert script in planned.out
    assert f"#SBATCH --array=0-{1 if launcher == 'slurm' else 2}%2" in script
    assert "2 at a time" in words(planned)


def test_runs_that_are_in_slurms_queue_are_not_submitted_again(
    plan: Callable[..., Planned], done: Path, configure: Callable, tmp_path: Path, slurm: Path
) -> None:
    """As a relaunch finds them: one waits, one runs, one has another configuration, one is over."""
    running = begun(done, tmp_path, 1)
    study = running.parents[1]
    hashes = {seed: config_hash(checked(configure("method=droid", f"seed={seed}"))) for seed in range(4)}
    hashes[3] = "another"
    record_jobs(study, {study / "droid" / f"seed{seed}": QueuedJob(f"7_{seed}", hashes[seed]) for seed in hashes})
    (slurm.parent / "squeue").write_text(
        "#!/bin/sh\n"
        'case "$*" in *--jobs=7*) printf "7_0 PENDING\\n7_1 RUNNING\\n7_2 COMPLETED\\n7_3 PENDING\\n" ;; esac\n'
    )
    sweep = ["-m", "method=droid", "hydra/launcher=slurm"]
    with run_lock.held(running):
        planned = plan(*sweep, "seed=0,1,2,3,5")
    assert rows(planned) == {"droid": ["…", "…", "+", "✗", "+"]}
    assert "+ 2 start  … 2 queued  ✗ 1 refused" in planned.out
    assert planned.code == 1
    refused = "droid/seed3: it is in Slurm's queue with another configuration: wait for it, end it (scancel 7_3)"
    assert f"1 problem: 1. {refused}" in words(planned)

    planned = plan(*sweep, "seed=0,1,2,5")
    assert planned.code == 0, planned.out + planned.err
    assert "for 4 runs" in words(planned)
    assert "#SBATCH --array=0-1%" in planned.out
    waiting = plan(*sweep, "seed=0,1")
    assert (waiting.code, "#SBATCH" in waiting.out) == (0, False), waiting.out + waiting.err
    (slurm.parent / "squeue").write_text("#!/bin/sh\nexit 1\n")
    silent = plan(*sweep, "seed=0,1")
    assert silent.code == 1
    assert "Slurm does not say which runs of" in silent.err
    # Another launcher does not ask it.
    assert rows(plan("method=droid", "seed=0")) == {"droid": ["+"]}


@pytest.mark.parametrize(("timeout_min", "too_short"), [(61, True), (62, True), (63, False)])
def test_an_epoch_fits_the_time_limit_of_a_job(
    plan: Callable[..., Planned], done: Path, tmp_path: Path, slurm: Path, timeout_min: int, too_short: bool
) -> None:
    """It takes an hour; 12 s go by before it, and two minutes before the limit the job is told to leave."""
    folder = copy_of_done(done, tmp_path, 0)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"wall_seconds": 7200.0}))
    sweep = ["-m", "method=droid", "seed=0,1", "hydra/launcher=slurm", f"hydra.launcher.timeout_min={timeout_min}"]
    planned = plan(*sweep)
    assert planned.code == too_short, planned.out + planned.err
    told = (
        f"1 problem: 1. an epoch takes about 60 min, but a job is told to leave after {timeout_min - 2} min, so the "
        "run would never advance"
    )
    assert (told in words(planned)) == too_short
    assert ("give at least hydra.launcher.timeout_min=63" in words(planned)) == too_short


def test_what_slurm_will_refuse(plan: Callable[..., Planned], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    sweep = ["-m", "method=droid", "seed=0,1", "hydra/launcher=slurm"]
    planned = plan(*sweep)
    assert planned.code == 1
    text = words(planned)
    assert "needs Slurm's sbatch and srun, which are not here" in text
    assert "#SBATCH --array=0-1%2" in text  # the script is shown all the same


def test_processes_that_are_not_those_of_a_run(plan: Callable[..., Planned], slurm: Path) -> None:
    planned = plan("-m", "method=droid", "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.tasks_per_node=2")
    assert planned.code == 1
    assert "trainer.devices is 1 and hydra.launcher.tasks_per_node is 2" in words(planned)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_jobs_may_have_a_gpu_where_this_machine_has_none(plan: Callable[..., Planned], slurm: Path) -> None:
    planned = plan("-m", "method=droid", "seed=0,1", "hydra/launcher=slurm", "trainer.accelerator=gpu")
    assert planned.code == 0, planned.out
    assert "time not known yet for 2 runs" in words(planned)


# --- the command


# What takes long, and how often it was done.
COUNTED = """
import collections, runpy, sys
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from saliency_entropy.backbone import Backbone
from saliency_entropy.data import FaceDataModule

calls = collections.Counter()

def count(owner, name):
    original = getattr(owner, name)
    def counted(*given, **named):
        calls[owner.__name__] += 1
        return original(*given, **named)
    setattr(owner, name, counted)

for owner, name in ((ConfigLoaderImpl, "load_sweep_config"), (Backbone, "__init__"), (FaceDataModule, "__init__")):
    count(owner, name)
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(*calls.values())
"""


@pytest.mark.slow
def test_sixty_runs_are_planned_in_seconds(small: list[str], tmp_path: Path) -> None:
    """A configuration is composed for each method, and there is one network and one reading of the data for all."""
    overrides = [one for one in small if not one.startswith(("data", "trainer.max_epochs"))]
    data = ["data=builtin", "data.source.train=8", "data.source.val=8", "data.source.test=12"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, "-c", COUNTED, ROOT / "experiments" / "plan.py", "experiment=paper", *overrides, *data],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "+ 60 start" in ended.stdout
    assert sorted(map(int, ended.stdout.splitlines()[-1].split())) == [1, 1, 6]
    # Of the processor: 10 where nothing else is done, most of them for imports; twice as many on cores that are shared.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60


def test_two_options_of_a_group_are_refused(plan: Callable[..., Planned]) -> None:
    for flags in ([], ["-m"]):
        planned = plan(*flags, "method=[cyborg,droid]")
        assert planned.code == 1
        assert "-m method=cyborg,droid for a run with each" in planned.err
    swept = plan("-m", "method=hseb,[cyborg,droid]")
    assert (swept.code, "-m method=cyborg,droid for a run with each" in swept.err) == (1, True)
    assert plan("logger=null").err.startswith("logger=null names no option of conf/logger")


def test_an_added_key_that_nothing_takes_is_named(plan: Callable[..., Planned]) -> None:
    planned = plan("+backbone.imgsize=1")
    assert planned.code == 1
    assert planned.err.strip() == "+backbone.imgsize: backbone takes no imgsize; did you mean backbone.image_size?"
