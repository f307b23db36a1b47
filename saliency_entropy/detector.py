"""A trained detector, for use without Hydra or a Trainer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_entropy.backbone import CLASSES, IMAGE_SIZES, Backbone
from saliency_entropy.cam import CAM_CLASSES, detector_cam
from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.functional import min_max, spatial_entropy
from saliency_entropy.run.checkpoint import read_checkpoint, refuse_endless
from saliency_entropy.run.model_file import ModelCard, read_model_card, refuse_newer
from saliency_entropy.weights import timm_network

MOST_VALUES = 200  # in the description of a network
SIZES = ("name", "timm_name", "output_stride", "timm_options")  # the arguments that decide a network's tensors


@dataclass(frozen=True)
class Detection:
    """What a detector says about one image.

    A network that has diverged gives figures that are not finite (NaN); :attr:`verdict` is None then.

    Attributes:
        logit_real, logit_synthetic: the two logits; AUROC ranks by the second, and by their difference.
        probability_synthetic: their softmax, 0 to 1.
        cam: ``(h, w)`` float32, the class activation map in [0, 1].
        cam_entropy: its entropy in nats.
        calibrated_probability: the probability at the temperature that was fitted on validation; None without one.
        decision: ``real`` or ``synthetic`` at the threshold that was fixed on validation; None without one.
        spread: of an ensemble, the standard deviation of its members' ``probability_synthetic``; None of one detector.
    """

    logit_real: float
    logit_synthetic: float
    probability_synthetic: float
    cam: np.ndarray
    cam_entropy: float
    calibrated_probability: float | None = None
    decision: str | None = None
    spread: float | None = None

    @property
    def focus_area(self) -> float:
        """``exp(H)``, in cells of the CAM grid."""
        return float(np.exp(self.cam_entropy))

    @property
    def verdict(self) -> str | None:
        """``real`` or ``synthetic``, the class of the larger logit; None if a logit or the entropy is not finite."""
        if not np.isfinite([self.logit_real, self.logit_synthetic, self.cam_entropy]).all():
            return None
        return "synthetic" if self.logit_synthetic > self.logit_real else "real"


class Detector:
    """A backbone with its trained weights, in evaluation mode.

    Args:
        backbone: the network, its weights loaded.
        class_index: the class whose CAM is given, see :func:`~saliency_entropy.cam.detector_cam`.
        device: the device that the network runs on; ``auto`` is the GPU, if there is one.
        card: the threshold, the temperature and the origin of the network, if they are known.

    Raises:
        UserError: there is no such device.
    """

    def __init__(
        self,
        backbone: Backbone,
        class_index: str = "predicted",
        device: str | torch.device = "cpu",
        card: ModelCard | None = None,
    ) -> None:
        self.device = usable_device(device)
        self.backbone = backbone.eval().requires_grad_(False).to(self.device)
        self.class_index = class_index
        self.card = card or ModelCard()

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "cpu") -> "Detector":
        """The detector that a run left in ``checkpoints/best.ckpt``.

        Nothing that the file names is imported or executed: it is read with ``weights_only=True``, and the network
        is rebuilt from plain values that are checked one by one.

        Raises:
            UserError: the file is missing, damaged, holds code, or is no checkpoint of this package.
        """
        backbone, class_index, content = read_network(Path(path))
        # The true class of an image that is to be judged is not known.
        known = "predicted" if class_index == "true" else class_index
        return cls(backbone, known, device, read_model_card(Path(path), content))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Detection]:
        """Judge images.

        Args:
            images: ``(B, 3, S, S)`` RGB, uint8, or float in [0, 1]; S is the backbone's image size.

        Returns:
            One :class:`Detection` per image.
        """
        output = self.backbone(images.to(self.device))
        maps = min_max(detector_cam(output, self.class_index))
        probabilities = output.logits.float().softmax(dim=1)[:, 1]
        columns = (output.logits.float(), probabilities, maps, spatial_entropy(maps))
        return [
            self._detection(*logits.tolist(), probability.item(), cam.numpy(), entropy.item())
            for logits, probability, cam, entropy in zip(*(column.cpu() for column in columns), strict=True)
        ]

    def _detection(self, real: float, synthetic: float, *figures: Any) -> Detection:
        difference = synthetic - real
        return Detection(real, synthetic, *figures, self.card.calibrated(difference), self.card.decision(difference))

    def judge(
        self, paths: Iterable[Path], batch_size: int = 32
    ) -> Iterator[tuple[Path, np.ndarray | None, Detection | str]]:
        """Judge image files, a batch at a time.

        Yields:
            ``(path, pixels, detection)`` in the order of the paths, with the pixels ``(S, S, 3)`` uint8 that the
            network saw; for a file that cannot be read, or whose scores are not finite, ``(path, None, reason)``.
        """
        # Imported here, because its package imports the LightningDataModule, which the detector itself does not need.
        from saliency_entropy.data.ahead import loaded_batches

        network = self.backbone
        for batch in loaded_batches(paths, batch_size, network.image_size, network.interpolation, IMAGE_SIZES[0]):
            yield from self._judged(batch)

    def _judged(
        self, batch: list[tuple[Path, np.ndarray | str]]
    ) -> Iterator[tuple[Path, np.ndarray | None, Detection | str]]:
        pixels = [image for _, image in batch if not isinstance(image, str)]
        detections = iter(self(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)) if pixels else [])
        for path, image in batch:
            if isinstance(image, str):
                yield path, None, image
            elif (detection := next(detections)).verdict is None:
                yield path, None, f"{path}: the detector's scores are not finite, as those of a run that has diverged"
            else:
                yield path, image, detection


def read_network(path: Path) -> tuple[Backbone, str, dict[str, Any]]:
    """The network in a run's checkpoint, with its weights, the class whose CAM the run takes (``class_index``), and the
    checkpoint's content; read, and refused, as by :meth:`Detector.from_checkpoint`."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, but not that of a run or of a method's runs; give the best.ckpt of a run")
    checkpoint = read_checkpoint(path, "give the best.ckpt of a run")
    refuse_newer(path, checkpoint)
    described = checkpoint.get("detector")
    weights = checkpoint.get("state_dict")
    if not isinstance(described, dict) or not isinstance(weights, dict):
        raise UserError(f"{path} is not a detector of this package: give the best.ckpt of a run")
    config, class_index = described.get("backbone"), described.get("class_index")
    if not isinstance(config, dict) or class_index not in CAM_CLASSES:
        raise UserError(f"{path} does not describe its network: give the best.ckpt of a run")
    refuse_endless(path, "network", config, MOST_VALUES)
    try:
        # Sizes first, which allocates nothing: a name alone may ask for billions of parameters.
        with torch.device("meta"):
            sizes = timm_network(**{key: config.get(key) for key in SIZES}, pretrained=False)
            sizes.reset_classifier(CLASSES)
        parameters = sum(value.numel() for value in sizes.state_dict().values())
        if parameters > path.stat().st_size:
            raise ValueError(f"it has {parameters} parameters, more than the file has bytes")
        # The weights come from this file; nothing else is fetched or opened.
        backbone = Backbone(**config | {"pretrained": False, "weights_package": None, "checkpoint": None})
    except Exception as error:  # timm and PyTorch may raise anything on values that describe no network
        raise UserError(f"{path} does not describe a network of this package ({in_one_line(error, 200)})") from None
    try:
        backbone.load_state_dict(
            {key.removeprefix("backbone."): value for key, value in weights.items() if key.startswith("backbone.")}
        )
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(
            f"the weights in {path} do not fit the network it describes ({in_one_line(error, 200)})"
        ) from None
    return backbone, class_index, checkpoint


def usable_device(device: str | torch.device) -> torch.device:
    """The device of this name; ``auto`` is the GPU, if there is one. Raises UserError if there is no such device."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(automatic if device == "auto" else device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:  # PyTorch raises each of these for some device
        raise UserError(
            f"device={device} cannot be used ({in_one_line(error)}); use cpu, or cuda on a machine with a GPU"
        ) from None
    return found
