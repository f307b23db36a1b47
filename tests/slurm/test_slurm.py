"""Studies on a real Slurm: whatever ends a job, the runs in the end are those that nothing interrupted."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import HELD, ROOT, SLURM, Cluster, launched, until

from saliency_entropy.run.attempts import read_attempts

METHODS = ("cross_entropy", "droid", "hseb")
RUNS = [(method, seed) for method in METHODS for seed in (0, 1, 2)]  # in the order of the sweep

pytestmark = pytest.mark.timeout(2400)


def state(folder: Path) -> dict[str, object]:
    """What a run found, bit for bit."""
    scores = {split: pd.read_parquet(folder / "scores" / f"{split}.parquet") for split in ("val", "test")}
    weights = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    return {
        "metrics": (folder / "metrics.csv").read_text(),
        "scores": {split: table.to_csv() for split, table in scores.items()},
        "weights": {name: tensor.numpy().tobytes() for name, tensor in weights.items()},
    }  # fmt: skip


def run_folder(study: Path, method: str, seed: int) -> Path:
    return study / method / f"seed{seed}"


@dataclass(frozen=True)
class Story:
    """What became of the studies that were interrupted.

    Attributes:
        restarts: how often each run's job was queued again.
        untouched: of the files of the runs that were done before the relaunch, the time of the last change, before and
            after it.
        relaunch: how the relaunch ended.
        interrupted: how the launcher of a sweep ended that got Ctrl-C.
        died: how its relaunch ended, of which a job died.
    """

    runs: Path
    restarts: dict[tuple[str, int], int]
    untouched: tuple[dict[Path, int], dict[Path, int]]
    relaunch: subprocess.CompletedProcess[str]
    interrupted: tuple[int, str, str]
    died: tuple[int, str, str]


@pytest.fixture(scope="module")
def story(cluster: Cluster, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Story:
    """All in one go, since every job imports PyTorch."""
    folder = tmp_path_factory.mktemp("studies")
    runs = folder / "runs"
    train = [sys.executable, str(ROOT / "experiments" / "train.py")]
    common = [*small, *HELD, f"runs_dir={runs}"]
    sweep = [*train, "-m", *common, *SLURM, f"method={','.join(METHODS)}", "seed=0,1,2", "study=swept"]

    def launch(command: list[str]) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=folder, env=cluster.environment, **pipes)

    def array(name: str) -> str:
        told = cluster.call("squeue", "--noheader", f"--name={name}", "--format=%F")
        return told.split()[0] if told else ""

    def noted(study: str) -> bool:
        return any((runs / study / ".submitit").glob("*.json"))

    def begun(study: str, method: str, seed: int) -> bool:
        return (run_folder(runs / study, method, seed) / "checkpoints" / "resume.ckpt").exists()

    def done(study: str, *wanted: tuple[str, int]) -> bool:
        return all((run_folder(runs / study, *run) / "result.json").exists() for run in wanted)

    # Its jobs are held in the queue until its launcher has been interrupted and launched again.
    other_sweep = [
        *train, "-m", *common, *SLURM, "+hydra.launcher.additional_parameters.hold=true", "method=droid", "seed=0,1",
        "study=died",
    ]  # fmt: skip
    with launched(launch(sweep)) as launcher, launched(launch(other_sweep)) as interrupted:
        both = (launcher, interrupted)
        until(lambda: (array("swept") and noted("died")) or any(one.poll() for one in both), "the jobs of both sweeps")
        for process in both:
            assert process.poll() is None, process.communicate()
        swept, died = array("swept"), array("died")
        launcher.send_signal(signal.SIGKILL)
        interrupted.send_signal(signal.SIGINT)
        out, err = interrupted.communicate(timeout=200)
        ended = interrupted.returncode, out, err
    with launched(launch(other_sweep)) as other:
        # The interpreter of this environment, not one in a .venv of the folder.
        environment = cluster.environment | {"METHODS": "cross_entropy droid", "PYTHON": sys.executable}

        def submit(study: str, *arguments: str) -> str:
            submitted = subprocess.run(
                ["sbatch", "--parsable", "--mem=1G", f"--output={folder}/{study}_%a.out", *arguments, f"study={study}"],
                cwd=ROOT, env=environment, check=True, timeout=200, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            return submitted.stdout.strip()

        script = str(ROOT / "experiments" / "slurm_job.sh")
        plain = submit("plain", "--array=0,3", "--cpus-per-task=1", script, *common)
        whole = submit("whole", "--cpus-per-task=2", script, "-m", *common, "method=droid", "seed=0,1")
        until_said(other, "waiting for these")
        cluster.call("scontrol", "release", died)

        held = [run for run in RUNS if run[1] > 0]
        until(lambda: all(begun("swept", *run) for run in held), "runs to interrupt")
        until(lambda: all(begun(study, "droid", 1) for study in ("died", "plain", "whole")), "more of them")
        jobs = {run: f"{swept}_{number}" for number, run in enumerate(RUNS)}
        cluster.call("scancel", "--signal=USR2", jobs["cross_entropy", 1])
        limited = jobs["cross_entropy", 2]
        hours, minutes, _ = map(int, cluster.about(limited)["RunTime"].split(":"))
        # Nearer than signal_delay_s, but not past. Slurm looks every half minute.
        cluster.call("scontrol", "update", f"JobId={limited}", f"TimeLimit={60 * hours + minutes + 2}")
        cluster.call("scontrol", "requeue", jobs["droid", 1])
        cluster.call("scancel", "--signal=KILL", jobs["droid", 2])
        cluster.call("scancel", "--signal=KILL", f"{died}_1")
        for job in (f"{plain}_3", whole):
            cluster.call("scancel", "--batch", "--signal=USR1", job)
        until(lambda: cluster.restarts(limited), "the time limit")
        cluster.call("scontrol", "update", f"JobId={limited}", "TimeLimit=30")
        until(lambda: done("swept", ("cross_entropy", 1), ("droid", 1), ("cross_entropy", 2)), "the first three")
        until(lambda: done("plain", ("cross_entropy", 0), ("droid", 1)), "the plain array")
        until(lambda: done("whole", ("droid", 0), ("droid", 1)), "the sweep in one job")
        until(lambda: done("swept", *((method, 0) for method in METHODS)), "what nobody interrupted")
        until(lambda: set(cluster.states()) <= {jobs["hseb", 1], jobs["hseb", 2]}, "the others to leave")

        cluster.call("srun", "--partition=urgent", "--exclusive", "--ntasks=16", "true")
        until(lambda: done("swept", ("hseb", 1), ("hseb", 2)), "the runs that were preempted")
        until(lambda: not cluster.states(), "all jobs to leave")
        restarts = {run: cluster.restarts(job) for run, job in jobs.items()}
        others = {("plain", 0): f"{plain}_0", ("plain", 1): f"{plain}_3", ("whole", 0): whole}
        restarts |= {run: cluster.restarts(job) for run, job in others.items()}

        def changed() -> dict[Path, int]:
            kept = [run_folder(runs / "swept", *run) for run in RUNS if run != ("droid", 2)]
            files = [path for run in kept for path in run.rglob("*") if path.suffix in (".ckpt", ".json", ".parquet")]
            return {path: path.stat().st_mtime_ns for path in files}

        before = changed()
        again = cluster.environment | {"HELD_BEFORE": "1"}
        relaunch = subprocess.run(
            sweep, cwd=folder, env=again, capture_output=True, text=True, timeout=400, check=False
        )
        out, err = other.communicate(timeout=200)
        return Story(runs, restarts, (before, changed()), relaunch, ended, (other.returncode, out, err))


def until_said(process: subprocess.Popen[str], what: str) -> None:
    while what not in (line := process.stdout.readline()):
        assert line, process.communicate()


@pytest.fixture(scope="module")
def uninterrupted(
    train_small: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, int], dict[str, object]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return {
        (method, seed): state(train_small(run_folder(folder, method, seed), *HELD, f"method={method}", f"seed={seed}"))
        for method, seed in RUNS
    }


def test_the_jobs_were_interrupted(story: Story) -> None:
    requeued = {
        ("cross_entropy", 1),
        ("cross_entropy", 2),
        ("droid", 1),
        ("hseb", 1),
        ("hseb", 2),
        ("plain", 1),
        ("whole", 0),
    }
    assert {run for run, restarts in story.restarts.items() if restarts} == requeued
    # Being interrupted is no failure.
    logs = list((story.runs / "swept" / ".submitit").rglob("*_log.out"))
    assert len(logs) == 10
    assert [log for log in logs if "failed, the others go on" in log.read_text()] == []


@pytest.mark.parametrize("run", ["swept/cross_entropy/1", "swept/cross_entropy/2", "plain/droid/1", "whole/droid/1"])
def test_a_run_at_its_jobs_limit_tells_the_job_and_when_it_was_ended(story: Story, run: str) -> None:
    study, method, seed = run.split("/")
    first, *_, last = read_attempts(run_folder(story.runs / study, method, int(seed)))
    assert (first["state"], last["state"]) == ("killed", "finished")
    assert first["ended"] is not None
    assert first["job"] == last["job"] is not None
    assert first["epochs"] == 0 < last["epochs"]


@pytest.mark.parametrize("run", RUNS, ids="{0[0]}-{0[1]}".format)
def test_an_interrupted_run_is_the_uninterrupted_one(story: Story, uninterrupted: dict, run: tuple[str, int]) -> None:
    assert state(run_folder(story.runs / "swept", *run)) == uninterrupted[run]


@pytest.mark.parametrize("run", [("cross_entropy", 0), ("droid", 1)], ids="{0[0]}-{0[1]}".format)
def test_a_run_of_the_plain_array(story: Story, uninterrupted: dict, run: tuple[str, int]) -> None:
    assert state(run_folder(story.runs / "plain", *run)) == uninterrupted[run]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_of_a_sweep_in_one_job(story: Story, uninterrupted: dict, seed: int) -> None:
    assert state(run_folder(story.runs / "whole", "droid", seed)) == uninterrupted["droid", seed]


def test_the_relaunch_trains_only_what_is_missing(story: Story) -> None:
    assert story.relaunch.returncode == 0, story.relaunch.stderr
    assert "sweep ended: 9 runs, 1 trained, 8 done before\n" in story.relaunch.stdout
    assert ": 1 runs; what they print" in story.relaunch.stdout
    before, after = story.untouched
    assert len(before) >= 8 * 5
    assert before == after


def test_an_interrupted_launcher_leaves_its_jobs_and_says_so(story: Story) -> None:
    code, out, err = story.interrupted
    assert code == 130
    (said,) = err.splitlines()
    told = re.match(r"the jobs go on \(squeue --jobs=(\d+) shows them, scancel \1 ends them\): the same command", said)
    assert f"Slurm job {told[1]}: 2 runs; what they print is in" in out


def test_the_relaunch_waits_for_the_jobs_that_are_queued(story: Story, uninterrupted: dict) -> None:
    """And names the one that died."""
    code, out, err = story.died
    assert code == 1
    assert "sweep ended: 2 runs, 1 trained, 0 done before, 1 failed (droid/seed1)\n" in out
    assert out.count("sweep ended") == 1
    assert "droid/seed1: its Slurm job " in err
    assert "Traceback" not in out + err
    assert state(run_folder(story.runs / "died", "droid", 0)) == uninterrupted["droid", 0]
    assert len(list((story.runs / "died" / ".submitit").rglob("*_submission.sh"))) == 1


def test_what_slurm_needs_is_hidden_in_the_study(story: Story) -> None:
    assert sorted(path.name for path in (story.runs / "swept").iterdir() if not path.name.startswith(".")) == [
        "README.md", *METHODS, "multirun.yaml",
    ]  # fmt: skip
    scripts = list((story.runs / "swept" / ".submitit").rglob("*_submission.sh"))
    assert len(scripts) == 2
    assert all("#SBATCH --job-name=swept" in script.read_text() for script in scripts)
