"""Callbacks of a run: its checkpoints, its table of epochs, its lines on the screen."""

import io
import logging
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, RichProgressBar
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from saliency_entropy.run.checkpoint import BEFORE, EPOCHS, RESUME
from saliency_entropy.run.epochs import epochs_text, read_epochs
from saliency_entropy.run.whole_files import write_atomically, written_whole

log = logging.getLogger(__name__)


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint with one name, in a folder that may be moved between two launches of a run."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        super().__init__(dirpath=folder, filename=name, enable_version_counter=False, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best score when the folder has changed; the next epoch would then be taken for the best.
        path = str(Path(self.dirpath) / f"{self.filename}.ckpt")
        here = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
        scores = dict.fromkeys([path] if self.monitor else [], state_dict["best_model_score"])
        super().load_state_dict(state_dict | here | {"best_k_models": scores})


class BestCheckpoint(RunCheckpoint):
    """``best.ckpt``: the epoch with the highest validation accuracy, the last of equals.

    Lightning's own ModelCheckpoint keeps the first of equals; the CYBORG authors' code keeps the last. The state of the
    training is left out, so the same run leaves the same file, however long it took.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "best", monitor="val/accuracy", mode="max", save_top_k=1, save_weights_only=True)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        equal = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return super().check_monitor_top_k(trainer, current) or trainer.strategy.reduce_boolean_decision(equal)


def resume_checkpoint(folder: Path) -> ModelCheckpoint:
    """``resume.ckpt``: the state after the last whole epoch and its validation; :class:`WholeFiles` keeps the one
    before."""
    return RunCheckpoint(folder, "resume", save_on_train_epoch_end=True)


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint into its own folder under a temporary name, then renames it.

    Lightning first writes it into the system's temporary folder. Often that is on another file system, so moving means
    copying, and a kill in the middle leaves half a checkpoint instead of a whole one.

    A ``resume.ckpt`` is kept until there are two newer ones, in case the newest is damaged on the disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        data = io.BytesIO()
        torch.save(checkpoint, data)
        file = Path(path)
        with written_whole(file, file.with_name(BEFORE) if file.name == RESUME else None) as temporary:
            temporary.write_bytes(data.getbuffer())


class EpochSeed(Callback):
    """Seeds the random numbers of every epoch, so that a resumed run draws the same as an uninterrupted one, in
    dropout for instance."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # The factor keeps the seeds apart: without it, epoch 1 of seed 0 would draw the same as epoch 0 of seed 1.
        torch.manual_seed(1_000_000 * self.seed + trainer.current_epoch)


class Stopwatch(Callback):
    """The seconds that a run has taken, including those before it was interrupted."""

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


class EarlyEnd(Callback):
    """Keeps a run ended that a callback or ``trainer.max_time`` has ended before its last epoch, if it is killed before
    it is scored."""

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["ended_early"] = trainer.should_stop

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        trainer.should_stop = checkpoint.get("ended_early", False)


class EpochCallback(Checkpoint):
    """Receives the figures of every epoch before its resume.ckpt is written, so an epoch that is not repeated has them.

    Lightning calls a Checkpoint after the module has logged the epoch, in the order in which callbacks are given.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        figures = {name: value.item() for name, value in trainer.callback_metrics.items() if "/" in name}
        if trainer.is_global_zero:
            self.log_epoch({"epoch": trainer.current_epoch} | figures)

    def log_epoch(self, row: dict[str, float]) -> None:
        """Receive the figures of one epoch by ``split/name``, and its number as ``epoch``."""
        raise TypeError(f"{type(self).__name__} must define log_epoch(row)")


class MetricsTable(EpochCallback):
    """``metrics.csv``: one row per epoch. A resumed run continues the table; a repeated epoch replaces its row.

    The rows are kept in ``resume.ckpt``, too: a resumed run need not trust the file.
    """

    state_key = EPOCHS

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows = state_dict["rows"]

    def log_epoch(self, row: dict[str, float]) -> None:
        if row["epoch"] > 0 and not self._rows:  # the checkpoint is of a version that did not keep them there
            self._rows = read_epochs(self.path.parent).to_dict("records")
        self._rows = [*(earlier for earlier in self._rows if earlier["epoch"] < row["epoch"]), row]
        write_atomically(self.path, epochs_text(self._rows))


class EpochLines(EpochCallback):
    """One plain line per epoch, for output that is not a terminal.

    Args:
        run: the run's name, which begins each line; runs in parallel processes write to the same output.
        epochs: the number of epochs that the run will have.
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
            f"val accuracy {row['val/accuracy']:.4f}, val AUROC {row['val/auroc']:.4f} (by margin "
            f"{row['val/auroc_margin']:.4f}), "
            f"val CAM entropy {row['val/cam_entropy']:.2f}, {seconds:.1f} s an epoch"
        )


def progress_bars() -> list[Callback]:
    """Rich bars on a terminal that belongs to one run; elsewhere nothing, since :class:`EpochLines` prints there."""
    return [RichProgressBar()] if sys.stdout.isatty() and multiprocessing.parent_process() is None else []
