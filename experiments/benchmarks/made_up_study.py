"""A study of random scores, written as runs leave it: to measure and to test a report without training."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from scipy.stats import mannwhitneyu

from saliency_entropy.run import variants

TITLES = {
    "cross_entropy": "Cross-entropy",
    "cyborg": "CYBORG",
    "hseb": "HSEB",
    "fmmmse": "FMMMSE",
    "droid": "DROID",
    "droid_cyborg": "DROID + CYBORG",
}
# How far synthetic images score above real ones, and the final CAM entropy in nats.
STRENGTH = {"cross_entropy": 0.2, "cyborg": 0.5, "hseb": 0.8, "fmmmse": 1.0, "droid": 0.9, "droid_cyborg": 1.1}
ENTROPY = {"cross_entropy": 3.65, "cyborg": 3.3, "hseb": 3.0, "fmmmse": 1.4, "droid": 2.2, "droid_cyborg": 2.1}
TRAIN_GENERATORS = ["srefi", "stylegan2"]


def scored_images(per_generator: int = 60, real: int = 80) -> pd.DataFrame:
    """Three generators, of which StyleGAN2 is in training, and real images of two sources."""
    generators = ["progan", "stylegan2", "stylegan3"]
    rows = [
        {"path": f"{name}/{i}.png", "label": "synthetic", "generator": name, "source": ""}
        for name in generators
        for i in range(per_generator)
    ]
    rows += [
        {"path": f"{name}/{i}.png", "label": "real", "generator": "", "source": name}
        for name in ("celeba-hq", "ffhq")
        for i in range(real // 2)
    ]
    return pd.DataFrame(rows).assign(split="test", human_map="")


def validation_images(synthetic: int = 100, real: int = 100) -> pd.DataFrame:
    """As :func:`scored_images`, of one training generator and one source."""
    rows = [{"label": "synthetic", "generator": "stylegan2", "source": ""}] * synthetic
    rows += [{"label": "real", "generator": "", "source": "frgc"}] * real
    table = pd.DataFrame(rows).assign(split="val", human_map="")
    return table.assign(path=[f"val/{i}.png" for i in range(len(table))])


def write_run(
    study: Path,
    method: str,
    seed: int,
    images: pd.DataFrame | None = None,
    val_images: pd.DataFrame | None = None,
    title: str | None = None,
    epochs: int = 4,
    strength: float | None = None,
    config: dict | None = None,
    result: dict | None = None,
) -> Path:
    """Write a finished run; ``config`` and ``result`` replace parts of its configuration and result."""
    folder = study / method / f"seed{seed}"
    (folder / "scores").mkdir(parents=True)
    known = sorted(TITLES).index(method) if method in TITLES else 99
    random = np.random.default_rng([known, seed])
    images = scored_images() if images is None else images
    val_images = validation_images() if val_images is None else val_images
    strength = STRENGTH.get(method, 0.6) if strength is None else strength
    shift = strength + 0.12 * random.normal()
    entropy = ENTROPY.get(method, 2.6) + 0.15 * random.normal()
    scores = _scored(images, shift, entropy, random)
    scores.to_parquet(folder / "scores" / "test.parquet", index=False)
    decay = np.exp(-np.arange(epochs) / (epochs / 5))
    curve = entropy + (3.8 - entropy) * decay + 0.03 * random.normal(size=epochs)
    pd.DataFrame(
        {
            "epoch": range(epochs),
            "train/loss": 0.7 * decay,
            "train/cam_entropy": curve,
            "val/cam_entropy": curve + 0.05,
            "val/accuracy": 0.9,
        }
    ).to_csv(folder / "metrics.csv", index=False)
    made = {
        "seed": seed,
        "method": {"name": method, "title": title or TITLES.get(method, method)},
        "backbone": {"name": "tiny"},
        "data": {"name": "faces", "root": "faces", "image_size": 112, "seed": seed, "template_maps": False},
        "protocol": {"name": "paper"},
        "trainer": {"max_epochs": epochs},
        "loss": {"terms": {method: {"weight": 0.5}}},
    }
    OmegaConf.save(OmegaConf.merge(made, config or {}), folder / "config.yaml")
    _scored(val_images, shift + 0.5, entropy, random).to_parquet(folder / "scores" / "val.parquet", index=False)
    content = {
        "method": method,
        "title": title or TITLES.get(method, method),
        "seed": seed,
        "study": study.name,
        "train_generators": TRAIN_GENERATORS,
        "cam_cells": 49,
        "human_entropy": 3.0,
        "test": {"auroc": _rank_sum_auroc(scores)},
        "versions": {"torch": "2.14.1", "timm": "1.0.31"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "wall_seconds": 61.5,
        "finished": "2026-11-24T06:00:00+00:00",
    } | (result or {})
    (folder / "result.json").write_text(json.dumps(content))
    return folder


def _scored(images: pd.DataFrame, shift: float, entropy: float, random: np.random.Generator) -> pd.DataFrame:
    return images.assign(
        logit_real=random.normal(size=len(images)).astype(np.float32),
        logit_synthetic=(random.normal(size=len(images)) + shift * (images["label"] == "synthetic").to_numpy()).astype(
            np.float32
        ),
        cam_entropy=(entropy + 0.1 * random.normal(size=len(images))).astype(np.float32),
    )


def _rank_sum_auroc(scores: pd.DataFrame) -> float | None:
    synthetic, score = scores["label"] == "synthetic", scores["logit_synthetic"]
    pairs = int(synthetic.sum() * (~synthetic).sum())
    return float(mannwhitneyu(score[synthetic], score[~synthetic]).statistic / pairs) if pairs else None


def write_study(study: Path, methods: dict[str, int] | None = None, **options) -> Path:
    """Write runs of ``methods``, name -> number of seeds; if not given, three of each of the six methods."""
    for method, seeds in (methods or dict.fromkeys(TITLES, 3)).items():
        for seed in range(seeds):
            write_run(study, method, seed, **options)
    return study


def write_variant(study: Path, values: dict[str, object], methods: dict[str, int], **options) -> Path:
    """Write a variant of a study, with runs as :func:`write_study` does, in the folder that a sweep would choose."""
    folder = write_study(study / variants.variant_name(values), methods, **options)
    variants.write_variant(folder, values)
    return folder


def write_maps(
    study: Path,
    rows: Iterable[int],
    images: pd.DataFrame | None = None,
) -> None:
    """Write maps of some test images as experiments/focus.py does: one blob in each."""
    images = scored_images() if images is None else images
    rows = np.array(list(rows))
    random = np.random.default_rng(0)
    kept = {
        "sample": "0123456789abcdef",
        "row": rows,
        "path": images["path"].to_numpy(dtype=np.str_)[rows],
        "label": (images["label"] == "synthetic").to_numpy(dtype=np.int64)[rows],
        "generator": images["generator"].to_numpy(dtype=np.str_)[rows],
        "image": np.kron(
            random.integers(0, 256, (len(rows), 7, 7, 3)).astype(np.uint8), np.ones((1, 16, 16, 1), dtype=np.uint8)
        ),
        "human_map": _blobs(len(rows), 7, random),
        "has_map": rows % 2 == 0,
    }
    _save(study / "maps" / "test.npz", kept)
    for run in sorted(study.glob("*/seed*")):
        kinds = dict.fromkeys(("cam", "cam_true", "cam_difference", "grad_cam"), _blobs(len(rows), 7, random))
        _save(run / "maps" / "test.npz", {"sample": kept["sample"], "checkpoint": "0" * 16, "row": rows} | kinds)


def _save(path: Path, arrays: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)


def _blobs(count: int, cells: int, random: np.random.Generator) -> np.ndarray:
    """``(count, cells, cells)`` float32 in [0, 1]."""
    y, x, spread = (random.uniform(low, high, (count, 1, 1)) for low, high in ((0, cells), (0, cells), (0.7, 3)))
    down, across = np.mgrid[:cells, :cells]
    return np.exp(-((down - y) ** 2 + (across - x) ** 2) / (2 * spread**2)).astype(np.float32)
