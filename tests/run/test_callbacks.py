"""Which epoch is the best one, what lies on the disk after each, and what is said about it."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, RichProgressBar
from torch.utils.data import DataLoader

from saliency_entropy.run.callbacks import (
    BestCheckpoint,
    EpochLines,
    EpochSeed,
    MetricsTable,
    WholeFiles,
    progress_bars,
    resume_checkpoint,
)


class Scripted(pl.LightningModule):
    """Has its epoch's number for a weight, and the validation accuracy that a script gives it."""

    def __init__(self, accuracies: Sequence[float]) -> None:
        super().__init__()
        self.accuracies = accuracies
        self.epoch = torch.nn.Parameter(torch.tensor(-1.0))
        self.drawn: list[float] = []

    def training_step(self, batch: torch.Tensor, batch_index: int) -> torch.Tensor:
        self.drawn.append(torch.rand(()).item())
        return 0 * self.epoch

    def validation_step(self, batch: torch.Tensor, batch_index: int) -> None:
        with torch.no_grad():
            self.epoch.fill_(self.current_epoch)

    def on_validation_epoch_end(self) -> None:
        self.log("val/accuracy", self.accuracies[self.current_epoch])

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", 10.0 + self.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def run(accuracies: Sequence[float], folder: Path, until: int | None = None, more: Sequence[Callback] = ()) -> Scripted:
    """Go on, from the last whole epoch if there is one, until so many epochs are done."""
    module = Scripted(accuracies)
    trainer = pl.Trainer(
        max_epochs=until or len(accuracies), accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, plugins=[WholeFiles()], default_root_dir=folder,
        callbacks=[*more, BestCheckpoint(folder), resume_checkpoint(folder)],
    )  # fmt: skip
    loader = DataLoader(torch.zeros(1, 1), generator=torch.Generator())  # else it draws from the global one
    resume = folder / "resume.ckpt"
    trainer.fit(module, loader, loader, ckpt_path=resume if resume.exists() else None, weights_only=True)
    return module


def epoch_in(checkpoint: Path) -> int:
    state = torch.load(checkpoint, weights_only=True)
    assert state["state_dict"]["epoch"].item() == state["epoch"]
    return state["epoch"]


SCRIPTS = [
    pytest.param([0.5, 0.7, 0.6], 1, id="rise and fall"),
    pytest.param([0.5, 0.5, 0.5], 2, id="all equal"),
    pytest.param([0.9, 0.5, 0.9, 0.7], 2, id="maximum twice"),
    pytest.param([0.9, 0.8, 0.8], 0, id="tie below the maximum"),
    pytest.param([0.8, 0.9, 0.9, 0.9, 0.8, 0.8], 3, id="three maxima, then a lower tie"),
    pytest.param([0.1, 0.2, 0.3], 2, id="rising"),
    pytest.param([0.0, 0.0], 1, id="nothing right"),
]


@pytest.mark.parametrize(("accuracies", "best"), SCRIPTS)
def test_the_last_of_the_highest(accuracies: list[float], best: int, tmp_path: Path) -> None:
    run(accuracies, tmp_path)
    assert epoch_in(tmp_path / "best.ckpt") == best
    assert epoch_in(tmp_path / "resume.ckpt") == len(accuracies) - 1
    assert epoch_in(tmp_path / "resume-before.ckpt") == len(accuracies) - 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "resume-before.ckpt", "resume.ckpt"]


@pytest.mark.parametrize(("accuracies", "best"), SCRIPTS)
@pytest.mark.filterwarnings("error:The dirpath has changed")
def test_the_same_when_every_epoch_is_a_launch_in_a_folder_moved_since(
    accuracies: list[float], best: int, tmp_path: Path
) -> None:
    folder = tmp_path / "0"
    for done in range(1, len(accuracies) + 1):
        run(accuracies, folder, until=done)
        folder = folder.rename(tmp_path / str(done))
    assert epoch_in(folder / "best.ckpt") == best
    assert epoch_in(folder / "resume.ckpt") == len(accuracies) - 1


def test_a_copied_folder_leaves_the_first_alone(tmp_path: Path) -> None:
    run([0.5, 0.6, 0.7], tmp_path / "first", until=1)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    run([0.5, 0.6, 0.7], tmp_path / "copy")
    assert epoch_in(tmp_path / "first" / "best.ckpt") == epoch_in(tmp_path / "first" / "resume.ckpt") == 0
    assert epoch_in(tmp_path / "copy" / "best.ckpt") == 2


class Watch(Callback):
    """What lies on the disk when each epoch begins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[int] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch:
            self.seen.append(epoch_in(self.folder / "resume.ckpt"))


def test_every_epoch_leaves_the_state_to_go_on_from(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    run([0.9, 0.5, 0.5, 0.5], tmp_path, more=[watch])
    assert watch.seen == [0, 1, 2]


def test_an_epoch_draws_the_same_numbers_in_a_resumed_run(tmp_path: Path) -> None:
    drawn = run([0.5] * 3, tmp_path / "whole", more=[EpochSeed(4)]).drawn
    parts = []
    for done in (1, 2, 3):
        torch.manual_seed(99)  # whatever the process drew before
        parts += run([0.5] * 3, tmp_path / "parts", until=done, more=[EpochSeed(4)]).drawn
    assert parts == drawn
    assert len(set(drawn)) == 3
    other = run([0.5] * 3, tmp_path / "other", more=[EpochSeed(5)]).drawn
    assert not set(other) & set(drawn)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resume.ckpt"
    WholeFiles().save_checkpoint({"epoch": 1}, str(path))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        WholeFiles().save_checkpoint({"epoch": 2}, str(path))
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    run([0.5, 0.25], tmp_path / "checkpoints", more=[MetricsTable(path)])
    pd.testing.assert_frame_equal(
        pd.read_csv(path), pd.DataFrame({"epoch": [0, 1], "val/accuracy": [0.5, 0.25], "train/loss": [10.0, 11.0]})
    )


def test_an_epoch_done_again_replaces_its_row_and_those_after_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = MetricsTable(path)
    for epoch in range(4):
        table.log_epoch({"epoch": epoch, "train/loss": 1 / 3 + epoch})
    MetricsTable(path).log_epoch({"epoch": 2, "train/loss": 9.0})
    rows = pd.read_csv(path)
    assert rows["epoch"].tolist() == [0, 1, 2]
    assert rows["train/loss"].tolist() == [1 / 3, 1 / 3 + 1, 9.0]
    MetricsTable(path).log_epoch({"epoch": 0, "train/loss": 5.0})
    assert pd.read_csv(path)["train/loss"].tolist() == [5.0]


def test_a_plain_line_an_epoch(caplog: pytest.LogCaptureFixture) -> None:
    row = {"epoch": 3, "train/loss": 0.51234, "train/accuracy": 0.625, "train/cam_entropy": 3.456}
    with caplog.at_level(logging.INFO):
        row |= {"val/accuracy": 0.75, "val/auroc": 0.8, "val/auroc_margin": 0.85, "val/cam_entropy": 3.2}
        EpochLines("droid seed 2", 10).log_epoch(row)
    assert caplog.messages[0].startswith(
        "droid seed 2, epoch 4/10: loss 0.5123, accuracy 0.6250, CAM entropy 3.46, val accuracy 0.7500, "
        "val AUROC 0.8000 (by margin 0.8500), val CAM entropy 3.20, "
    )


def test_bars_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert [type(bar) for bar in progress_bars()] == [RichProgressBar]
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert progress_bars() == []
