"""Metrics on logits."""

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat


def auroc(scores: Tensor | np.ndarray, labels: Tensor | np.ndarray) -> float:
    """Exact area under the ROC curve; equal scores count one half.

    Args:
        scores: ``(N,)``, larger for synthetic (logit 1 in the paper). Only their order counts.
        labels: ``(N,)``, 0 = real, 1 = synthetic.

    Returns:
        In [0, 1]; NaN if there is only one class.
    """
    scores, labels = torch.as_tensor(scores), torch.as_tensor(labels)
    if labels.min() == labels.max():
        return float("nan")
    # torchmetrics squashes scores outside [0, 1] with a sigmoid, whose float32 values saturate into ties.
    # Ranks in [0, 1] carry the same order and are left as they are.
    ranks = torch.unique(scores, return_inverse=True)[1].double()
    return float(binary_auroc(ranks / ranks.max().clamp(min=1), labels.long()))


class AUROC(Metric):
    """:func:`auroc` of everything seen in an epoch, gathered over processes."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, labels: Tensor) -> None:
        self.scores.append(scores.detach().float())
        self.labels.append(labels)

    def compute(self) -> Tensor:
        scores, labels = dim_zero_cat(self.scores), dim_zero_cat(self.labels)
        return torch.tensor(auroc(scores, labels), device=scores.device)
