"""From a batch to a prediction: one forward, and the class activation map of a chosen class."""

import torch
from torch import Tensor

from saliency_entropy.backbone import Backbone, BackboneOutput
from saliency_entropy.data import FaceBatch
from saliency_entropy.errors import UserError
from saliency_entropy.functional import class_activation_map, min_max
from saliency_entropy.losses import Prediction

CAM_CLASSES = ("predicted", "true", "synthetic", "difference")


def detector_cam(output: BackboneOutput, class_index: str, labels: Tensor | None = None) -> Tensor:
    """Each image's CAM, of the class that is chosen for it.

    Args:
        output: logits ``(B, 2)``, feature maps ``(B, C, h, w)`` and classifier weight ``(2, C)``.
        class_index: ``predicted``: the class with the larger logit (the CYBORG code); ``true``: the label;
            ``synthetic``: class 1 always; ``difference``: the map of ``logit_synthetic - logit_real``.
        labels: ``(B,)``, needed for ``true`` alone.

    Returns:
        ``(B, h, w)``, not normalised.

    Raises:
        UserError: ``class_index`` is another word, or ``true`` without labels.
    """
    logits, features, weight = output
    if class_index == "predicted":
        chosen = logits.argmax(dim=1)
    elif class_index == "true" and labels is not None:
        chosen = labels
    elif class_index == "synthetic":
        chosen = torch.ones(len(logits), dtype=torch.long, device=logits.device)
    elif class_index == "difference":
        weight = weight[1:] - weight[:1]
        chosen = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    elif class_index == "true":
        raise UserError("the CAM of the true class needs labels; choose predicted, synthetic or difference")
    else:
        raise UserError(f"protocol.class_index is {class_index!r}; choose one of {', '.join(CAM_CLASSES)}")
    return class_activation_map(features, weight, chosen)


def predict_batch(backbone: Backbone, batch: FaceBatch, class_index: str) -> Prediction:
    """One forward: logits, and the CAM in [0, 1] of the class that ``class_index`` names."""
    output = backbone(batch.image)
    return Prediction(
        logits=output.logits,
        labels=batch.label,
        maps=min_max(detector_cam(output, class_index, batch.label)),
        human_maps=batch.human_map,
        has_map=batch.has_map,
    )
