"""What several detectors say of the same images, as a part of a page."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from saliency_entropy.detector import Detection, Detector
from saliency_entropy.page.overlay import cam_overlay
from saliency_entropy.page.web_page import data_uri
from saliency_entropy.page.wording import spread
from saliency_entropy.scores.ensemble import Ensemble, read_detector
from saliency_entropy.scores.named_files import matching, named_checkpoints
from saliency_entropy.scores.predict import decision_rule

MOST_IMAGES = 32  # at a time, so that a page stays below some 10 MB


@dataclass(frozen=True)
class View:
    """A detector's judgement of an image, with the pictures that a page lays over each other."""

    detector: str
    detection: Detection
    image: str
    cam: str
    score: str


def named_detectors(given: str | Sequence[str], device: str) -> dict[str, Detector]:
    """The detectors by their names: one for each path of a list and for each that a pattern matches; a method's folder
    is the mean of its seeds. Raises UserError if one cannot be read."""
    paths = [path for name in ([given] if isinstance(given, str) else given) for path in _places(name)]
    detectors = {path: read_detector(str(path), device) for path in dict.fromkeys(paths)}
    return {_name(path, detector): detector for path, detector in detectors.items()}


def judged(detectors: Mapping[str, Detector], images: Mapping[Path, str]) -> str:
    """HTML of what each detector says of the first :data:`MOST_IMAGES` images, files with what is known of them."""
    paths, rows = list(images)[:MOST_IMAGES], []
    for found in zip(*(detector.judge(paths) for detector in detectors.values()), strict=True):
        path = found[0][0]
        # Where the file lies on the server says nothing to whoever dropped it.
        cells = [
            detection.replace(f"{path.parent}{os.sep}", "")
            if isinstance(detection, str)
            else _view(name, pixels, detection)
            for name, (_, pixels, detection) in zip(detectors, found, strict=True)
        ]
        if all(cell == cells[0] for cell in cells) and isinstance(cells[0], str):
            cells = cells[:1]  # the file's own fault, not the detectors'
        rows.append((path.name, images[path], cells))
    environment = Environment(
        loader=PackageLoader(__package__, ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    rules = {name: decision_rule(detector) for name, detector in detectors.items()}
    template = environment.get_template("side_by_side.html.j2")
    return template.render(rows=rows, rules=rules, most=MOST_IMAGES, left_out=len(images) - len(paths))


def _places(name: str) -> list[Path]:
    # A study's folder holds other things beside its methods, which runs/demo/* matches, too.
    matches = [path for path in matching(name) if path.suffix == ".ckpt" or named_checkpoints(str(path)) != [path]]
    return matches or [Path(name)]


def _name(path: Path, detector: Detector) -> str:
    title = (detector.card.run or {}).get("title", "detector")
    mean = f", mean of {len(detector.members)}" if isinstance(detector, Ensemble) else ""
    return f"{title}{mean}: {str(path).removesuffix('/checkpoints/best.ckpt')}"


def _view(name: str, pixels: np.ndarray, detection: Detection) -> View:
    image, cam = Image.fromarray(pixels), cam_overlay(pixels, detection.cam, strength=1)
    std = np.nan if detection.spread is None else detection.spread
    score = spread(detection.probability_synthetic, std, digits=4)
    return View(name, detection, data_uri(image, "png"), data_uri(cam, "png"), score)
