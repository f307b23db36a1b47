"""What a detector says of a batch of images, and the columns of it that a score table keeps."""

import torch
from torch import Tensor, nn

from saliency_entropy.backbone import Backbone
from saliency_entropy.cam import detector_cam
from saliency_entropy.data import FaceBatch
from saliency_entropy.functional import min_max, spatial_entropy
from saliency_entropy.losses import Prediction


def predict_batch(backbone: Backbone, batch: FaceBatch, class_index: str) -> Prediction:
    """One forward: logits and, of the class that ``class_index`` names, the CAM in [0, 1]."""
    output = backbone(batch.image)
    return Prediction(
        logits=output.logits,
        labels=batch.label,
        maps=min_max(detector_cam(output, class_index, batch.label)),
        human_maps=batch.human_map,
        has_map=batch.has_map,
    )


def score_columns(prediction: Prediction) -> dict[str, Tensor]:
    """Of each image, ``(B,)`` float32: both logits, the CAM's entropy in nats, its likeness to the human map (mean
    squared error and Pearson's correlation; NaN where there is none)."""
    maps, human_maps = prediction.maps.flatten(1), prediction.human_maps.flatten(1)
    centred = maps - maps.mean(dim=1, keepdim=True)
    human_centred = human_maps - human_maps.mean(dim=1, keepdim=True)
    missing = torch.where(prediction.has_map, 0.0, torch.nan)
    return {
        "logit_real": prediction.logits[:, 0].float(),
        "logit_synthetic": prediction.logits[:, 1].float(),
        "cam_entropy": spatial_entropy(prediction.maps),
        "cam_human_mse": (maps - human_maps).square().mean(dim=1) + missing,
        "cam_human_correlation": nn.functional.cosine_similarity(centred, human_centred) + missing,
    }
