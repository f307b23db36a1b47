"""A sweep that survives: kills, signals, full disks, damaged checkpoints and failures leave its result as it is."""

import errno
import itertools
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import torch
from killed_sweeps import differences
from struck import calls_of_files, in_backward, twice

from saliency_entropy import training
from saliency_entropy.errors import UserError
from saliency_entropy.module import DetectorModule
from saliency_entropy.run import callbacks, checkpoint
from saliency_entropy.run import folder as run_folder
from saliency_entropy.run.attempts import attempt, read_attempts, refuse_endless_requeue
from saliency_entropy.run.callbacks import WholeFiles
from saliency_entropy.run.whole_files import PART

ROOT = Path(__file__).parents[2]
TrainSmall = Callable[..., Path]
METHOD = ["method=droid_cyborg", "trainer.max_epochs=3"]


def content(folder: Path) -> dict[str, object]:
    """What has to be the same in two launches of a run, bit for bit; not the commit, which may be made meanwhile."""
    result = json.loads((folder / "result.json").read_text())
    resume = torch.load(folder / "checkpoints" / "resume.ckpt", weights_only=True)
    return {
        "result": {
            key: value
            for key, value in result.items()
            if key not in ("wall_seconds", "finished", "git_commit", "checkpoint")
        },
        "metrics": (folder / "metrics.csv").read_bytes(),
        "scores": [(folder / "scores" / f"{split}.parquet").read_bytes() for split in ("val", "test")],
        "best": torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"],
        "resume": {key: resume[key] for key in ("epoch", "state_dict", "optimizer_states", "lr_schedulers")},
    }


def assert_same(one: Path, other: Path) -> None:
    assert differences(content(one), content(other)) == []


@pytest.fixture(scope="module")
def done(train_small: TrainSmall, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; to be read only."""
    return train_small(tmp_path_factory.mktemp("done"), *METHOD)


@pytest.fixture
def unscored(done: Path, tmp_path: Path) -> Path:
    """The same, but for its result."""
    shutil.copytree(done, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    return tmp_path / "run"


def damage(path: Path, how: str) -> None:
    whole = bytearray(path.read_bytes())
    if how == "flipped bit":
        whole[len(whole) // 2] ^= 1
    path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "flipped bit": whole}[how])


DAMAGES = pytest.mark.parametrize("how", ["truncated", "empty", "flipped bit"])


def test_the_comparison_finds_a_single_bit() -> None:
    one = {"a": [torch.tensor([1.0, 2.0])], "b": b"12"}
    assert differences(one, {"a": [torch.tensor([1.0, 2.0])], "b": b"12"}) == []
    other = {"a": [torch.tensor([1.0, 2.0000002])], "b": b"13", "c": 1}
    assert differences(one, other) == ["a 0 differs", "b differs", "c differs"]


# --- checkpoints


def test_any_flipped_bit_of_a_checkpoint_is_found_or_changes_nothing(done: Path, tmp_path: Path) -> None:
    """Of the names and sizes in the file, too, which are at its end."""
    whole = (done / "checkpoints" / "best.ckpt").read_bytes()
    expected = checkpoint.read_checkpoint(done / "checkpoints" / "best.ckpt", "")
    dice, path, found = random.Random(0), tmp_path / "best.ckpt", 0
    for first in (0, len(whole) - 2000):
        for _ in range(60):
            damaged = bytearray(whole)
            place, bit = dice.randrange(first, len(whole)), dice.randrange(8)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                assert differences(expected, checkpoint.read_checkpoint(path, "")) == [], (place, bit)
            except UserError:
                found += 1
    assert found > 60


@DAMAGES
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    train_small: TrainSmall, done: Path, unscored: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Which is of an earlier epoch: that after it is done again, without a row more."""
    newest = unscored / "checkpoints" / "resume.ckpt"
    damage(newest, how)
    with caplog.at_level(logging.WARNING, "saliency_entropy"):
        train_small(unscored, *METHOD)
    (warning,) = caplog.messages
    assert warning.startswith(f"{newest} cannot be loaded as plain weights (")
    assert warning.endswith(": going on from the checkpoint before it")
    assert_same(done, unscored)


def test_a_checkpoint_of_something_else_is_replaced_by_the_one_before(
    train_small: TrainSmall, done: Path, unscored: Path
) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, unscored / "checkpoints" / "resume.ckpt")
    train_small(unscored, *METHOD)
    assert_same(done, unscored)


def test_if_both_are_damaged_one_sentence_says_what_to_do(train_small: TrainSmall, done: Path, unscored: Path) -> None:
    folder = unscored / "checkpoints"
    for name in ("resume.ckpt", "resume-before.ckpt"):
        damage(folder / name, "flipped bit")
    with pytest.raises(UserError) as caught:
        train_small(unscored, *METHOD)
    message = str(caught.value)
    assert re.fullmatch(rf"\S+/resume\.ckpt cannot .*; delete {folder}, and the run begins anew", message)
    shutil.rmtree(folder)
    train_small(unscored, *METHOD)
    assert_same(done, unscored)


@DAMAGES
def test_damaged_best_weights_are_made_again_where_they_can_be(
    train_small: TrainSmall, done: Path, unscored: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """From the checkpoint of the same epoch; if there is none, one sentence says what to do."""
    best = json.loads((done / "result.json").read_text())["best_epoch"]
    damage(unscored / "checkpoints" / "best.ckpt", how)
    if best == 0:
        with pytest.raises(UserError, match=rf"best\.ckpt cannot .*; delete {unscored / 'checkpoints'}, and the run"):
            train_small(unscored, *METHOD)
        return
    with caplog.at_level(logging.WARNING, "saliency_entropy"):
        train_small(unscored, *METHOD)
    (warning,) = caplog.messages
    assert re.search(r"best\.ckpt cannot .*: made again from resume(-before)?\.ckpt, of the same epoch$", warning)
    assert_same(done, unscored)
    whole, mended = (torch.load(run / "checkpoints" / "best.ckpt", weights_only=True) for run in (done, unscored))
    assert differences(whole, mended) == []  # nor is any state of the training left in it


def test_damaged_best_weights_of_an_earlier_epoch_are_lost(train_small: TrainSmall, unscored: Path) -> None:
    damage(unscored / "checkpoints" / "best.ckpt", "truncated")
    for name in ("resume.ckpt", "resume-before.ckpt"):
        path = unscored / "checkpoints" / name
        torch.save(torch.load(path, weights_only=True) | {"epoch": 7}, path)
    with pytest.raises(
        UserError, match=rf"best\.ckpt cannot .*; delete {unscored / 'checkpoints'}, and the run begins"
    ):
        checkpoint.read_best(unscored)


def test_weights_of_another_network_are_refused(train_small: TrainSmall, unscored: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, unscored / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match=r"best\.ckpt does not fit this run .*, and the run begins anew$"):
        train_small(unscored, *METHOD)


EPOCHS_DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda whole: whole[:-200],
    "NUL": lambda whole: whole[:-30] + b"\0\0" + whole[-28:],
    "without its last row": lambda whole: whole[: whole[:-1].rindex(b"\n") + 1],
    "with another best epoch": lambda whole: whole.replace(b"\n1,", b"\n1,9"),
}


@pytest.mark.parametrize("how", ["deleted", *EPOCHS_DAMAGED])
@pytest.mark.parametrize("newest", ["resume.ckpt", "resume-before.ckpt"])
def test_a_damaged_table_of_epochs_is_made_again_from_the_checkpoint(
    train_small: TrainSmall, done: Path, unscored: Path, caplog: pytest.LogCaptureFixture, how: str, newest: str
) -> None:
    """After the last epoch, and in the middle of the run."""
    folder, table = unscored / "checkpoints", unscored / "metrics.csv"
    if newest == "resume-before.ckpt":
        (folder / newest).replace(folder / "resume.ckpt")
    if how == "deleted":
        table.unlink()
    else:
        table.write_bytes(EPOCHS_DAMAGED[how](table.read_bytes()))
    with caplog.at_level(logging.WARNING, "saliency_entropy"):
        train_small(unscored, *METHOD)
    if (how, newest) != ("without its last row", "resume-before.ckpt"):  # that row is of the epoch that is done again
        assert re.fullmatch(r"\S+/metrics\.csv is damaged \(.+\): made again from resume\.ckpt", caplog.messages[0])
    assert_same(done, unscored)


def test_a_table_of_epochs_that_an_earlier_versions_checkpoint_cannot_mend(
    train_small: TrainSmall, done: Path, unscored: Path
) -> None:
    path = unscored / "checkpoints" / "resume.ckpt"
    content = torch.load(path, weights_only=True)
    del content["callbacks"]["MetricsTable"]
    torch.save(content, path)
    whole = (unscored / "metrics.csv").read_bytes()
    (unscored / "metrics.csv").unlink()
    with pytest.raises(
        UserError, match=r"metrics\.csv is damaged \(No such file .*\) and cannot be made again; put it back as it was,"
    ):
        train_small(unscored, *METHOD)
    (unscored / "metrics.csv").write_bytes(whole)
    train_small(unscored, *METHOD)
    assert_same(done, unscored)


def test_there_is_a_whole_checkpoint_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a kill comes between keeping the one before and writing the next."""
    path, before = tmp_path / "resume.ckpt", tmp_path / "resume-before.ckpt"
    for epoch in range(2):
        WholeFiles().save_checkpoint({"epoch": epoch}, str(path))
    original = Path.replace

    def killed(temporary: Path, target: Path) -> Path:
        if target == path:
            raise KeyboardInterrupt
        return original(temporary, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                WholeFiles().save_checkpoint({"epoch": 2}, str(path))
            assert torch.load(path, weights_only=True) == {"epoch": 1}
    WholeFiles().save_checkpoint({"epoch": 2}, str(path))
    assert [torch.load(name, weights_only=True)["epoch"] for name in (before, path)] == [1, 2]
    assert sorted(tmp_path.iterdir()) == [before, path]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_number_of_workers_may_change_when_a_run_goes_on(
    train_small: TrainSmall, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    class Stopped(BaseException):
        pass

    class StoppingFiles(WholeFiles):
        def save_checkpoint(self, state: dict, path: str, storage_options: object = None) -> None:
            super().save_checkpoint(state, path, storage_options)
            if Path(path).name == "resume.ckpt":
                raise Stopped

    decoding = ["data.cache=none", f"data.num_workers={workers}"]
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "WholeFiles", StoppingFiles)
        with pytest.raises(Stopped):
            train_small(tmp_path, *METHOD, *decoding)
    assert [attempt["state"] for attempt in read_attempts(tmp_path)] == ["killed"]
    train_small(tmp_path, *METHOD, "data.cache=none", f"data.num_workers={2 - workers}")
    assert_same(done, tmp_path)
    assert [attempt["state"] for attempt in read_attempts(tmp_path)] == ["killed", "finished"]


# --- attempts


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Runs fail at their end; ``undo`` mends them."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("CUDA error\nout of memory")

    monkeypatch.setattr(training, "load_best", fail)
    return monkeypatch


def test_a_run_that_fails_is_tried_so_often_and_no_more(
    train_small: TrainSmall, done: Path, tmp_path: Path, failing: pytest.MonkeyPatch
) -> None:
    for number in range(1, 4):
        with pytest.raises(RuntimeError):
            train_small(tmp_path, *METHOD)
        attempts = read_attempts(tmp_path)
        assert [(attempt["state"], attempt["reason"]) for attempt in attempts] == [
            ("failed", "RuntimeError: out of memory")
        ] * number
        assert all(attempt["started"] <= attempt["ended"] for attempt in attempts)
    with pytest.raises(UserError) as caught:
        train_small(tmp_path, *METHOD)
    assert str(caught.value) == (
        f"{tmp_path} failed 3 times, the last time with: RuntimeError: out of memory; see train.log there, and give "
        "max_attempts=4 to try again"
    )
    failing.undo()
    train_small(tmp_path, *METHOD, "max_attempts=4")
    assert [attempt["state"] for attempt in read_attempts(tmp_path)] == ["failed"] * 3 + ["finished"]
    assert_same(done, tmp_path)


@pytest.mark.usefixtures("failing")
def test_another_configuration_has_its_own_attempts(train_small: TrainSmall, tmp_path: Path) -> None:
    for overrides in (["protocol.batch_size=4"], ["protocol.batch_size=8"]):
        with pytest.raises(RuntimeError):
            train_small(tmp_path, *METHOD, *overrides, "max_attempts=1")
        assert len(read_attempts(tmp_path)) == 1
        with pytest.raises(UserError, match="failed once, the last time with: RuntimeError: out of memory"):
            train_small(tmp_path, *METHOD, *overrides, "max_attempts=1")
        shutil.rmtree(tmp_path / "checkpoints")  # as if it had failed in its first epoch


def test_a_mistake_that_is_found_before_the_training_is_no_attempt(train_small: TrainSmall, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        train_small(tmp_path, *METHOD, "protocol.optimizer.lr=fast")
    assert read_attempts(tmp_path) == []


@pytest.mark.parametrize("most", ["0", "null", "1.5"])
def test_the_number_of_attempts_is_a_whole_number(train_small: TrainSmall, tmp_path: Path, most: str) -> None:
    with pytest.raises(UserError, match=r"^max_attempts is \S+; give a whole number from 1 on$"):
        train_small(tmp_path, f"max_attempts={most}")


@pytest.mark.parametrize("text", ['[{"state"', "{}", "[1]"])
def test_a_list_of_attempts_that_is_none_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "attempts.json").write_text(text)
    with pytest.raises(UserError, match=r"attempts\.json is not a list of attempts; delete it"):
        read_attempts(tmp_path)


def ended(seconds: int, restart: int = 0, **changes: object) -> dict[str, object]:
    """An attempt of Slurm's job 7 at the first epoch, which it ended after so long."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    end = start + timedelta(seconds=seconds)
    times = {"started": start.isoformat(timespec="seconds"), "ended": end.isoformat(timespec="seconds")}
    return {**times, "state": "killed", "reason": None, "epochs": 0, "job": "7", "restart": restart} | changes


def thrice(seconds: int, **changes: object) -> list[dict[str, object]]:
    """One after each of three starts of the job."""
    return [ended(seconds, restart, **changes) for restart in range(3)]


LIMIT = [ended(13_680, 0), ended(13_675, 1), ended(13_681, 2)]  # which Slurm restarts for the third time
GETTING_ON = {
    "twice": LIMIT[1:],
    "preempted": [*LIMIT[:2], ended(3000, 2)],
    "preempted at once": thrice(20),
    "another job before": [ended(13_680, job="6"), *LIMIT[1:]],
    "another job now": thrice(13_680, job="6"),
    "outside Slurm": thrice(13_680, job=None),
    "an epoch more": [*LIMIT[:2], ended(13_680, 2, epochs=1)],
    "an error": [*LIMIT[:2], ended(13_680, 2, state="failed")],
    "a dead node": [*LIMIT[:2], ended(13_680, 2, ended=None)],
    "Ctrl-C": [*LIMIT[:2], ended(13_680, 1)],
    "Ctrl-C before this one": [ended(13_680, 1), ended(13_675, 2), ended(13_681, 3)],
    "of an earlier version": [{"started": "2026-01-01", "ended": None, "state": "killed", "reason": None}] * 3,
}


def test_a_run_no_epoch_of_which_fits_a_jobs_time_is_not_queued_for_ever(
    train_small: TrainSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    (tmp_path / "attempts.json").write_text(json.dumps([ended(5), *LIMIT]))
    with pytest.raises(UserError) as caught:
        train_small(tmp_path, *METHOD)
    assert str(caught.value) == (
        f"{tmp_path}: 3 times in a row Slurm ended job 7 after about 228 min before the next epoch was done, so the "
        "run would never advance: give the same command with more time (hydra.launcher.timeout_min=, or sbatch --time=)"
    )
    monkeypatch.setenv("SLURM_JOB_ID", "8")  # the same command again
    refuse_endless_requeue(tmp_path)
    monkeypatch.delenv("SLURM_JOB_ID")
    refuse_endless_requeue(tmp_path)


@pytest.mark.parametrize("attempts", GETTING_ON.values(), ids=GETTING_ON)
def test_a_run_that_gets_on_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: list[dict[str, object]]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    (tmp_path / "attempts.json").write_text(json.dumps(attempts))
    refuse_endless_requeue(tmp_path)


def test_when_an_attempt_was_killed_is_noted_by_the_next(
    train_small: TrainSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its last sign of life, which its claim's time of change is."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    killed = (
        "import os, sys; from pathlib import Path\n"
        "from saliency_entropy.run import attempts, lock\n"
        "with lock.held(Path(sys.argv[1])), attempts.attempt(Path(sys.argv[1])): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", killed, tmp_path], check=False).returncode == 9
    (claim,) = (tmp_path / ".owner").iterdir()
    os.utime(claim, (1_800_000_000, 1_800_000_000))
    (first,) = read_attempts(tmp_path)
    assert (first["state"], first["ended"]) == ("killed", None)
    train_small(tmp_path, *METHOD)
    again, last = read_attempts(tmp_path)
    assert again == first | {"ended": "2027-01-15T08:00:00+00:00"}
    assert last["state"] == "finished"


def test_an_attempt_tells_the_job_and_how_far_the_run_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with attempt(tmp_path):
        (tmp_path / "metrics.csv").write_text("epoch,loss\n0,1\n1,1\n")
    monkeypatch.delenv("SLURM_JOB_ID")
    with pytest.raises(SystemExit), attempt(tmp_path):
        sys.exit(1)
    told = [(one["job"], one["restart"], one["epochs"], one["state"]) for one in read_attempts(tmp_path)]
    assert told == [("7", 2, 0, "finished"), (None, 0, 2, "killed")]


def test_the_log_of_a_run_that_failed_is_kept(command: Callable, tmp_path: Path, failing: pytest.MonkeyPatch) -> None:
    log = tmp_path / "runs" / "faces" / "droid" / "seed0" / "train.log"
    assert command("method=droid", "trainer.max_epochs=1").code == 1
    first = log.read_text()
    assert "epoch 1/1" in first
    assert "RuntimeError: CUDA error\nout of memory" in first
    failing.undo()
    assert command("method=droid", "trainer.max_epochs=1").code == 0
    assert log.read_text().startswith(first)
    assert "going on from" in log.read_text()


BASIC = ["hydra/launcher=basic"]
MODES = {
    "run": ["method=droid"],
    "sweep": ["-m", "method=droid", "seed=0"],
    "sweep in one process": ["-m", "method=droid", "seed=0", *BASIC],
    "search": ["experiment=weights", "hydra.sweeper.n_trials=1"],
    "search in one process": ["experiment=weights", "hydra.sweeper.n_trials=1", *BASIC],
}


@pytest.mark.parametrize("mode", MODES)
def test_with_what_a_run_failed_is_once_in_its_log(
    command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """With its place in the program, but for a user's mistake; on the terminal one sentence says that."""
    if "search" in mode:
        pytest.importorskip("optuna")

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(training, "fit", fail)
    for error in (RuntimeError("out of memory"), UserError("a.png is empty; copy it again")):
        ended = command(*MODES[mode], f"study={type(error).__name__}")
        assert ended.code == 1
        (log,) = (tmp_path / "runs" / type(error).__name__).rglob("train.log")
        text = log.read_text()
        unexpected = isinstance(error, RuntimeError)
        assert len(re.findall(f"failed(?:, the others go on)?: {error}", text)) == 1, text
        assert text.count("Traceback") == text.count("in fail\n") == text.count("\nRuntimeError: ") == unexpected, text
        if mode == "run":
            assert str(error) not in ended.out
        if not unexpected:
            assert "Traceback" not in ended.out + ended.err
            assert sum(line.endswith(str(error)) for line in ended.err.splitlines()) == 1, ended.err


# --- signals


@pytest.mark.parametrize("scoring", [False, True], ids=["training", "scoring"])
def test_sigterm_twice_ends_a_run_and_its_sweep_and_the_same_command_goes_on(
    command: Callable, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scoring: bool
) -> None:
    """In the middle of a backward pass, or of scoring; what handles the signal there touches no file."""
    step, calls, touched = DetectorModule.predict_step, iter(range(100)), []

    def strike() -> None:
        with calls_of_files() as called:
            twice(signal.SIGTERM)
        touched.append(called)

    def struck(module: DetectorModule, *arguments: object) -> object:
        if next(calls) == 1:
            strike()
        return step(module, *arguments)

    sweep = ["-m", *METHOD, "seed=0,1", *BASIC]
    with monkeypatch.context() as patch:
        if scoring:
            patch.setattr(DetectorModule, "predict_step", struck)
        else:
            patch.setattr(DetectorModule, "training_step", in_backward(strike))
        ended = command(*sweep)
    assert touched == [[]]
    assert ended.code == 128 + signal.SIGTERM
    assert "ended by SIGTERM: give the same command again to go on" in ended.err
    first, second = (tmp_path / "runs" / "faces" / "droid_cyborg" / f"seed{seed}" for seed in (0, 1))
    assert not (first / "result.json").exists()
    assert not second.exists()
    assert [attempt["state"] for attempt in read_attempts(first)] == ["killed"]
    assert command(*sweep).code == 0
    assert (second / "result.json").exists()
    assert_same(done, first)


SIGNALLED = """
import os, runpy, signal, sys
from saliency_entropy.module import DetectorModule
from struck import calls_of_files, in_backward, twice

def strike():
    with calls_of_files() as called:
        try:
            twice(int(os.environ["STRUCK_BY"]))
        finally:
            print("files:", *called)

def trained(*arguments):
    runpy.run_path(sys.argv[0], run_name="__main__")

DetectorModule.training_step = in_backward(strike)
sys.argv = sys.argv[1:]
if "IN_A_JOB" in os.environ:
    from saliency_entropy.sweep import slurm_job as _slurm_job
    _slurm_job.SubmititLauncher.__call__ = trained
    _slurm_job.SlurmJob()()
trained()
"""


@pytest.fixture
def signalled(small: list[str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``experiments/train.py`` in a Slurm job, which gets a signal twice in the middle of a backward pass."""

    def train(number: signal.Signals, **variables: str) -> subprocess.CompletedProcess[str]:
        job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "x", "SLURM_NTASKS": "1", "STRUCK_BY": str(int(number))}
        paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'chaos'}"}
        return subprocess.run(
            [sys.executable, "-c", SIGNALLED, ROOT / "experiments/train.py", *small, *METHOD, f"runs_dir={tmp_path}"],
            env=os.environ | job | paths | variables, capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip

    return train


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_the_signals_of_a_scheduler_end_a_run_at_once_where_nobody_handles_them(
    signalled: Callable, train_small: TrainSmall, done: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """In a Slurm job, too: who submitted it handles them, and what Lightning would do is not a whole epoch."""
    ended = signalled(number)
    assert ended.returncode == -number, ended.stderr
    folder = tmp_path / "faces" / "droid_cyborg" / "seed0"
    assert not list(folder.rglob("hpc_ckpt*"))
    train_small(folder, *METHOD)
    assert_same(done, folder)


@pytest.mark.slow
def test_a_job_of_a_sweep_that_is_told_to_leave_queues_again_once_however_often_it_is_told(
    signalled: Callable, train_small: TrainSmall, done: Path, tmp_path: Path
) -> None:
    """Twice in the middle of a backward pass, and while it queues again."""
    pytest.importorskip("submitit")
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\nkill -USR2 $PPID; sleep 0.3; echo $* >> {tmp_path}/queued\n")
    scontrol.chmod(0o755)
    ended = signalled(signal.SIGUSR2, IN_A_JOB="1", SUBMITIT_EXECUTOR="slurm", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert ended.returncode == 128 + signal.SIGUSR2, ended.stderr
    assert "files:\n" in ended.stdout
    assert (tmp_path / "queued").read_text() == "requeue 1\n"
    folder = tmp_path / "faces" / "droid_cyborg" / "seed0"
    assert [attempt["state"] for attempt in read_attempts(folder)] == ["killed"]
    train_small(folder, *METHOD)
    assert_same(done, folder)


# --- disks


@pytest.fixture
def little_room(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 20 MB."""
    place = tmp_path / "little"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_is_full_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    command: Callable, done: Path, little_room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = little_room / "faces" / "droid_cyborg" / "seed0"
    rest = little_room / "rest"
    step = DetectorModule.on_after_backward
    calls = iter(range(100))

    def filling(module: DetectorModule) -> None:
        if next(calls) == 4:  # in the second epoch
            with rest.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(4096)):
                    pass
        step(module)

    with monkeypatch.context() as patch:
        patch.setattr(DetectorModule, "on_after_backward", filling)
        ended = command(*METHOD, f"runs_dir={little_room}")
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    sentences = [line for line in ended.err.splitlines() if "No space left" in line]
    assert sentences == [
        f"{folder} cannot be written to (No space left on device): make room, and give the same command again; the run "
        "goes on after its last whole epoch"
    ]
    assert torch.load(folder / "checkpoints" / "resume.ckpt", weights_only=True)["epoch"] == 0
    rest.unlink()
    assert command(*METHOD, f"runs_dir={little_room}").code == 0
    assert_same(done, folder)


@pytest.mark.parametrize("sweep", [[], ["-m"]], ids=["run", "sweep"])
def test_a_disk_that_is_full_at_the_beginning_is_one_sentence(
    command: Callable, done: Path, little_room: Path, sweep: list[str]
) -> None:
    with (little_room / "rest").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    ended = command(*sweep, *METHOD, f"runs_dir={little_room}")
    assert ended.code == 1
    (sentence,) = [line for line in ended.err.splitlines() if "No space left" in line]
    assert sentence.endswith(
        " cannot be written to (No space left on device); make room and give the same command again, or give another "
        "runs_dir="
    )
    assert "Traceback" not in ended.out + ended.err
    (little_room / "rest").unlink()
    assert command(*sweep, *METHOD, f"runs_dir={little_room}").code == 0
    assert_same(done, little_room / "faces" / "droid_cyborg" / "seed0")


def test_a_file_that_may_not_grow_further_is_one_sentence(train_small: TrainSmall, done: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written to \(File too large\): make room, and give the same"):
            train_small(tmp_path, *METHOD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (attempt,) = read_attempts(tmp_path)
    assert attempt["state"] == "no room"
    assert attempt["reason"].startswith("OSError: [Errno 27] File too large")
    train_small(tmp_path, *METHOD, "max_attempts=1")
    assert_same(done, tmp_path)


HYDRAS = (
    "os.mkdir droid_cyborg",
    "os.mkdir droid_cyborg/seed0",
    "open droid_cyborg/seed0/train.log",
)
FAULT: Callable[[str, str], None] | None = None  # called before anything is written, with what and where


def _before_a_write(event: str, arguments: tuple) -> None:
    if FAULT is None:
        return
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        FAULT(event, arguments[0])
    elif event in ("os.rename", "os.link"):
        FAULT(event, os.fspath(arguments[1]))
    elif event == "os.mkdir":
        FAULT(event, os.fspath(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _watched_writes() -> None:
    sys.addaudithook(_before_a_write)  # for good: it cannot be taken away again


@pytest.mark.timeout(1800)  # some thirty launches
def test_whichever_write_fails_it_is_one_sentence_and_the_run_goes_on_later(
    command: Callable, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in turn, the first time that it is come to, in a launch of its own, up to a launch in which none fails."""
    study = tmp_path / "runs" / "faces"
    reasons = itertools.cycle([errno.ENOSPC, errno.EROFS, errno.EDQUOT])
    failed: list[str] = []

    def fail(event: str, path: str) -> None:
        # Not the notes of a sweep that is under way, nor temporary files: they fail where they take their place.
        if not path.startswith(f"{study}/") or failed[-1] or "/.sweep" in path or (event, path[-5:]) == ("open", PART):
            return
        name = re.sub(r"\.[\w-]{8}(?=\.part$)|(?<=owner/)\.\w+$|\d+(?=\.claim)", "", path.removeprefix(f"{study}/"))
        place = f"{event} {name}"
        if place not in failed:
            failed[-1] = place
            reason = next(reasons)
            raise OSError(reason, os.strerror(reason), path)

    monkeypatch.setitem(globals(), "FAULT", fail)
    while not failed or failed[-1]:
        failed.append("")
        ended = command("-m", *METHOD, *BASIC, "max_attempts=1")
        assert ended.code == (1 if failed[-1] else 0), failed[-1]
        # Of what Hydra writes itself, it shows a traceback; where the disk was full before, see below.
        if failed[-1] and failed[-1] not in HYDRAS:
            assert "Traceback" not in ended.out + ended.err
            assert sum("cannot be written to (" in line for line in ended.err.splitlines()) == 1, ended.err
    assert {
        "metrics.csv",
        "best.ckpt",
        "resume.ckpt",
        "attempts.json",
        "config.yaml",
        "test.parquet",
        "result.json",
    } < {Path(place).name for place in failed}
    assert not list(study.rglob("*.part"))
    assert_same(done, study / "droid_cyborg" / "seed0")


# --- a sweep


@pytest.mark.timeout(1800)
def test_a_sweep_that_is_killed_five_times_is_the_one_that_was_left_alone(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, ROOT / "experiments" / "chaos.py", "kills=5", f"output={tmp_path / 'chaos'}"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures = json.loads((tmp_path / "chaos" / "chaos.json").read_text())
    assert figures["kills"] == 5
    assert figures["kills_in_a_write"] > 0
    assert (figures["runs_lost"], figures["runs_done_twice"], figures["runs_that_differ"]) == (0, 0, 0)
    metrics = list((tmp_path / "chaos").rglob("metrics.csv"))
    assert len(metrics) == figures["runs"] + 3
    assert all(pd.read_csv(path)["epoch"].tolist() == [0, 1, 2] for path in metrics)


@pytest.mark.slow
def test_a_sweep_of_sixty_done_runs_is_passed_over_without_pytorch(
    configure: Callable, small: list[str], tmp_path: Path
) -> None:
    """It is what a relaunch spends its time on otherwise; as it does on composing the configuration of every run,
    rather than of every method."""
    methods = ("cross_entropy", "cyborg", "hseb", "fmmmse", "droid", "droid_cyborg")
    for method in methods:
        for seed in range(10):
            folder = tmp_path / "runs" / "sixty" / method / f"seed{seed}"
            folder.mkdir(parents=True)
            run_folder.save_config(folder, configure(f"method={method}", f"seed={seed}", "study=sixty"))
            (folder / "result.json").write_text('{"val": {"auroc": 0.5}}')
    program = (
        "import runpy, sys\n"
        "from hydra._internal.config_loader_impl import ConfigLoaderImpl\n"
        "compose, composed = ConfigLoaderImpl.load_sweep_config, []\n"
        "ConfigLoaderImpl.load_sweep_config = lambda *given: composed.append(given) or compose(*given)\n"
        "script = sys.argv[1]; sys.argv = sys.argv[1:]\n"
        "runpy.run_path(script, run_name='__main__')\n"
        "assert not {'torch', 'pytorch_lightning', 'timm'} & set(sys.modules)\n"
        "assert len(composed) == 6\n"
    )
    arguments = [
        "-m",
        *small,
        f"method={','.join(methods)}",
        "seed=range(0,10)",
        "study=sixty",
        f"runs_dir={tmp_path}/runs",
    ]
    before = os.times().children_user
    ended = subprocess.run(
        [sys.executable, "-c", program, ROOT / "experiments" / "train.py", *arguments],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "sweep ended: 60 runs, 0 trained, 60 done before" in ended.stdout
    # Of one core; less than 7 where nothing else is done, and cores that are shared with other work count more.
    assert os.times().children_user - before < 40
