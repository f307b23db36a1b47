"""What ``hydra/launcher=slurm`` hands to Slurm, with an sbatch that only keeps it; and what it refuses."""

import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins

from saliency_entropy.sweep import slurm

ROOT = Path(__file__).parents[2]
SECRET = "s3cr3t-0123456789abcdef"


@pytest.fixture
def sweep(command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """A sweep of two runs whose jobs are taken by Slurm, and are gone then."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in (
        ("sbatch", f'cp "$1" {tmp_path}/script; echo Submitted batch job 7'),
        ("srun", "exit 1"),
        ("squeue", "exit 0"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    Plugins.instance()  # executes every plugin's module, once
    for name in ("LOOK_EVERY", "ASK_EVERY", "LATE"):
        monkeypatch.setattr(slurm, name, 0.01)

    def run(*arguments: str) -> object:
        return command("-m", "seed=0,1", "method=droid", "hydra/launcher=slurm", *arguments)

    return run


def test_the_options(sweep: Callable, tmp_path: Path) -> None:
    ended = sweep(
        "study=weights/0.3", "hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=1",
        "hydra.launcher.cpus_per_task=3", "hydra.launcher.setup=[module load cuda]",
        "+hydra.launcher.additional_parameters.reservation=mine",
    )  # fmt: skip
    assert ended.code == 1
    assert "sweep ended: 2 runs, 0 trained, 0 done before, 2 failed (droid/seed0, droid/seed1)\n" in ended.out
    assert "droid/seed0: its Slurm job 7_0 ended without a result (gone; its output is in" in ended.err
    lines = (tmp_path / "script").read_text().splitlines()
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))
    expected = {
        "array": "0-1%2", "job-name": "weights.0.3", "partition": "gpu", "gpus-per-node": "1", "cpus-per-task": "3",
        "mem": "16GB", "time": "240", "signal": "USR2@120", "requeue": "", "open-mode": "append", "reservation": "mine",
    }  # fmt: skip
    assert {name: options[name] for name in expected} == expected
    assert options["output"].startswith(f"{tmp_path}/runs/weights/0.3/.submitit/")
    assert "account" not in options
    assert "module load cuda" in lines
    assert any(line.startswith("srun ") and "--cpus-per-task=3" in line for line in lines)


@pytest.mark.parametrize("name", ["a\nid", "a;id", "$(id)", "`id`", "/etc", "../a", "a b", "-a", "%j"])
def test_a_name_that_is_none_never_reaches_the_script(sweep: Callable, tmp_path: Path, name: str) -> None:
    ended = sweep(f"study='{name}'")
    assert ended.code == 1
    assert "cannot name a folder" in ended.err
    assert not (tmp_path / "script").exists()


@pytest.mark.parametrize(
    "setting",
    [
        "hydra.launcher.partition='a\nid'",
        "hydra.launcher.account='a\tb'",
        "+hydra.launcher.additional_parameters.Mail=1",
    ],
)
def test_an_option_stays_an_option(sweep: Callable, tmp_path: Path, setting: str) -> None:
    ended = sweep(setting)
    assert ended.code == 1
    assert "cannot be an option in a job script" in ended.err
    assert not (tmp_path / "script").exists()


def test_a_shells_characters_in_an_option_are_quoted(sweep: Callable, tmp_path: Path) -> None:
    sweep("hydra.launcher.constraint='$(id);a'")
    assert "#SBATCH --constraint='$(id);a'" in (tmp_path / "script").read_text().splitlines()


@pytest.mark.parametrize("folder", ["a%j", "a\nid"])
def test_a_folder_that_slurm_would_read_otherwise_is_refused(sweep: Callable, tmp_path: Path, folder: str) -> None:
    ended = sweep(f"runs_dir='{tmp_path}/{folder}'")
    assert ended.code == 1
    assert "cannot be the folder of a sweep on Slurm" in ended.err
    assert not (tmp_path / "script").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("hydra.launcher.setup=['export WANDB_API_KEY=${oc.env:HIDDEN}']", "Slurm passes"),
        ("hydra.launcher.partition='${oc.env:HIDDEN}'", "Slurm passes"),
        ("hydra.job.env_copy=[HIDDEN]", "Slurm passes"),
        ("+note='${oc.env:HIDDEN}'", "environment variable HIDDEN in a configuration is refused"),
    ],
)
def test_no_secret_of_the_environment_is_written(
    sweep: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, message: str
) -> None:
    monkeypatch.setenv("HIDDEN", SECRET)
    ended = sweep(setting)
    assert ended.code == 1
    assert message in ended.err
    assert SECRET not in ended.out + ended.err
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert not (tmp_path / "script").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["hydra.launcher.tasks_per_node=2"], "trainer.devices is 1 and hydra.launcher.tasks_per_node is 2"),
        (["trainer.devices=2"], "trainer.devices is 2 and hydra.launcher.tasks_per_node is 1"),
        (["hydra.launcher.nodes=2"], "trainer.num_nodes is 1 and hydra.launcher.nodes is 2"),
    ],
)
def test_other_processes_than_those_of_a_run_are_refused(
    sweep: Callable, tmp_path: Path, settings: list[str], message: str
) -> None:
    ended = sweep(*settings)
    assert ended.code == 1
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "script").exists()


def test_as_many_processes_as_devices(sweep: Callable, tmp_path: Path) -> None:
    devices, nodes = ["trainer.devices=2", "hydra.launcher.tasks_per_node=2"], ["trainer.num_nodes=3"]
    ended = sweep("study=s", *devices, *nodes, "hydra.launcher.nodes=3")
    # Any of them may be the one that failed, and each has a file.
    assert f"(gone; its output is in {tmp_path}/runs/s/.submitit/7_0); give the same command again" in ended.err
    lines = (tmp_path / "script").read_text().splitlines()
    assert "#SBATCH --ntasks-per-node=2" in lines
    assert "#SBATCH --nodes=3" in lines


@pytest.mark.parametrize("process", [0, 1])
def test_every_process_that_is_told_to_leave_queues_the_job_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: int
) -> None:
    """Not only the first, which may be waiting for another one that has left."""
    pytest.importorskip("submitit")
    from saliency_entropy.sweep import slurm_job as _slurm_job

    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $* > {tmp_path}/queued; exit 1\n")  # it was, by another process
    scontrol.chmod(0o755)
    job = {"SLURM_JOB_ID": "5", "SLURM_PROCID": str(process), "SLURM_NTASKS": "2", "SUBMITIT_EXECUTOR": "slurm"}
    for name, value in ({"PATH": f"{tmp_path}:{os.environ['PATH']}"} | job).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_slurm_job, "_leaving", False)
    monkeypatch.setattr(_slurm_job.SubmititLauncher, "__call__", lambda _: os.kill(os.getpid(), _slurm_job.LEAVE))
    earlier = signal.getsignal(_slurm_job.LEAVE)
    try:
        with pytest.raises(SystemExit) as end:
            _slurm_job.SlurmJob()()
    finally:
        signal.signal(_slurm_job.LEAVE, earlier)
    assert end.value.code == 128 + _slurm_job.LEAVE
    assert (tmp_path / "queued").read_text() == "requeue 5\n"


@pytest.mark.parametrize(("asking", "training"), [(0, 1), (1, 0)], ids=["goes on", "ends while Slurm is asked"])
def test_the_plain_job_trains_on_where_slurm_does_not_queue_it_again(
    tmp_path: Path, asking: int, training: int
) -> None:
    """And ends as the training does."""
    until_asked = f"while [ ! -e {tmp_path}/asked ]; do sleep 0.1; done"
    for name, script in (
        ("scontrol", f"touch {tmp_path}/asked; sleep {asking}; exit 1"),
        ("python", f"touch {tmp_path}/begun; {until_asked}; sleep {training}; exit 3"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    job = {"PYTHON": str(tmp_path / "python"), "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    environment = os.environ | job | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        ["bash", ROOT / "experiments" / "slurm_job.sh"], env=environment, stderr=subprocess.PIPE, text=True
    ) as array:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        time.sleep(0.2)  # until it waits
        array.send_signal(signal.SIGUSR1)
        _, err = array.communicate(timeout=200)
    assert array.returncode == 3  # the training's
    assert err == "not queued again: Slurm refuses it\n"


def test_without_slurm(sweep: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = sweep()
    assert ended.code == 1
    assert "needs Slurm's sbatch and srun, which are not here" in ended.err
    assert "Traceback" not in ended.err


def test_without_the_extra(sweep: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if "submitit" in name else found(name, *rest)
    )
    ended = sweep()
    assert ended.code == 1
    assert "pip install 'saliency-entropy[cluster]'" in ended.err
    assert "Traceback" not in ended.err


def test_slurms_refusal_is_one_sentence(sweep: Callable, tmp_path: Path) -> None:
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'invalid partition specified: none' >&2\nexit 1\n")
    ended = sweep("hydra.launcher.partition=none")
    assert ended.code == 1
    assert "the sweep cannot be submitted: " in ended.err
    assert "invalid partition specified: none" in ended.err
    assert "Traceback" not in ended.err


def test_an_option_that_is_none_is_refused(sweep: Callable, tmp_path: Path) -> None:
    ended = sweep("+hydra.launcher.nonsense=1")
    assert ended.code == 1
    assert "the sweep cannot be submitted: " in ended.err
    assert "nonsense" in ended.err


def test_a_run_whose_job_is_queued_is_not_submitted_again(sweep: Callable, tmp_path: Path) -> None:
    """Of the first launch's two jobs one is queued, for long enough to be seen."""
    sweep("study=s")
    asked = tmp_path / "asked"
    (tmp_path / "bin" / "squeue").write_text(
        f'#!/bin/sh\ncase "$*" in *--jobs=7*) [ -e {asked} ] || echo 7_1 PENDING ;; esac\n: >{asked}\n'
    )
    (tmp_path / "bin" / "sbatch").write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/script; echo Submitted batch job 8\n')
    ended = sweep("study=s")
    assert "1 of 2 runs are in Slurm's queue already (7): waiting for these\n" in ended.out
    assert "Slurm job 8: 1 runs; what they print" in ended.out
    assert "--array" not in (tmp_path / "script").read_text()
    assert "droid/seed0: its Slurm job 8 ended without a result" in ended.out
    assert "droid/seed1: its Slurm job 7_1 ended without a result" in ended.out
    assert ended.out.count("sweep ended: 2 runs, 0 trained, 0 done before, 2 failed") == 1

    (tmp_path / "script").unlink()
    asked.unlink()
    ended = sweep("study=s", "trainer.max_epochs=3")
    assert ended.code == 1
    assert "droid/seed1 is in Slurm's queue with another configuration: wait for it, end it (scancel 7_1)" in ended.err
    assert not (tmp_path / "script").exists()
    # By another path to the same folder.
    asked.unlink()
    ended = sweep("study=s", f"runs_dir={tmp_path}/bin/../runs")
    assert "1 of 2 runs are in Slurm's queue already (7): waiting for these\n" in ended.out
    # Of another study.
    asked.unlink()
    assert "already" not in sweep("study=other").out


def test_nothing_is_submitted_while_the_queue_is_not_known(sweep: Callable, tmp_path: Path) -> None:
    """It may hold the jobs of the first launch."""
    sweep("study=s")
    (tmp_path / "script").unlink()
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    ended = sweep("study=s")
    assert ended.code == 1
    assert f"Slurm does not say which runs of {tmp_path}/runs/s are in its queue (squeue fails)" in ended.err
    assert not (tmp_path / "script").exists()
