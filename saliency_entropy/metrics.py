"""Metrics on logits and maps."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from saliency_entropy.functional import spatial_entropy
from saliency_entropy.losses import Prediction

# What a generator is called that nobody knows, in lower case. A score table of an older version holds them as names.
NOT_KNOWN = ("nan", "none", "null", "unknown", "?")


def auroc(scores: Tensor | np.ndarray, labels: Tensor | np.ndarray) -> float:
    """Exact area under the ROC curve; equal scores count one half.

    Args:
        scores: ``(N,)``, larger for synthetic (logit 1 in the paper). Only their order counts.
        labels: ``(N,)``, 0 = real, 1 = synthetic.

    Returns:
        In [0, 1]; NaN if there is only one class, or a score is not finite.
    """
    # Copies: a column of a table is read-only memory, which tensors cannot share.
    scores, labels = (torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x for x in (scores, labels))
    scores, labels = scores.cpu(), labels.cpu()  # float64, which some accelerators lack
    if labels.min() == labels.max() or not scores.isfinite().all():
        return float("nan")
    # torchmetrics squashes scores outside [0, 1] with a sigmoid, whose float32 values saturate into ties.
    # Ranks in [0, 1] carry the same order and are left as they are.
    ranks = torch.unique(scores, return_inverse=True)[1].double()
    return float(binary_auroc(ranks / ranks.max().clamp(min=1), labels.long()))


def unseen_images(scores: pd.DataFrame, train_generators: list[str], relatives: Sequence[str] = ()) -> np.ndarray:
    """``(N,)`` bool: the synthetic images whose generator is known not to be in training, nor a relative of one."""
    seen = {name: seen_in_training(name, train_generators, relatives) for name in scores["generator"].unique()}
    return ((scores["label"] == "synthetic") & (scores["generator"].map(seen) == "no")).to_numpy()


def is_known(generator: str) -> bool:
    """Whether the name of one generator is that of any: not empty and not one of :data:`NOT_KNOWN`, in any case."""
    return generator.strip().lower() not in ("", *NOT_KNOWN)


def seen_in_training(generator: str, train_generators: list[str], relatives: Sequence[str] = ()) -> str:
    """``yes``, ``no``, ``relative`` (one of ``relatives``: of the family of a generator in training) or ``not known``:
    an image may name no generator or one of :data:`NOT_KNOWN`, or ``a+b`` (either a or b) that are not alike in this.
    """
    parts = [part for part in generator.split("+") if part]
    seen = {"yes" if part in train_generators else "relative" if part in relatives else "no" for part in parts}
    return seen.pop() if len(seen) == 1 and all(map(is_known, parts)) else "not known"


class AUROC(Metric):
    """:func:`auroc` of all images of an epoch, gathered over processes."""

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


class SplitMetrics(nn.Module):
    """The figures of one split over one epoch: every loss term, accuracy, AUROC (by the logit of "synthetic" and by
    the margin, the difference of both logits) and the entropy of the CAMs.

    A batch without human maps adds 0 to the total for the terms that need them; the means of these terms leave it out.
    So the total of a split without any maps (the validation images of the paper's data) cannot be compared with that of
    another split.

    Args:
        terms: names of the loss terms.
        human_terms: the terms that are averaged over images with a human map only.
    """

    def __init__(self, terms: Sequence[str], human_terms: Sequence[str]) -> None:
        super().__init__()
        self.human_names = {*human_terms, "human_entropy"}
        names = ["loss", *terms, "accuracy", "cam_entropy", "human_entropy", "human_map_share"]
        # Sums and counts rather than MeanMetric, which looks for NaN in every step, so that a GPU waits, and with
        # nan_strategy="disable" ignores the weights.
        self.sums = nn.ModuleDict({name: SumMetric(nan_strategy="disable") for name in names})
        self.images = SumMetric(nan_strategy="disable")
        self.images_with_map = SumMetric(nan_strategy="disable")
        self.aurocs = nn.ModuleDict({"auroc": AUROC(), "auroc_margin": AUROC()})

    @torch.no_grad()
    def update(self, total: Tensor, terms: Mapping[str, Tensor], prediction: Prediction) -> None:
        has_map = prediction.has_map
        images, with_map = len(has_map), has_map.sum()
        values = {
            **terms,
            "loss": total,
            "cam_entropy": spatial_entropy(prediction.maps).mean(),
            "human_entropy": (spatial_entropy(prediction.human_maps) * has_map).sum() / with_map.clamp(min=1),
            "human_map_share": has_map.float().mean(),
        }
        for name, value in values.items():
            self.sums[name].update(value.float() * (with_map if name in self.human_names else images))
        # A count, not a mean times a number: epochs with as many right answers must be equal to the last bit.
        self.sums["accuracy"].update((prediction.logits.argmax(dim=1) == prediction.labels).sum())
        self.images.update(images)
        self.images_with_map.update(with_map)
        real, synthetic = prediction.logits.float().unbind(dim=1)
        self.aurocs["auroc"].update(synthetic, prediction.labels)
        self.aurocs["auroc_margin"].update(synthetic - real, prediction.labels)

    def compute(self) -> dict[str, Tensor]:
        """The epoch's figures by name; NaN where no image counted."""
        counts = {name: self.images_with_map if name in self.human_names else self.images for name in self.sums}
        means = {name: total.compute() / counts[name].compute() for name, total in self.sums.items()}
        return means | {name: metric.compute() for name, metric in self.aurocs.items()}

    def reset(self) -> None:
        for metric in (*self.sums.values(), self.images, self.images_with_map, *self.aurocs.values()):
            metric.reset()


# The columns that a score table adds to those of the manifest.
SCORES = ("logit_real", "logit_synthetic", "cam_entropy", "cam_human_mse", "cam_human_correlation")


def score_columns(prediction: Prediction) -> dict[str, Tensor]:
    """The columns :data:`SCORES` of B images, each ``(B,)`` float32: both logits, the CAM's entropy in nats, and its
    likeness to the human map (mean squared error and Pearson's correlation; NaN where an image has no map)."""
    maps, human_maps = prediction.maps.flatten(1), prediction.human_maps.flatten(1)
    centred = maps - maps.mean(dim=1, keepdim=True)
    human_centred = human_maps - human_maps.mean(dim=1, keepdim=True)
    missing = torch.where(prediction.has_map, 0.0, torch.nan)
    values = (
        prediction.logits[:, 0].float(),
        prediction.logits[:, 1].float(),
        spatial_entropy(prediction.maps),
        (maps - human_maps).square().mean(dim=1) + missing,
        nn.functional.cosine_similarity(centred, human_centred) + missing,
    )
    return dict(zip(SCORES, values, strict=True))


def score_table(images: pd.DataFrame, scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """A score table: the manifest's rows of N images and, as further columns, each ``(N,)`` of :data:`SCORES`."""
    return images.reset_index(drop=True).assign(**{name: scores[name] for name in SCORES})
