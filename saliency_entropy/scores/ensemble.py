"""Several detectors that judge as one, such as the seeds of a method."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from saliency_entropy.detector import Detection, Detector
from saliency_entropy.errors import UserError
from saliency_entropy.scores.named_files import named_checkpoints


class Ensemble(Detector):
    """The mean of detectors: of logits, probabilities (Lakshminarayanan et al., 2017), CAMs and their entropies.

    An image is called synthetic where the mean probability reaches the mean of the members' thresholds, each fixed on
    validation; the probabilities are calibrated if all members are. Raises UserError for ``members`` (two at least, by
    their paths) that see an image in different ways.
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

    @property
    def calibrated(self) -> bool:
        return all(member.card.temperature for member in self.members)

    @property
    def probability_threshold(self) -> float | None:
        """The mean of the members' thresholds, of calibrated probabilities if all have them; None if one has none."""
        thresholds = [member.card.probability_threshold(self.calibrated) for member in self.members]
        return None if None in thresholds else float(np.mean(thresholds))

    def _mean(self, found: Sequence[Detection]) -> Detection:
        judged = "calibrated_probability" if self.calibrated else "probability_synthetic"
        names = {"logit_real", "logit_synthetic", "probability_synthetic", "cam_entropy", judged}
        means = {name: float(np.mean([getattr(one, name) for one in found])) for name in names}
        decision, threshold = None, self.probability_threshold
        if threshold is not None and np.isfinite(means[judged]):
            decision = "synthetic" if means[judged] >= threshold else "real"
        spread = float(np.std([one.probability_synthetic for one in found], ddof=1))
        return Detection(cam=np.mean([one.cam for one in found], axis=0), decision=decision, spread=spread, **means)


def read_detector(given: str | Sequence[str], device: str) -> Detector:
    """The detector of a checkpoint, or the :class:`Ensemble` of several, by :func:`named_checkpoints`."""
    detectors = {path: Detector.from_checkpoint(path, device) for path in named_checkpoints(given)}
    return Ensemble(detectors) if len(detectors) > 1 else next(iter(detectors.values()))


def _sees(detector: Detector) -> str:
    height, width = detector.backbone.cam_size
    return f"{detector.backbone.image_size} px ({detector.backbone.interpolation}, CAM {height} x {width})"
