"""Weights & Biases: one W&B run for each run, grouped so that methods can be compared."""

import logging
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
import wandb
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger
from torch.utils.data import default_collate
from torchmetrics.functional.classification import binary_roc

from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.overlay import cam_overlay
from saliency_entropy.run_folder import write_atomically

log = logging.getLogger(__name__)

MODES = ("online", "offline")
OVERLAYS_OF_EACH_LABEL = 4
ROC_POINTS = 200


class WandbRun:
    """The logger, callbacks and summary of one run.

    Args:
        folder: the run's folder; the W&B files lie in it.
        config: the resolved configuration: group = study, job type = method.
        mode: ``online``, or ``offline`` (no account needed; ``wandb sync`` sends it later). Online without an API
            key, or without an answer of the server, goes offline and says so.
        project: W&B project.
        entity: W&B user or team; the account's default, if not given.
        overlay_every: epochs between two sets of CAM overlays.

    Raises:
        UserError: ``mode`` or ``overlay_every`` cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        mode: str = "online",
        project: str = "saliency_entropy",
        entity: str | None = None,
        overlay_every: int = 5,
        name: str = "wandb",
    ) -> None:
        if mode not in MODES:
            raise UserError(f"logger.mode is {mode!r}; choose {' or '.join(MODES)}")
        if not isinstance(overlay_every, int) or overlay_every < 1:
            raise UserError(f"logger.overlay_every is {overlay_every!r}; give a whole number of epochs, 1 or more")
        # verify=False: whether the server can be reached is found out, with a time limit, by beginning the run.
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            log.warning("no W&B key (wandb login, or WANDB_API_KEY): logging offline; wandb sync sends it later")
            mode = "offline"
        try:
            self.logger = _begun(folder, config, mode, project, entity)
        except wandb.errors.Error as error:
            why = in_one_line(error)
            log.warning("W&B cannot be used (%s): logging offline; wandb sync sends it later", why)
            self.logger = _begun(folder, config, "offline", project, entity)
        self.callbacks: list[Callback] = [CamOverlays(self.logger, overlay_every)]

    def log_result(self, result: dict[str, Any], test_scores: pd.DataFrame) -> None:
        """The final figures as the run's summary, and the ROC of the test split.

        What fails here is said and left: the figures are in the run's own files, and a run is not lost for W&B.
        """
        try:
            self._log_result(result, test_scores)
        except Exception as error:
            log.warning("W&B has not got the final figures (%s); they are in result.json", in_one_line(error, None))

    def _log_result(self, result: dict[str, Any], test_scores: pd.DataFrame) -> None:
        run = self.logger.experiment
        for key in ("best_epoch", "wall_seconds", "human_entropy"):
            run.summary[key] = result[key]
        for split in ("val", "test"):
            for name, value in result[split].items():
                # Not split/name: that is the key of the epoch's figure, whose last value the summary keeps.
                run.summary[f"best/{split}_{name}"] = value
        run.log({"test/roc": roc_plot(test_scores)})

    def finish(self, exit_code: int) -> None:
        """End the W&B run, after a failure too: the next run of the process would otherwise go on in it."""
        wandb.finish(exit_code=exit_code)


def _begun(folder: Path, config: dict[str, Any], mode: str, project: str, entity: str | None) -> WandbLogger:
    method = config["method"]["name"]
    # Kept with the run: what goes on after an interruption is the same W&B run.
    identity = folder / "wandb_id"
    if not identity.exists():
        write_atomically(identity, uuid.uuid4().hex[:12])
    logger = WandbLogger(
        id=identity.read_text(),
        resume="allow",
        name=f"{method}-seed{config['seed']}",
        project=project,
        entity=entity,
        save_dir=folder,
        # Not offline=True: Lightning would set WANDB_MODE, for the later runs of this process too. Online leaves the
        # choice to the user's own WANDB_MODE.
        mode="offline" if mode == "offline" else None,
        group=config["study"],
        job_type=method,
        tags=[config["data"]["name"], config["backbone"]["name"], config["protocol"]["name"]],
        config=config,
        # A killed run loses a second of its log rather than 15.
        settings=wandb.Settings(x_transaction_log_flush_interval=1),
    )
    _ = logger.experiment  # begins the W&B run, here and not in the middle of the training
    return logger


class CamOverlays(Callback):
    """The CAMs of the same few validation images, every few epochs and after the last."""

    def __init__(self, logger: WandbLogger, every: int) -> None:
        self.logger = logger
        self.every = every

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch
        if (epoch + 1) % self.every and epoch + 1 != trainer.max_epochs:
            return
        dataset = trainer.datamodule.val_dataloader().dataset
        labels = (trainer.datamodule.split_table("val")["label"] == "synthetic").to_numpy()
        rows = [row for label in (False, True) for row in np.flatnonzero(labels == label)[:OVERLAYS_OF_EACH_LABEL]]
        batch = type(dataset[0])(*default_collate([dataset[int(row)] for row in rows]))
        was_training = module.training
        module.eval()
        with torch.no_grad():
            prediction = module(module.transfer_batch_to_device(batch, module.device, 0))
        module.train(was_training)
        pictures, captions = [], []
        for image, cam, label, logits in zip(
            batch.image, prediction.maps.cpu(), batch.label, prediction.logits.cpu(), strict=True
        ):
            pictures.append(cam_overlay(image.permute(1, 2, 0).numpy(), cam.numpy()))
            truth = "synthetic" if label else "real"
            captions.append(f"{truth}, p(synthetic) = {logits.float().softmax(0)[1]:.2f}")
        # Lightning counts the steps of its own figures from 0.
        self.logger.log_image("val/cam", pictures, step=trainer.global_step - 1, caption=captions)


def roc_plot(scores: pd.DataFrame) -> Any:
    """The ROC of a score table as a W&B line plot of at most :data:`ROC_POINTS` points."""
    ranks = torch.as_tensor(scores["logit_synthetic"].rank(method="dense", pct=True).to_numpy(copy=True))
    labels = torch.as_tensor((scores["label"] == "synthetic").to_numpy(dtype=np.int64))
    false_positive, true_positive, _ = binary_roc(ranks, labels)
    kept = np.unique(np.linspace(0, len(false_positive) - 1, ROC_POINTS).astype(int))
    rows = list(zip(false_positive[kept].tolist(), true_positive[kept].tolist(), strict=True))
    table = wandb.Table(data=rows, columns=["false positive rate", "true positive rate"])
    return wandb.plot.line(table, "false positive rate", "true positive rate", title="ROC of the test images")
