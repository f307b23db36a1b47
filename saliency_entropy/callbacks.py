"""What watches a run: its checkpoints, its table of epochs, its lines on the screen."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from saliency_entropy.run_folder import write_atomically

log = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: the epoch of the highest validation accuracy, the last of equals.

    Lightning's own ModelCheckpoint keeps the first of equals; the CYBORG authors' code keeps the last.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor="val/accuracy",
            mode="max",
            save_top_k=1,
            enable_version_counter=False,
        )

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        equal = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return super().check_monitor_top_k(trainer, current) or trainer.strategy.reduce_boolean_decision(equal)


def resume_checkpoint(folder: Path) -> ModelCheckpoint:
    """``resume.ckpt``: the state after the last whole epoch, its validation included."""
    return ModelCheckpoint(
        dirpath=folder, filename="resume", save_on_train_epoch_end=True, enable_version_counter=False
    )


class EpochLogger(Logger):
    """A logger that gets one row an epoch.

    Lightning hands over the validation figures first and the training figures after them; they are joined here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._row: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run's configuration is in its config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if metrics["epoch"] != self._row.get("epoch"):
            self._row = {}
        self._row |= {"epoch": int(metrics["epoch"])} | metrics
        if "train/loss" in self._row and "val/loss" in self._row:
            self.log_epoch(self._row)

    def log_epoch(self, row: dict[str, float]) -> None:
        """Take the figures of one epoch, by ``split/name``."""
        raise TypeError(f"{type(self).__name__} must define log_epoch(row)")


class MetricsTable(EpochLogger):
    """``metrics.csv``: one row an epoch. A resumed run writes on where it stopped; an epoch done again replaces
    its row."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def log_epoch(self, row: dict[str, float]) -> None:
        table = pd.DataFrame([row])
        table["epoch"] = table["epoch"].astype(int)
        if row["epoch"] > 0 and self.path.exists():
            earlier = pd.read_csv(self.path)
            table = pd.concat([earlier[earlier["epoch"] < row["epoch"]], table])
        write_atomically(self.path, table.to_csv(index=False))


class EpochLines(EpochLogger):
    """One plain line an epoch, where the output is not a terminal.

    Args:
        run: what each line begins with; runs in parallel processes write to the same output.
        epochs: how many the run will have.
    """

    def __init__(self, run: str, epochs: int) -> None:
        super().__init__()
        self.run = run
        self.epochs = epochs
        self._first_epoch: int | None = None
        self._started = time.monotonic()

    def log_epoch(self, row: dict[str, float]) -> None:
        if self._first_epoch is None:
            self._first_epoch = row["epoch"]
        seconds = (time.monotonic() - self._started) / (row["epoch"] - self._first_epoch + 1)
        log.info(
            f"{self.run}, epoch {row['epoch'] + 1}/{self.epochs}: loss {row['train/loss']:.4f}, "
            f"CAM entropy {row['train/cam_entropy']:.2f}, val accuracy {row['val/accuracy']:.4f}, "
            f"val AUROC {row['val/auroc']:.4f}, val CAM entropy {row['val/cam_entropy']:.2f}, {seconds:.1f} s an epoch"
        )


def progress_bars() -> list[Callback]:
    """Rich bars on a terminal, nothing elsewhere (:class:`EpochLines` speaks there)."""
    return [RichProgressBar()] if sys.stdout.isatty() else []
