"""``debug=overfit``: whether the network could learn one batch by heart, and what to check if not."""

import logging

import pytorch_lightning as pl

from saliency_entropy.run.callbacks import EpochCallback

log = logging.getLogger(__name__)


class OverfitVerdict(EpochCallback):
    """Says at the end of a training on one batch whether all of its images were judged right. The loss is told and
    decides nothing: only that of cross-entropy alone has 0 as its floor."""

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def log_epoch(self, row: dict[str, float]) -> None:
        self._rows.append(row)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self._rows:  # of several processes, the first has them
            return
        first, last = self._rows[0], self._rows[-1]
        reached = (
            f"after {len(self._rows)} epochs on one batch, accuracy went from {first['train/accuracy']:.2f} "
            f"to {last['train/accuracy']:.2f}, and loss from {first['train/loss']:.4f} to {last['train/loss']:.4f}"
        )
        if last["train/accuracy"] == 1:
            log.info("the network can overfit: %s", reached)
        else:
            log.warning(
                "the network did not overfit: %s; give it longer (trainer.max_epochs=100), then try another "
                "protocol.optimizer.lr=, then method=cross_entropy: if that fails, too, look at the images and labels, "
                "else at the weights of the method's terms",
                reached,
            )
