"""Scores, focus entropy and CAM overlays of image files."""

import logging
import os
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from saliency_entropy.detector import Detection, Detector
from saliency_entropy.errors import UserError, in_one_line, is_no_room, listing, whole_number, writing
from saliency_entropy.page.overlay import cam_figure
from saliency_entropy.page.wording import count, csv_text
from saliency_entropy.run.model_file import RULE
from saliency_entropy.run.whole_files import written_whole
from saliency_entropy.scores.ensemble import Ensemble, read_detector
from saliency_entropy.scores.named_files import absolute, listed_images

log = logging.getLogger(__name__)

VERDICTS = ("verdict", "decision")  # of a Detection, as the figures
PROBABILITIES, FOCUS = ("probability_synthetic", "calibrated_probability", "spread"), ("cam_entropy", "focus_area")
FIGURES = (*PROBABILITIES, "logit_real", "logit_synthetic", *FOCUS)
COLUMNS = ("path", "error", *VERDICTS, *FIGURES)
SHOWN = ["path", "decision", *PROBABILITIES, *FOCUS, "error"]
FORMATS = {
    "csv": csv_text,
    "jsonl": partial(pd.DataFrame.to_json, orient="records", lines=True, force_ascii=False, double_precision=15),
    "parquet": partial(pd.DataFrame.to_parquet, index=False),
}


def predict(cfg: DictConfig) -> None:
    """Judge ``cfg.images`` with ``cfg.checkpoint``, and write ``predictions.csv`` (or of another ``cfg.format``) and
    overlays below ``cfg.output``.

    Raises:
        UserError: the checkpoint, the images or the output folder cannot be used; images that have no score, and
            overlays that cannot be written, are counted after all others are written.
    """
    images, output = Path(str(cfg.images)), Path(str(cfg.output))
    whole_number("batch_size", cfg.batch_size, 1)
    if cfg.format not in FORMATS:
        raise UserError(f"format is {cfg.format!r}; choose one of {', '.join(FORMATS)}")
    paths, further = listed_images(images, output / "overlays", COLUMNS)
    if cfg.format != "csv" and not further.columns.is_unique:
        raise UserError(f"{images} has two columns of one name, which format={cfg.format} cannot hold; use format=csv")
    detector = read_detector(OmegaConf.to_object(cfg).get("checkpoint"), cfg.device)
    log.info("%s", decision_rule(detector))
    base = images if images.is_dir() else images.parent
    overlays = _overlay_paths(paths, base, output / "overlays") if cfg.overlays else [None] * len(paths)
    with writing(f"output={output}", "set it to a folder that you may write to"):
        (output / "overlays" if cfg.overlays else output).mkdir(parents=True, exist_ok=True)
        broken, unwritten, rows = _judge(detector, paths, overlays, cfg.batch_size)
        table = pd.concat([pd.DataFrame(rows), further], axis=1)
        if "verdict" in table and not isinstance(detector, Ensemble):
            table = table.drop(columns="spread")
        _write_table(output / f"predictions.{cfg.format}", FORMATS[cfg.format](table))
    shown = table[[name for name in SHOWN if name in table]].head(20)
    log.info("%s", shown.map(lambda cell: _one_line(cell) if isinstance(cell, str) else cell).to_string())
    if len(table) > 20:
        log.info("... %d more images", len(table) - 20)
    log.info("written: %s", output)
    problems = []
    if broken:
        first = _one_line(broken[0])
        problems.append(f"{len(broken)} of {len(paths)} images without a score, the first of them: {first}")
    if unwritten:
        named = listing(map(_one_line, unwritten))
        problems.append(
            f"{count(len(unwritten), 'overlay')} could not be written: {named}; rename their images, or set output="
        )
    if problems:
        raise UserError("; ".join(problems))


def _write_table(file: Path, content: str | bytes) -> None:
    """Write the table whole. An earlier one that differs, such as another checkpoint's, is kept under its time."""
    content, kept = content.encode() if isinstance(content, str) else content, None
    if file.exists() and file.read_bytes() != content:
        written = datetime.fromtimestamp(file.stat().st_mtime)
        kept = file.with_name(f"{file.stem}-{written:%Y%m%d-%H%M%S}{file.suffix}")
        log.warning("the earlier %s, which differs, is kept as %s", file.name, kept)
    with written_whole(file, kept) as temporary:
        temporary.write_bytes(content)


def decision_rule(detector: Detector) -> str:
    """How an image is decided on, in a sentence, and what must be known before."""
    return "; ".join(filter(None, (_rule(detector), detector.card.caveat)))


def _rule(detector: Detector) -> str:
    card = detector.card
    if isinstance(detector, Ensemble):
        mean, threshold = f"the mean of {len(detector.members)} detectors", detector.probability_threshold
        if threshold is None:
            return f"no decision: {mean}, of which one has no threshold; the verdict is the larger logit's"
        shown = "calibrated_probability" if detector.calibrated else "probability_synthetic"
        return f"{mean}; decision: synthetic where {shown} is {threshold:.4f} or more, the mean of their own thresholds"
    if card.threshold is None:
        return f"no decision: the checkpoint has no threshold, since {card.problem}; the verdict is the larger logit's"
    calibrated = card.temperature is not None
    shown = "calibrated_probability" if calibrated else f"probability_synthetic (not calibrated, since {card.problem})"
    return f"decision: synthetic where {shown} is {card.probability_threshold(calibrated):.4f} or more, {RULE}"


def _judge(
    detector: Detector, paths: list[Path], overlays: Sequence[Path | None], batch_size: int
) -> tuple[list[str], list[str], list[dict[str, object]]]:
    """Why images have no score, and why overlays could not be written, for each of these; and a row of the table for
    each path."""
    rows: list[dict[str, object]] = []
    broken: list[str] = []
    unwritten: list[str] = []
    console = Console(stderr=True)
    judged = zip(detector.judge(paths, batch_size), overlays, strict=True)
    bar = track(judged, "images", len(paths), console=console, transient=True, disable=not console.is_terminal)
    for (path, pixels, detection), overlay in bar:
        if not isinstance(detection, Detection):
            broken.append(detection)
            rows.append({"path": _encodable(str(path)), "error": _encodable(detection)})
            continue
        verdicts = {name: getattr(detection, name) for name in VERDICTS}
        # A figure that is not known is NaN, so that its column holds numbers whatever images there are.
        figures = {name: float("nan") if (value := getattr(detection, name)) is None else value for name in FIGURES}
        rows.append({"path": _encodable(str(path))} | verdicts | figures)
        if overlay is not None:
            try:
                overlay.parent.mkdir(parents=True, exist_ok=True)
                cam_figure(pixels, detection.cam).save(overlay)
            except OSError as error:
                if is_no_room(error):
                    raise
                unwritten.append(f"{overlay} ({error.strerror or in_one_line(error)})")
    return broken, unwritten, rows


def _overlay_paths(paths: list[Path], base: Path, folder: Path) -> list[Path]:
    """The overlays' files: below ``folder`` as the images lie below ``base`` or, if a manifest leads out of that, below
    the deepest folder that holds them all. So no overlay is outside ``folder``, and no two images share one."""
    whole = [absolute(path) for path in paths]
    common = Path(os.path.commonpath([absolute(base), *(path.parent for path in whole)]))
    # The suffix stays in the name: a.jpg and a.png are two images.
    return [folder / path.parent.relative_to(common) / f"{path.name}.png" for path in whole]


def _one_line(text: str) -> str:
    """The text, fit for a terminal: a file name may hold line breaks and escape sequences."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _encodable(text: str) -> str:
    """The text, fit for UTF-8, which cannot hold the bytes of a file name in another encoding."""
    return text.encode(errors="backslashreplace").decode()
