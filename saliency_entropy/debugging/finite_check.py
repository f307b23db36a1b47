"""Where a run first stops being finite: in which term of the loss, in which batch, for which images."""

import logging
from collections.abc import Iterator
from dataclasses import fields
from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from saliency_entropy.backbone import BackboneOutput
from saliency_entropy.data import FaceBatch
from saliency_entropy.errors import UserError
from saliency_entropy.losses import LossSum, Prediction, Term

log = logging.getLogger(__name__)

SHOWN = 4  # images in a message


class FiniteCheck(Callback):
    """Ends a run at the first value that is infinite or not a number, with a sentence that names it.

    It looks at values in the order in which a step computes them: logits, CAM, each term, the gradient of each term
    with respect to the network's output, the gradients of the weights, the weights after the optimizer's step. It draws
    no random numbers and changes none, so that a run goes as it does without the check.

    Raises:
        UserError: names the value, epoch, batch and images, with the range of their pixels; or there are several
            processes, each of which sees a part of the batch only.
    """

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            raise UserError("values that are not finite are looked for in one process only: give trainer.devices=1")
        self.trainer = trainer
        self.hooks = [
            module.backbone.register_forward_hook(self._keep_output),
            module.register_forward_hook(self._check_prediction),
            module.loss.register_forward_hook(self._check_terms),
        ]

    def _keep_output(self, backbone: nn.Module, images: tuple[Tensor], output: BackboneOutput) -> None:
        self.output = output

    def _check_prediction(self, module: nn.Module, batch: tuple[FaceBatch], prediction: Prediction) -> None:
        (self.batch,) = batch
        for what, values in (("logits are", prediction.logits), ("CAM is", prediction.maps)):
            bad = _not_finite(values)
            if bad.any():
                raise self._error(f"the {what} not finite", bad)

    def _check_terms(
        self, loss: LossSum, prediction: tuple[Prediction], output: tuple[Tensor, dict[str, Tensor]]
    ) -> None:
        total, terms = output
        for name, value in terms.items():
            if not value.isfinite():
                bad = _not_finite_alone(loss.terms[name], *prediction)
                raise self._error(f"the loss term {name} is {value.item()}", bad)
            if value.requires_grad and (bad := self._bad_gradient(value)).any():
                raise self._error(f"the gradient of the loss term {name} is not finite, though its value is", bad)
        if not total.isfinite():
            raise self._error(f"the loss is {total.item()}, though each of its terms is finite", None)

    def _bad_gradient(self, term: Tensor) -> Tensor:
        """``(B,)`` bool: for which images the gradient of a term is not finite where it reaches the network."""
        reached = [tensor for tensor in (self.output.logits, self.output.features) if tensor.requires_grad]
        gradients = torch.autograd.grad(term, reached, retain_graph=True, allow_unused=True)
        bad = torch.zeros(len(self.batch.row), dtype=torch.bool, device=term.device)
        for gradient in gradients:
            if gradient is not None:
                bad |= _not_finite(gradient)
        return bad

    def on_after_backward(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.precision == "16-mixed":
            return  # scaled until they overflow now and then; such a step is left out
        for name, parameter in module.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise self._error(f"the gradient of {name} is not finite, though those of the terms are", None)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: FaceBatch, batch_index: int
    ) -> None:
        for name, values in chain(module.named_parameters(), module.named_buffers()):
            if not values.isfinite().all():
                raise self._error(f"{name} is not finite after the optimizer's step, though its gradient was", None)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for hook in self.hooks:
            hook.remove()
        log.info("every logit, CAM, loss term, gradient and weight was finite in %d epochs", trainer.current_epoch)

    def _error(self, what: str, bad: Tensor | None) -> UserError:
        """``bad``: ``(B,)`` bool, the images to name; where it is None or has no image, the whole batch is to blame."""
        loop = self.trainer.fit_loop.epoch_loop
        split, loop = ("validation", loop.val_loop) if self.trainer.validating else ("training", loop)
        named = bad is not None and bool(bad.any())
        chosen = bad.nonzero().flatten().tolist() if named else list(range(len(self.batch.row)))
        images = ", ".join(self._described(chosen[:SHOWN]))
        more = f" and {len(chosen) - SHOWN} more" if len(chosen) > SHOWN else ""
        return UserError(
            f"{split}, epoch {self.trainer.current_epoch + 1}, batch {loop.batch_progress.current.ready}: {what}; "
            f"{'for' if named else 'not for a single image, but for the batch of'} {images}{more}"
        )

    def _described(self, chosen: list[int]) -> Iterator[str]:
        table = self.trainer.datamodule.manifest.table
        for index in chosen:
            image = self.batch.image[index]
            path = table.loc[self.batch.row[index].item(), "path"]
            yield f"{path} (pixels from {image.min().item()} to {image.max().item()})"


def _not_finite(values: Tensor) -> Tensor:
    """``(B, ...)`` -> ``(B,)`` bool."""
    return ~values.isfinite().flatten(1).all(dim=1)


@torch.no_grad()
def _not_finite_alone(term: Term, prediction: Prediction) -> Tensor:
    """``(B,)`` bool: for which images the term, computed for the image alone, is not finite."""
    values = {field.name: getattr(prediction, field.name).split(1) for field in fields(prediction)}
    alone = [Prediction(**dict(zip(values, image, strict=True))) for image in zip(*values.values(), strict=True)]
    return ~torch.stack([term(image) for image in alone]).isfinite()
