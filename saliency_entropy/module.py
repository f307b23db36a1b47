"""The LightningModule: one forward of the backbone, its CAM, the sum of the loss terms."""

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from saliency_entropy.backbone import Backbone
from saliency_entropy.cam import predict_batch
from saliency_entropy.data import FaceBatch
from saliency_entropy.losses import LossSum, Prediction
from saliency_entropy.metrics import SplitMetrics, score_columns
from saliency_entropy.run import devices


class DetectorModule(pl.LightningModule):
    """A detector of synthetic faces whose class activation map takes part in its loss.

    Args:
        backbone: images -> logits, feature maps, classifier weight.
        loss: the weighted sum of terms.
        optimizer: parameters -> optimizer.
        scheduler: optimizer -> learning rate schedule, stepped once an epoch; None for a constant rate.
        class_index: the class whose CAM is taken, see :func:`~saliency_entropy.cam.detector_cam`.
        detector_config: plain values kept in every checkpoint, from which
            :class:`~saliency_entropy.detector.Detector` rebuilds the network.
    """

    def __init__(
        self,
        backbone: Backbone,
        loss: LossSum,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        class_index: str = "predicted",
        detector_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.loss = loss
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.class_index = class_index
        self.detector_config = detector_config
        terms, human_terms = list(loss.terms), loss.terms_needing_human_maps
        self.train_metrics = SplitMetrics(terms, human_terms)
        self.val_metrics = SplitMetrics(terms, human_terms)

    @property
    def figures(self) -> list[str]:
        """The names of the figures that are logged for every epoch."""
        names = (*self.train_metrics.sums, *self.train_metrics.aurocs)
        return [f"{split}/{name}" for split in ("train", "val") for name in names]

    def forward(self, batch: FaceBatch) -> Prediction:
        return predict_batch(self.backbone, batch, self.class_index)

    def training_step(self, batch: FaceBatch, batch_index: int) -> Tensor:
        prediction = self(batch)
        total, terms = self.loss(devices.gather_prediction(prediction))
        # The terms are those of the whole batch; every process counts them once for each image of its own.
        self.train_metrics.update(total, terms, prediction)
        return total * devices.process_count()

    def validation_step(self, batch: FaceBatch, batch_index: int) -> None:
        prediction = self(batch)
        self.val_metrics.update(*self.loss(prediction), prediction)

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train", self.train_metrics)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val", self.val_metrics)

    def _log_epoch(self, split: str, metrics: SplitMetrics) -> None:
        shown = ("train/loss", "val/accuracy")  # a line of a terminal holds no more
        for name, value in metrics.compute().items():
            self.log(f"{split}/{name}", value, prog_bar=f"{split}/{name}" in shown)
        metrics.reset()

    def predict_step(self, batch: FaceBatch, batch_index: int) -> dict[str, Tensor]:
        """The columns of the score table, and the row in the manifest and the digest of each image."""
        return {"row": batch.row, "digest": batch.digest} | score_columns(self(batch))

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimizer(self.backbone.parameters())
        if self.scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["detector"] = self.detector_config
