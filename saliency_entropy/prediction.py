"""Scores, focus entropy and CAM overlays of image files."""

import logging
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig

from saliency_entropy.data.images import EXTENSIONS
from saliency_entropy.detector import Detection, Detector
from saliency_entropy.errors import UserError
from saliency_entropy.overlay import cam_overlay
from saliency_entropy.run_folder import write_atomically
from saliency_entropy.study.tables import neutralised

log = logging.getLogger(__name__)


def predict(cfg: DictConfig) -> None:
    """Judge ``cfg.images`` with ``cfg.checkpoint`` and write ``predictions.csv`` and overlays below ``cfg.output``.

    Raises:
        UserError: the checkpoint or the images cannot be used; files that cannot be read are named after the others
            have been judged and written.
    """
    images, output = Path(str(cfg.images)), Path(str(cfg.output))
    device = cfg.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    detector = Detector.from_checkpoint(cfg.checkpoint, device)
    paths = image_files(images)
    base = images if images.is_dir() else images.parent
    rows, broken = [], []
    for path, pixels, detection in detector.judge(paths, cfg.batch_size):
        if not isinstance(detection, Detection):
            broken.append(detection)
            rows.append({"path": str(path), "error": detection})
            continue
        rows.append(
            {
                "path": str(path),
                "verdict": "synthetic" if detection.logit_synthetic > detection.logit_real else "real",
                "probability_synthetic": detection.probability_synthetic,
                "logit_real": detection.logit_real,
                "logit_synthetic": detection.logit_synthetic,
                "cam_entropy": detection.cam_entropy,
                "focus_area": detection.focus_area,
            }
        )
        if cfg.overlays:
            # The suffix stays in the name: a.jpg and a.png are two images.
            overlay = output / "overlays" / path.relative_to(base).with_name(f"{path.name}.png")
            overlay.parent.mkdir(parents=True, exist_ok=True)
            cam_overlay(pixels, detection.cam).save(overlay)
    table = pd.DataFrame(rows)
    write_atomically(output / "predictions.csv", neutralised(table).to_csv(index=False))
    log.info("%s", table.drop(columns=["logit_real", "logit_synthetic"], errors="ignore").head(20).to_string())
    if len(table) > 20:
        log.info("... %d more images", len(table) - 20)
    log.info("written: %s", output)
    if broken:
        raise UserError(
            f"{len(broken)} of {len(paths)} images could not be read and have no score, the first of them: {broken[0]}"
        )


def image_files(images: Path) -> list[Path]:
    """The files that ``images`` names: itself, the images below a folder, or column ``path`` of a CSV.

    Raises:
        UserError: there are none.
    """
    if images.is_dir():
        found = sorted(path for path in images.rglob("*") if path.suffix.lower() in EXTENSIONS)
    elif images.suffix.lower() == ".csv" and images.is_file():
        table = pd.read_csv(images, dtype=str, keep_default_na=False)
        if "path" not in table:
            raise UserError(f"{images} has no column path (its columns: {', '.join(table.columns)})")
        found = [images.parent / path for path in table["path"]]
    elif images.is_file():
        found = [images]
    else:
        raise UserError(f"images={images} does not exist; give an image, a folder or a CSV with a column path")
    if not found:
        raise UserError(f"images={images} holds no image ({', '.join(EXTENSIONS)})")
    return found
