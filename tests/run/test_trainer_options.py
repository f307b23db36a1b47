"""Options and callbacks of the Trainer are honoured to the end, or refused; a run that is cut short says so."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from saliency_entropy import training
from saliency_entropy.errors import UserError
from saliency_entropy.run.trainer_options import check_callbacks
from saliency_entropy.study.runs import read_study
from saliency_entropy.sweep.status import run_status
from saliency_entropy.training import checked

TrainSmall = Callable[..., Path]
LIGHTNING = "pytorch_lightning.callbacks"
STOPS = f"+callbacks.stop={{_target_: {LIGHTNING}.EarlyStopping, monitor: train/loss, mode: max, patience: 2}}"


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("fast_dev_run=true", "debug=fast"),
        ("fast_dev_run=3", "debug=fast"),
        ("overfit_batches=1", "data.train_batches=N"),
        ("overfit_batches=0.5", "data.train_batches=N"),
        ("limit_test_batches=1", "debug=fast"),
        ("max_steps=5", "trainer.max_epochs=N"),
        ("val_check_interval=0.5", "after every epoch"),
        ("val_check_interval=1", "after every epoch"),
        ("check_val_every_n_epoch=2", "each is validated"),
        ("limit_val_batches=1", "only debug=fast"),
        ("limit_val_batches=0.5", "only debug=fast"),
        ("limit_predict_batches=4", "only debug=fast"),
        ("limit_val_batches=0", "leaves no image"),
        ("limit_train_batches=0", "leaves no image"),
    ],
)
def test_an_option_that_changes_what_a_figure_means_is_refused(configure: Callable, option: str, remedy: str) -> None:
    with pytest.raises(UserError, match=f"trainer.{option.replace('true', 'True')} .*{remedy}"):
        checked(configure(f"+trainer.{option}"))


def test_images_of_another_size_than_the_network_is_said_to_have_are_refused(configure: Callable) -> None:
    assert checked(configure("backbone.image_size=64"))["data"]["image_size"] == 64
    with pytest.raises(UserError, match=r"^data\.image_size is 64, but backbone\.image_size, .* set backbone\."):
        checked(configure("data.image_size=64"))


def test_options_with_lightnings_own_values_are_no_change(configure: Callable) -> None:
    own = {"fast_dev_run": "false", "overfit_batches": "0.0", "max_steps": -1, "check_val_every_n_epoch": 1}
    own |= {"val_check_interval": 1.0, "limit_val_batches": 1.0, "limit_predict_batches": "null", "max_time": "null"}
    checked(configure(*(f"+trainer.{name}={value}" for name, value in own.items())))


def test_debug_without_a_study_of_its_own(configure: Callable) -> None:
    checked(configure("debug=overfit"))  # leaves no result
    assert checked(configure("debug=fast"))["study"].startswith("debug/fast-")
    with pytest.raises(UserError, match=r"limit_val_batches=2 .* without a study="):
        checked(configure("debug=fast", "study=mine"))


def test_a_result_of_a_part_of_the_images_is_marked(train_small: TrainSmall, tmp_path: Path) -> None:
    folder = train_small(tmp_path / "s" / "droid" / "seed0", "debug=fast", "method=droid", "protocol.batch_size=4")
    result = json.loads((folder / "result.json").read_text())
    assert result["images_left_out"] == {"limit_val_batches": 2, "limit_predict_batches": 2}
    assert "droid/seed0 left out images" in read_study(tmp_path / "s").warnings[0]


@pytest.mark.parametrize("averaging", ["StochasticWeightAveraging, swa_lrs: 0.01", "EMAWeightAveraging"])
def test_weights_that_would_not_be_scored_are_refused(train_small: TrainSmall, tmp_path: Path, averaging: str) -> None:
    with pytest.raises(UserError, match="averages are not those that are saved and scored"):
        train_small(tmp_path, f"+callbacks.average={{_target_: {LIGHTNING}.{averaging}}}")
    assert not (tmp_path / "attempts.json").exists()


@pytest.mark.parametrize(
    ("callback", "why"),
    [
        ("EarlyStopping, monitor: val_loss", r"EarlyStopping monitors 'val_loss', which no epoch has: .*val/loss"),
        ("ModelCheckpoint, monitor: val/auc", r"ModelCheckpoint monitors 'val/auc', which no epoch has: .*val/auroc"),
        ("LearningRateMonitor", "LearningRateMonitor cannot be used: it needs a Lightning logger"),
    ],
)
def test_a_callback_that_cannot_work_is_refused_before_the_training(
    train_small: TrainSmall, tmp_path: Path, callback: str, why: str
) -> None:
    with pytest.raises(UserError, match=why):
        train_small(tmp_path, f"+callbacks.mine={{_target_: {LIGHTNING}.{callback}}}")
    assert not (tmp_path / "attempts.json").exists()


def test_a_run_that_a_callback_ends_is_scored_and_marked(
    train_small: TrainSmall, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The loss falls, so a callback that waits for it to rise ends the run after the third of nine epochs."""
    with caplog.at_level("INFO"):
        folder = train_small(tmp_path / "s" / "droid" / "seed0", "method=droid", "trainer.max_epochs=9", STOPS)
    result = json.loads((folder / "result.json").read_text())
    epochs = pd.read_csv(folder / "metrics.csv")
    assert (len(epochs), result["epochs"], result["planned_epochs"]) == (3, 3, 9)
    assert any(message.endswith("; ended after epoch 3 of 9") for message in caplog.messages)
    assert run_status(folder).detail == "ended after epoch 3 of 9"
    said = "These runs ended before their last epoch, by a callback or a time limit: droid/seed0 (epoch 3 of 9)."
    assert said in read_study(tmp_path / "s").warnings


def test_it_stays_ended_if_it_is_killed_before_it_is_scored(
    train_small: TrainSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    options = "method=droid", "trainer.max_epochs=9", STOPS
    with monkeypatch.context() as patched:
        patched.setattr(training, "score", killed)
        with pytest.raises(KeyboardInterrupt):
            train_small(tmp_path, *options)
    assert torch.load(tmp_path / "checkpoints" / "resume.ckpt", weights_only=True)["ended_early"] is True
    train_small(tmp_path, *options)
    assert json.loads((tmp_path / "result.json").read_text())["epochs"] == 3


def test_a_run_that_comes_to_its_time_limit_is_scored_and_marked(train_small: TrainSmall, tmp_path: Path) -> None:
    train_small(tmp_path, "method=droid", "trainer.max_epochs=400", "+trainer.max_time='00:00:00:01'")
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["epochs"] < 400, result["planned_epochs"]) == (True, 400)
    steps = torch.load(tmp_path / "checkpoints" / "resume.ckpt", weights_only=True)["global_step"]
    assert steps == 3 * result["epochs"]  # whole epochs


def test_a_whole_run_has_no_mark(train_small: TrainSmall, tmp_path: Path) -> None:
    folder = train_small(tmp_path / "s" / "droid" / "seed0", "method=droid")
    assert not {"planned_epochs", "images_left_out"} & json.loads((folder / "result.json").read_text()).keys()
    assert run_status(folder).detail == ""
    assert [warning for warning in read_study(tmp_path / "s").warnings if "ended" in warning or "part" in warning] == []


@pytest.mark.parametrize("monitor", ["epoch", "step", "val/accuracy"])
def test_what_lightning_itself_counts_may_be_monitored(monitor: str) -> None:
    check_callbacks([ModelCheckpoint(monitor=monitor)], ["val/accuracy"])
