"""Several detectors that judge as one, such as the seeds of a method."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from saliency_entropy.detector import Detection, Detector
from saliency_entropy.errors import UserError
from saliency_entropy.scores.named_files import named_checkpoints


class Ensemble(Detector):
    """Detectors of one image size, whose mean is given: of logits, of probabilities (Lakshminarayanan et al., 2017), of
    CAMs and of their entropies.

    An image is called synthetic where the mean probability reaches the mean of the members' thresholds, each of which
    is fixed on validation; the probabilities are calibrated if all members are.

    Args:
        members: the detectors, two at least, with their paths.

    Raises:
        UserError: two of them see an image in different ways.
    """

    def __init__(self, members: dict[Path, Detector]) -> None:
        (first, detector), *others = members.items()
        self.members, self.backbone, self.card = list(members.values()), detector.backbone, detector.card
        for path, other in others:
            if _sees(other) != _sees(detector):
                raise UserError(
                    f"{first} and {path} see images of {_sees(detector)} and {_sees(other)}, and judge no image "
                    "together; give checkpoints of one backbone"
                )

    def __call__(self, images: Tensor) -> list[Detection]:
        """As a detector's; ``spread`` is that of ``probability_synthetic`` (divided by N - 1)."""
        return [self._mean(found) for found in zip(*(member(images) for member in self.members), strict=True)]

    def _mean(self, found: Sequence[Detection]) -> Detection:
        def mean(name: str) -> float:
            return float(np.mean([getattr(one, name) for one in found]))

        cards = [member.card for member in self.members]
        calibrated = mean("calibrated_probability") if all(card.temperature for card in cards) else None
        probability = mean("probability_synthetic")
        decision = None
        if all(card.threshold is not None for card in cards) and np.isfinite(probability):
            thresholds = [card.probability_threshold(calibrated is not None) for card in cards]
            reached = (probability if calibrated is None else calibrated) >= np.mean(thresholds)
            decision = "synthetic" if reached else "real"
        return Detection(
            mean("logit_real"),
            mean("logit_synthetic"),
            probability,
            np.mean([one.cam for one in found], axis=0),
            mean("cam_entropy"),
            calibrated,
            decision,
            float(np.std([one.probability_synthetic for one in found], ddof=1)),
        )


def read_detector(given: str | Sequence[str], device: str) -> Detector:
    """The detector of a checkpoint; the :class:`Ensemble` of several, which
    :func:`~saliency_entropy.scores.named_files.named_checkpoints` finds. Raises UserError as these."""
    detectors = {path: Detector.from_checkpoint(path, device) for path in named_checkpoints(given)}
    return Ensemble(detectors) if len(detectors) > 1 else next(iter(detectors.values()))


def _sees(detector: Detector) -> str:
    height, width = detector.backbone.cam_size
    return f"{detector.backbone.image_size} px ({detector.backbone.interpolation}, CAM {height} x {width})"
