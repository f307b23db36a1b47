"""``hydra/launcher=local``: the runs of a sweep in processes of their own, whatever becomes of one of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from saliency_entropy import training
from saliency_entropy.sweep import local
from saliency_entropy.sweep.jobs import SweepJob

ROOT = Path(__file__).parents[2]

# A loss term that is 0, and a run of which meets the end that END names for its seed in its second epoch.
ENDING = """
import os, time
import torch
from saliency_entropy.losses import Term

class Ending(Term):
    def forward(self, prediction):
        seed, epoch = divmod(torch.initial_seed(), 1_000_000)  # EpochSeed sets this
        if "GPUS" in os.environ:
            with open(os.path.join(os.environ["GPUS"], str(seed)), "w") as file:
                file.write(os.environ["CUDA_VISIBLE_DEVICES"])
        end = dict(part.split(":") for part in os.environ.get("END", "").split()).get(str(seed))
        if epoch == 1 and end == "exit":
            os._exit(3)
        if epoch == 1 and end == "kill":
            os.kill(os.getpid(), 9)
        if epoch == 1 and end == "wait":
            time.sleep(600)
        return prediction.maps.sum() * 0.0
"""
TERM = ["+loss.terms.ending._target_=ending.Ending", "+loss.terms.ending.weight=0"]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only"),
    pytest.mark.timeout(900),
]


@pytest.fixture
def launch(small: list[str], tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """``experiments/train.py`` with the local launcher, two runs at a time, in a process that has not used PyTorch."""
    (tmp_path / "ending.py").write_text(ENDING)

    def started(*arguments: str, end: str = "") -> subprocess.Popen[str]:
        command = [
            sys.executable, str(ROOT / "experiments" / "train.py"), "-m", *small, *TERM, f"runs_dir={tmp_path}/runs",
            "study=local", "method=droid", "hydra/launcher=local", "hydra.launcher.n_jobs=2", *arguments,
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}", "END": end}
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return started


def folder(tmp_path: Path, seed: int) -> Path:
    return tmp_path / "runs" / "local" / "droid" / f"seed{seed}"


def state(run: Path) -> dict[str, object]:
    weights = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    return {
        "metrics": (run / "metrics.csv").read_text(),
        "scores": pd.read_parquet(run / "scores" / "test.parquet").to_csv(),
        "weights": {name: tensor.numpy().tobytes() for name, tensor in weights.items()},
    }


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def begun(tmp_path: Path, *seeds: int) -> None:
    """Wait until these runs are in their second epoch."""
    end = time.monotonic() + 600
    while not all((folder(tmp_path, seed) / "checkpoints" / "resume.ckpt").exists() for seed in seeds):
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)


def gone(pids: list[int]) -> bool:
    end = time.monotonic() + 120
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        if time.monotonic() > end:
            return not alive
        time.sleep(0.05)
    return True


def test_runs_that_die_fail_alone_and_the_relaunch_trains_only_these(
    launch: Callable, train_small: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = launch("seed=0,1,2,3", end="0:exit 2:kill")
    out, err = process.communicate()
    assert process.returncode == 1
    assert "sweep ended: 4 runs, 2 trained, 0 done before, 2 failed (droid/seed0, droid/seed2)\n" in out
    assert "run 1 of 4 failed, the others go on: droid/seed0: its process ended with code 3 in the" in out
    assert "run 3 of 4 failed, the others go on: droid/seed2: its process was killed by SIGKILL, perhaps for" in out
    assert "give the same command again to go on" in err
    assert "Traceback" not in out + err

    done = [folder(tmp_path, seed) / "result.json" for seed in (1, 3)]
    before = [path.stat().st_mtime_ns for path in done]
    process = launch("seed=0,1,2,3")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "sweep ended: 4 runs, 2 trained, 2 done before\n" in out
    assert [path.stat().st_mtime_ns for path in done] == before

    monkeypatch.syspath_prepend(str(tmp_path))
    for seed in (0, 1):
        alone = train_small(tmp_path / f"alone{seed}", *TERM, "method=droid", f"seed={seed}")
        assert state(folder(tmp_path, seed)) == state(alone)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_ended_sweep_ends_its_runs_with_one_sentence(
    launch: Callable, tmp_path: Path, number: signal.Signals
) -> None:
    process = launch("seed=0,1,2", end="0:wait 1:wait")
    begun(tmp_path, 0, 1)
    runs = children(process)
    assert len(runs) == 2
    for pid in (process.pid, *(runs if number == signal.SIGINT else [])):  # a terminal sends Ctrl-C to all
        os.kill(pid, number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert err.splitlines() == [f"ended by {number.name}: give the same command again to go on"]
    assert gone(runs)
    assert not folder(tmp_path, 2).exists()


def test_no_run_outlives_a_sweep_that_is_killed(launch: Callable, tmp_path: Path) -> None:
    process = launch("seed=0,1", end="0:wait 1:wait")
    begun(tmp_path, 0, 1)
    runs = children(process)
    process.kill()
    process.wait()
    assert gone(runs)


def test_threads_and_runs_fit_the_cores_and_gpus(
    launch: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = len(os.sched_getaffinity(0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "97,GPU-ab")  # of which there are none
    monkeypatch.setenv("GPUS", str(tmp_path))
    process = launch("seed=0,1,2", "threads=null", "trainer.max_epochs=1", "trainer.accelerator=auto")
    _, err = process.communicate()
    assert process.returncode == 0, err
    threads = [OmegaConf.load(folder(tmp_path, seed) / "config.yaml").threads for seed in (0, 1, 2)]
    assert threads == [max(1, cores // 2)] * 3
    if cores > 1:
        assert [(tmp_path / seed).read_text() for seed in "01"] == ["97", "GPU-ab"]
        assert (tmp_path / "2").read_text() in ("97", "GPU-ab")

    # The last of them, which goes on alone, has as many threads as before.
    (folder(tmp_path, 2) / "result.json").unlink()
    out, err = launch("seed=0,1,2", "threads=null", "trainer.max_epochs=1", "trainer.accelerator=auto").communicate()
    assert "sweep ended: 3 runs, 1 trained, 2 done before\n" in out, err
    assert OmegaConf.load(folder(tmp_path, 2) / "config.yaml").threads == max(1, cores // 2)

    for seed in (1, 2):
        (folder(tmp_path, seed) / "result.json").unlink()
    process = launch("seed=0,1,2", f"threads={cores}", "trainer.max_epochs=1", "trainer.accelerator=auto")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert f"1 at once, not 2: there are {cores} cores" in out


@pytest.mark.parametrize(
    ("visible", "trainer", "expected"),
    [
        ("0,2,5", {}, ["0", "2", "5", "0"]),
        ("0,2,5", {"accelerator": "cpu"}, [None] * 4),
        ("0,2,5", {"devices": 2}, [None] * 4),
        ("3", {}, [None] * 4),
        ("", {}, [None] * 4),
        ("-1", {}, [None] * 4),
    ],
)
def test_the_gpus_of_runs_at_the_same_time(
    visible: str, trainer: dict[str, object], expected: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    config = OmegaConf.create({"trainer": {"accelerator": "auto", "devices": 1} | trainer})
    job = SweepJob([], config, Path("droid/seed0"))
    assert [local._gpu_of(job, local._visible_gpus(), slot) for slot in range(4)] == expected


def test_without_a_choice_of_gpus_they_are_counted_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: 3)
    monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: True)
    assert local._visible_gpus() == ["0", "1", "2"]
    assert not torch.cuda.is_initialized()


def test_elsewhere_than_on_linux(command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run after another in this process; not several at once."""
    for launcher in Plugins.instance().discover(Launcher):
        if launcher.__name__ == "LocalLauncher":  # Hydra has a copy of its module
            monkeypatch.setitem(launcher.launch.__globals__, "sys", SimpleNamespace(platform="darwin"))
    trained = []
    monkeypatch.setattr(training, "train", lambda cfg, folder: trained.append((os.getpid(), Path(folder).name)))
    ended = command("-m", "seed=0,1", "method=droid")
    assert ended.code == 0
    assert trained == [(os.getpid(), "seed0"), (os.getpid(), "seed1")]
    ended = command("-m", "seed=0,1", "method=droid", "study=two", "hydra.launcher.n_jobs=2")
    assert ended.code == 1
    assert "several runs at once need Linux here: give hydra/launcher=joblib" in ended.err


@pytest.mark.parametrize("count", ["0", "-1", "all", "true"])
def test_a_number_of_runs_that_is_none(command: Callable, count: str) -> None:
    ended = command("-m", "seed=0,1", "method=droid", "hydra/launcher=local", f"hydra.launcher.n_jobs={count}")
    assert ended.code == 1
    assert "hydra.launcher.n_jobs is " in ended.err
    assert "Traceback" not in ended.err


def test_threads_that_are_none(command: Callable) -> None:
    ended = command("-m", "seed=0,1", "method=droid", "hydra/launcher=local", "threads=0")
    assert ended.code == 1
    assert "threads is 0; give a whole number from 1 on, or null" in ended.err
    assert "Traceback" not in ended.err
