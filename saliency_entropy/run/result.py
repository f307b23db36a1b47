"""``result.json``, which a run leaves at its end: the final figures, and the versions and the commit that made them."""

import datetime
import importlib.metadata
import json
import logging
import subprocess
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from saliency_entropy.metrics import SCORES, auroc, score_table, unseen_images
from saliency_entropy.run.checkpoint import best_checkpoint, best_epoch, file_digest
from saliency_entropy.run.epochs import read_epochs
from saliency_entropy.run.folder import config_hash
from saliency_entropy.run.model_file import complete_best
from saliency_entropy.run.ranking import RANKINGS, SUFFIXES, ranking_scores
from saliency_entropy.run.trainer_options import images_left_out
from saliency_entropy.run.whole_files import write_atomically, written_whole

log = logging.getLogger(__name__)

SCORED_SPLITS = ("val", "test")
IMAGES = b"saliency_entropy.images"  # the key in a score file's metadata of the digest of its images, if it is known


def score_schema(images: pd.DataFrame) -> pa.Schema:
    """The columns of a score table: the manifest's, and :data:`~saliency_entropy.metrics.SCORES`.

    Args:
        images: all the manifest's rows of the table: a column may have no value in the first thousands of them, and
            would then seem to be of no type.
    """
    scored = score_table(images, dict.fromkeys(SCORES, np.float32(0)))
    return pa.Schema.from_pandas(scored, preserve_index=False)


def save_scores(path: Path, parts: Iterable[pd.DataFrame], schema: pa.Schema, about: Mapping[bytes, str]) -> None:
    """Write a score table, whose rows may come in parts so that not all of them are held in memory, and what its
    metadata are to say about it.

    Raises:
        OSError: it cannot be written; nothing is left of it then.
    """
    schema = schema.with_metadata((schema.metadata or {}) | {key: text.encode() for key, text in about.items() if text})
    with written_whole(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for part in parts:
            writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))


def save_result(
    folder: Path,
    config: dict[str, Any],
    data_summary: dict[str, Any],
    scores: dict[str, pd.DataFrame],
    code: dict[str, Any],
    wall_seconds: float,
    wandb_run: Any,
) -> dict[str, Any]:
    """Log the final figures, complete ``best.ckpt`` and write ``result.json``, with which the run is done.

    Args:
        folder: the run's folder.
        config: its resolved configuration.
        data_summary: :meth:`saliency_entropy.data.FaceDataModule.summary`.
        scores: the score table of each of :data:`SCORED_SPLITS`.
        code: the versions and the commit that the run was begun with.
        wall_seconds: the time that training and scoring took, over all attempts.
        wandb_run: the W&B run that gets the figures, too; None without W&B.

    Returns:
        The content of ``result.json``.
    """
    result = summarise(config, folder, data_summary, scores) | code
    complete_best(folder, result, scores["val"])
    result["checkpoint"] = file_digest(best_checkpoint(folder))
    result["wall_seconds"] = round(wall_seconds, 1)
    result["finished"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if wandb_run is not None:
        wandb_run.log_result(result, scores["test"])
    write_atomically(folder / "result.json", json.dumps(result, indent=2) + "\n")
    if not all(np.isfinite(table[["logit_real", "logit_synthetic"]]).all(axis=None) for table in scores.values()):
        log.warning("this run has diverged: some of its logits are not numbers; debug=finite says where that begins")
    return result


def summarise(
    config: dict[str, Any], folder: Path, data_summary: dict[str, Any], scores: dict[str, pd.DataFrame]
) -> dict[str, Any]:
    """The content of ``result.json``, except for the code, the checkpoint's digest and the time."""
    epochs = read_epochs(folder)
    human_entropy = epochs["train/human_entropy"].iloc[-1]
    planned = config["trainer"]["max_epochs"]
    left_out = images_left_out(config["trainer"])
    return {
        "method": config["method"]["name"],
        "title": config["method"]["title"],
        "seed": config["seed"],
        "study": config["study"],
        "backbone": config["backbone"]["name"],
        "timm_name": config["backbone"]["timm_name"],  # which the name need not tell: backbone.timm_name=resnet18
        "data": config["data"]["name"],
        "best_epoch": best_epoch(folder),
        "epochs": len(epochs),
        # These two only where they say that the figures are not those of a whole run.
        **({"planned_epochs": planned} if len(epochs) < planned else {}),
        **({"images_left_out": left_out} if left_out else {}),
        **data_summary,
        "human_entropy": None if np.isnan(human_entropy) else float(human_entropy),
        **{split: split_figures(table, data_summary) for split, table in scores.items()},
        "config_hash": config_hash(config),
    }


def split_figures(table: pd.DataFrame, data_summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Final figures of one score table. ``auroc_unseen`` is for all real images against the synthetic ones whose
    generators are known not to be in training, nor relatives of one that is; None if there are no such images. AUROCs
    rank by logit 1, and with ``_margin`` by the margin, see :mod:`~saliency_entropy.run.ranking`."""
    synthetic = (table["label"] == "synthetic").to_numpy()
    unseen = unseen_images(table, data_summary["train_generators"], data_summary.get("relatives", ()))
    kept = ~synthetic | unseen
    figures = {
        "accuracy": float(((table["logit_synthetic"] > table["logit_real"]) == synthetic).mean()),
        "cam_entropy": float(table["cam_entropy"].mean()),
        "images": len(table),
    }
    for score, values in ranking_scores(table).items():
        figures[f"auroc{SUFFIXES[score]}"] = auroc(values, synthetic)
        figures[f"auroc_unseen{SUFFIXES[score]}"] = auroc(values[kept], synthetic[kept]) if unseen.any() else None
    return figures


def headline(result: dict[str, Any]) -> str:
    test = result["test"]
    areas, unseen = (
        " and ".join(f"{test[f'{name}{SUFFIXES[score]}'] or 0:.4f} by {title}" for score, title in RANKINGS.items())
        for name in ("auroc", "auroc_unseen")
    )
    return (
        f"{result['title']}, seed {result['seed']}: test AUROC {areas}"
        + (f", unseen generators {unseen}" if test["auroc_unseen"] is not None else "")
        + f", mean CAM entropy {test['cam_entropy']:.2f} nats (epoch {result['best_epoch'] + 1} of "
        f"{result['epochs']}, {result['wall_seconds']:.0f} s)"
        + (
            f"; ended after epoch {result['epochs']} of {result['planned_epochs']}"
            if "planned_epochs" in result
            else ""
        )
        + ("; of a part of the images" if "images_left_out" in result else "")
    )


def versions() -> dict[str, str]:
    names = ("saliency-entropy", "torch", "timm", "pytorch-lightning", "torchmetrics", "hydra-core", "pillow", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def git_commit() -> str | None:
    """The commit of the checkout that holds this package, with ``+`` if files were changed; None without a checkout."""
    here = Path(__file__)
    git = partial(subprocess.run, cwd=here.parent, capture_output=True, text=True, timeout=10, check=True)
    try:
        # Fails for a package that is installed into an environment inside another repository.
        git(["git", "ls-files", "--error-unmatch", here.name])
        return git(["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
