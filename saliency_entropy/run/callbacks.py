"""What watches a run: its checkpoints, its table of epochs, its lines on the screen."""

import io
import logging
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, RichProgressBar
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from saliency_entropy.run.checkpoint import BEFORE, RESUME
from saliency_entropy.run.folder import write_atomically, written_whole

log = logging.getLogger(__name__)


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint of one name, in a folder that may be moved between two launches of a run."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        super().__init__(dirpath=folder, filename=name, enable_version_counter=False, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best score when the folder is another, and the next epoch would pass for the best.
        path = str(Path(self.dirpath) / f"{self.filename}.ckpt")
        here = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
        scores = dict.fromkeys([path] if self.monitor else [], state_dict["best_model_score"])
        super().load_state_dict(state_dict | here | {"best_k_models": scores})


class BestCheckpoint(RunCheckpoint):
    """``best.ckpt``: the epoch of the highest validation accuracy, the last of equals.

    Lightning's own ModelCheckpoint keeps the first of equals; the CYBORG authors' code keeps the last. The state of the
    training is left out, so that the same run leaves the same file, whatever time it took.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "best", monitor="val/accuracy", mode="max", save_top_k=1, save_weights_only=True)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        equal = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return super().check_monitor_top_k(trainer, current) or trainer.strategy.reduce_boolean_decision(equal)


def resume_checkpoint(folder: Path) -> ModelCheckpoint:
    """``resume.ckpt``: the state after the last whole epoch, its validation included; :class:`WholeFiles` keeps the
    one before."""
    return RunCheckpoint(folder, "resume", save_on_train_epoch_end=True)


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there.

    Lightning writes it into the system's temporary folder first. Where that is another file system, as it often is,
    moving is copying, and a kill in the middle leaves half a checkpoint in the place of a whole one.

    A ``resume.ckpt`` is kept until there are two newer ones, in case the newest is damaged where it lies.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        data = io.BytesIO()
        torch.save(checkpoint, data)
        place = Path(path)
        with written_whole(place, place.with_name(BEFORE) if place.name == RESUME else None) as temporary:
            temporary.write_bytes(data.getbuffer())


class EpochSeed(Callback):
    """Begins every epoch with random numbers of its own, so that a resumed run draws what an uninterrupted one
    draws, in dropout for instance."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # The factor keeps the seeds apart: else epoch 1 of seed 0 would draw what epoch 0 of seed 1 draws.
        torch.manual_seed(1_000_000 * self.seed + trainer.current_epoch)


class Stopwatch(Callback):
    """The seconds that a run has taken, those before it was interrupted included."""

    def __init__(self) -> None:
        self._earlier = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._earlier + time.monotonic() - self._started

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._earlier = state_dict["seconds"]


class EpochCallback(Checkpoint):
    """Gets one row an epoch, before its resume.ckpt is written: an epoch that is not done again has its row.

    Lightning calls a Checkpoint after the module has logged the epoch, and in the order of the callbacks given.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        figures = {name: value.item() for name, value in trainer.callback_metrics.items() if "/" in name}
        if trainer.is_global_zero:
            self.log_epoch({"epoch": trainer.current_epoch} | figures)

    def log_epoch(self, row: dict[str, float]) -> None:
        """Take the figures of one epoch, by ``split/name``."""
        raise TypeError(f"{type(self).__name__} must define log_epoch(row)")


class MetricsTable(EpochCallback):
    """``metrics.csv``: one row an epoch. A resumed run writes on where it stopped; an epoch done again replaces
    its row."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log_epoch(self, row: dict[str, float]) -> None:
        table = pd.DataFrame([row])
        if row["epoch"] > 0 and self.path.exists():
            earlier = pd.read_csv(self.path)
            table = pd.concat([earlier[earlier["epoch"] < row["epoch"]], table])
        write_atomically(self.path, table.to_csv(index=False))


class EpochLines(EpochCallback):
    """One plain line an epoch, where the output is not a terminal.

    Args:
        run: what each line begins with; runs in parallel processes write to the same output.
        epochs: how many the run will have.
    """

    def __init__(self, run: str, epochs: int) -> None:
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
            f"accuracy {row['train/accuracy']:.4f}, CAM entropy {row['train/cam_entropy']:.2f}, "
            f"val accuracy {row['val/accuracy']:.4f}, val AUROC {row['val/auroc']:.4f}, "
            f"val CAM entropy {row['val/cam_entropy']:.2f}, {seconds:.1f} s an epoch"
        )


def progress_bars() -> list[Callback]:
    """Rich bars on a terminal, nothing elsewhere (:class:`EpochLines` speaks there), nor where runs share one."""
    return [RichProgressBar()] if sys.stdout.isatty() and multiprocessing.parent_process() is None else []
