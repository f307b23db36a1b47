"""A detector as ONNX, torch.export or safetensors; each file is compared with the checkpoint before any is written."""

import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from saliency_entropy.backbone import Backbone
from saliency_entropy.cam import detector_cam
from saliency_entropy.data.drawn.drawing import draw_face
from saliency_entropy.data.drawn.face import random_face
from saliency_entropy.data.images import load_image
from saliency_entropy.data.table import LABELS
from saliency_entropy.detector import Detection, Detector
from saliency_entropy.errors import UserError, extra, in_one_line, writing
from saliency_entropy.functional import EPSILON, min_max, spatial_entropy
from saliency_entropy.run.checkpoint import read_checkpoint
from saliency_entropy.run.model_file import RULE, ModelCard
from saliency_entropy.run.result import versions
from saliency_entropy.run.whole_files import write_atomically
from saliency_entropy.scores.named_files import listed_images, named_checkpoints
from saliency_entropy.use.hub_card import hub_card

log = logging.getLogger(__name__)
for library in ("onnxscript", "onnx_ir"):
    logging.getLogger(library).setLevel(logging.WARNING)

OUTPUTS = ("logits", "probability", "cam", "cam_entropy")
TOLERANCE = 1e-4  # of values up to 1; of larger ones, relative
SHAPES = ({0: torch.export.Dim("batch")},)
Exported = tuple[dict[str, bytes], Callable[[np.ndarray], list[np.ndarray]]]  # the files by name; the outputs by them
IMAGES = 8  # that an exported file is compared on; in batches of two sizes


class ExportedDetector(nn.Module):
    """What an exported file computes: as :class:`~saliency_entropy.detector.Detector`, but in one graph."""

    def __init__(self, backbone: Backbone, class_index: str, temperature: float) -> None:
        super().__init__()
        self.backbone, self.class_index, self.temperature = backbone, class_index, temperature

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """:data:`OUTPUTS`: ``(B, 2)`` logits of real and synthetic, ``(B,)`` probability of synthetic, ``(B, h, w)``
        CAM in [0, 1] and ``(B,)`` its entropy in nats, of ``(B, S, S, 3)`` uint8 RGB images."""
        output = self.backbone(image.permute(0, 3, 1, 2))
        maps = min_max(detector_cam(output, self.class_index))
        difference = output.logits[:, 1] - output.logits[:, 0]
        # Optimizers of ONNX graphs drop an addition of 1e-10, and the logarithm of an empty cell would not be finite.
        entropy = spatial_entropy(maps.clamp(min=EPSILON))
        return output.logits, torch.sigmoid(difference / self.temperature), maps, entropy


def export(cfg: DictConfig) -> None:
    """Write ``cfg.checkpoint`` in each of ``cfg.formats``, with a model card, to ``cfg.output``. Raises UserError, with
    nothing written, if the checkpoint or the output cannot be used, a library is missing, or a file disagrees."""
    formats = list(cfg.formats)
    if not formats or not set(formats) <= set(FORMATS):
        raise UserError(f"formats is {formats}; give some of {', '.join(FORMATS)}")
    path, *others = named_checkpoints(str(cfg.checkpoint))
    if others:
        raise UserError(f"checkpoint={cfg.checkpoint} names {len(others) + 1} detectors; export one at a time")
    output = Path(str(cfg.output))
    with writing(f"output={output}", "set it to a folder that you may write to"):
        output.mkdir(parents=True, exist_ok=True)
        detector = Detector.from_checkpoint(path)
        config = read_checkpoint(path, "give the best.ckpt of a run")["detector"]["backbone"]
        about = description(config, detector.class_index, detector.card, str(cfg.license))
        model = ExportedDetector(detector.backbone, detector.class_index, detector.card.temperature or 1.0).eval()
        images, kind = _images(cfg.images, detector.backbone)
        expected = _expected(detector(torch.from_numpy(images).permute(0, 3, 1, 2)))
        if not all(np.isfinite(value).all() for value in expected):
            raise UserError(f"{path}: the detector's scores are not finite, as those of a run that has diverged")
        try:
            json.dumps(about)
            hub_card(about, [])
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{path} describes no run of this package ({in_one_line(error)}); give another") from None
        files: dict[str, Any] = {}
        for name in formats:
            written, run = FORMATS[name](model, images, about)
            furthest = _compare(name, expected, run(images))
            _compare(name, [value[:1] for value in expected], run(images[:1]))  # the size of a batch is free
            files |= written
            log.info("%s: within %.1e of the checkpoint on %d %s", name, furthest, len(images), kind)
        files["README.md"] = hub_card(about, list(files))
        for file, data in files.items():
            write_atomically(output / file, data)
    log.info("written: %s", ", ".join(str(output / file) for file in files))


def description(backbone: Mapping[str, Any], class_index: str, card: ModelCard, licence: str) -> dict[str, Any]:
    """All that an application needs to know of a detector, as plain values: the content of ``model.json``."""
    # Where the weights began says where somebody's files lie, and the network is not to look for them again.
    network = {**backbone, "pretrained": False, "weights_package": None, "checkpoint": None}
    size = backbone["image_size"]
    return {
        "labels": list(LABELS),
        "license": licence,
        "image_size": size,
        "input": f"(B, {size}, {size}, 3) uint8 RGB, upright; normalised inside",
        "resize": f"Pillow's {backbone['interpolation']} filter, to {size} x {size} without crop",
        "outputs": list(OUTPUTS),
        "class_index": class_index,
        "threshold": card.threshold,
        "threshold_rule": RULE,
        "temperature": card.temperature,
        "probability_threshold": card.probability_threshold(card.temperature is not None),
        "problem": card.problem,
        "caveat": card.caveat,
        "validation_images": card.validation_images,
        "backbone": network,
        "run": card.run,
        "exported_with": versions(),
    }


def _images(given: str | None, backbone: Backbone) -> tuple[np.ndarray, str]:
    """``(N, S, S, 3)`` uint8 images to compare on, and what they are."""
    size = backbone.image_size
    if given is None:
        random = np.random.default_rng(0)
        faces = np.stack([draw_face(random_face(random), size, random) for _ in range(IMAGES)])
        return faces.round().clip(0, 255).astype(np.uint8), "drawn faces"
    paths, _ = listed_images(Path(given), Path(given) / "overlays")
    return np.stack([load_image(path, size, backbone.interpolation) for path in paths[:IMAGES]]), f"images of {given}"


def _expected(detections: Sequence[Detection]) -> list[np.ndarray]:
    """:data:`OUTPUTS` as the detector itself gives them."""
    rows = []
    for one in detections:
        plain, calibrated = one.probability_synthetic, one.calibrated_probability
        logits = (one.logit_real, one.logit_synthetic)
        rows.append((logits, plain if calibrated is None else calibrated, one.cam, one.cam_entropy))
    return [np.array(column) for column in zip(*rows, strict=True)]


def _compare(name: str, expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """The largest distance of :data:`OUTPUTS`, relative where they are above 1. Raises UserError if it is too large."""
    furthest = 0.0
    for output, one, other in zip(OUTPUTS, expected, found, strict=True):
        distance = float(np.max(np.abs(one - other) / np.maximum(1, np.abs(one))))
        if not distance <= TOLERANCE:  # not a number is not close, either
            raise UserError(
                f"{name}: {output} differs from the checkpoint's by {distance:.1e}, more than {TOLERANCE:.0e}, and "
                "nothing was written; use another format, and report it with the versions of your libraries"
            )
        furthest = max(furthest, distance)
    return furthest


def _program(model: ExportedDetector, images: np.ndarray) -> torch.export.ExportedProgram:
    example = torch.from_numpy(images[[0, -1]])  # two: one image would fix the size of a batch
    return torch.export.export(model, (example,), dynamic_shapes=SHAPES)


def _onnx(model: ExportedDetector, images: np.ndarray, about: Mapping[str, Any]) -> Exported:
    with extra("export", "formats=[onnx]", ", or leave onnx out of formats"):
        runtime, _, _ = map(importlib.import_module, ("onnxruntime", "onnxscript", "onnx"))
    proto = torch.onnx.export(
        _program(model, images), dynamo=True, input_names=["image"], output_names=list(OUTPUTS),
        dynamic_shapes=SHAPES, verbose=False,
    ).model_proto  # fmt: skip
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    data = proto.SerializeToString()
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return {"model.onnx": data}, lambda images: session.run(list(OUTPUTS), {"image": images})


def _torch_export(model: ExportedDetector, images: np.ndarray, about: Mapping[str, Any]) -> Exported:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor found", UserWarning)  # of weights laid out channels last
        torch.export.save(_program(model, images), data := io.BytesIO(), extra_files={"model.json": json.dumps(about)})
    data.seek(0)
    loaded = torch.export.load(data).module()
    return {"model.pt2": data.getvalue()}, lambda images: _arrays(loaded, images)


def _safetensors(model: ExportedDetector, images: np.ndarray, about: Mapping[str, Any]) -> Exported:
    from safetensors.torch import load, save

    # Copies of their own: the layout for channels_last is not that of a file.
    weights = {name: value.contiguous().clone() for name, value in model.backbone.state_dict().items()}
    files = {"model.safetensors": save(weights), "model.json": (json.dumps(about, indent=2) + "\n").encode()}
    backbone = Backbone(**json.loads(files["model.json"])["backbone"])
    backbone.load_state_dict(load(files["model.safetensors"]))
    loaded = ExportedDetector(backbone, model.class_index, model.temperature).eval()
    return files, lambda images: _arrays(loaded, images)


@torch.no_grad()
def _arrays(model: nn.Module, images: np.ndarray) -> list[np.ndarray]:
    return [value.numpy() for value in model(torch.from_numpy(images))]


FORMATS = {"onnx": _onnx, "torch_export": _torch_export, "safetensors": _safetensors}
