"""Every run of a study, scored in one pass over the images: each is decoded once, and judged by every detector."""

import hashlib
import io
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from saliency_entropy.backbone import Backbone
from saliency_entropy.data import FaceBatch, Manifest
from saliency_entropy.data.datamodule import default_workers
from saliency_entropy.data.dataset import FaceDataset, Transform
from saliency_entropy.data.manifest import SCORES, SPLITS, check_files, thread_count
from saliency_entropy.detector import read_network
from saliency_entropy.device import usable_device
from saliency_entropy.errors import UserError
from saliency_entropy.run_folder import check_name, finished_result, write_atomically, written_whole
from saliency_entropy.scoring import predict_batch, score_columns
from saliency_entropy.study.runs import run_folders
from saliency_entropy.training import data_hash

log = logging.getLogger(__name__)

# The readers that a study's own config.yaml may name: the file is data, and must not choose what is called.
READERS = {
    f"saliency_entropy.data.{reader}"
    for reader in ("builtin.builtin_faces", "folder_tree.folder_tree", "manifest.read_manifest", "shards.read_shards",
                   "und_cyborg.und_cyborg")
}  # fmt: skip
MADE_FROM = b"saliency_entropy.made_from"  # key in a score file's metadata


def evaluate(cfg: DictConfig) -> None:
    """Score every finished run of ``cfg.study`` on ``cfg.split`` of its own data, or of ``cfg.data``.

    Each run gets ``scores/<set>.parquet``. What is there already is left; an interrupted pass is gone on with.

    Raises:
        UserError: the study, a checkpoint or the data cannot be used; a score file was made from something else.
    """
    for name in ("batch_size", "chunk"):
        if type(cfg[name]) is not int or cfg[name] < 1:
            raise UserError(f"{name} is {cfg[name]!r}; give a whole number from 1 on")
    if cfg.split not in SPLITS:
        raise UserError(f"split is {cfg.split!r}; choose of {', '.join(SPLITS)}")
    study = Path(str(cfg.study))
    folders = [folder for folder in run_folders(study) if finished_result(folder) is not None]
    if not folders:
        raise UserError(f"no run in {study} is finished; give the command that trains them again")
    manifest, data_name, human_maps = _images(cfg, folders[0])
    name = str(cfg.set or (data_name if "data" in cfg else cfg.split))
    check_name("set", name)
    torch.set_num_threads(cfg.threads or thread_count())
    device = usable_device(cfg.device)
    try:
        with FileLock(study / ".evaluate.lock", timeout=0):
            _evaluate(cfg, folders, manifest, human_maps, name, device)
    except Timeout:
        raise UserError(f"{study} is being scored by another process; wait for it") from None


def _evaluate(
    cfg: DictConfig,
    folders: list[Path],
    manifest: Manifest,
    human_maps: dict[str, Any],
    name: str,
    device: torch.device,
) -> None:
    """Group the runs by what their networks see, and make a pass for each group."""
    table = manifest.split(cfg.split)
    if table.empty:
        raise UserError(f"{manifest.origin}: split {cfg.split} has no image to score")
    # Another batch size changes the last bits of scores.
    about_data = f"{data_hash(table)}/{cfg.batch_size}"
    groups: dict[Transform, list[Scored]] = defaultdict(list)
    for folder in folders:
        checkpoint = folder / "checkpoints" / "best.ckpt"
        made_from = hashlib.sha256(f"{about_data}/{_digest(checkpoint)}".encode()).hexdigest()[:16]
        file = folder / "scores" / f"{name}.parquet"
        if _is_scored(file, made_from, own="data" not in cfg, overwrite=cfg.overwrite):
            continue
        backbone, class_index = read_network(checkpoint)
        detector = Scored(file, made_from, backbone.eval().requires_grad_(False).to(device), class_index)
        groups[Transform(backbone.image_size, backbone.interpolation, backbone.cam_size, **human_maps)].append(detector)
    for transform, detectors in groups.items():
        dataset = FaceDataset(manifest, cfg.split, transform)
        _pass(dataset, table, detectors, cfg.batch_size, cfg.chunk * cfg.batch_size, cfg.num_workers, device)
    scored = sum(map(len, groups.values()))
    log.info("%d runs scored, %d were scored before: %s", scored, len(folders) - scored, f"scores/{name}.parquet")


@dataclass(frozen=True, eq=False)
class Scored:
    """A detector and the score file that it fills.

    Attributes:
        file: ``<run>/scores/<set>.parquet``.
        made_from: 16 hex digits of the images, the checkpoint and the batch size.
        backbone: in evaluation mode, on its device.
        class_index: whose CAM is taken.
    """

    file: Path
    made_from: str
    backbone: Backbone
    class_index: str

    def part(self, images: range) -> Path:
        """The file of the scores of some images, kept until all are there."""
        return self.file.parent / f".{self.file.stem}-{self.made_from}" / f"{images.start}-{images.stop}.npy"


def _pass(
    dataset: FaceDataset,
    table: pd.DataFrame,
    detectors: Sequence[Scored],
    batch_size: int,
    chunk: int,
    num_workers: int | None,
    device: torch.device,
) -> None:
    """Score all images by all detectors, a chunk of images after the other, each kept on disk when it is done."""
    # Chunks are whole batches, so that an interrupted pass goes on with the very batches that it would have had.
    chunks = [range(first, min(first + chunk, len(dataset))) for first in range(0, len(dataset), chunk)]
    todo = [its for its in chunks if not all(detector.part(its).exists() for detector in detectors)]
    loader = DataLoader(
        dataset,
        batch_sampler=[
            list(its[start : start + batch_size]) for its in todo for start in range(0, len(its), batch_size)
        ],
        num_workers=default_workers() if num_workers is None else num_workers,
        pin_memory=device.type == "cuda",
    )
    batches = iter(loader)
    started, done = time.monotonic(), 0
    for its in todo:
        missing = [detector for detector in detectors if not detector.part(its).exists()]
        columns: list[list[np.ndarray]] = [[] for _ in missing]
        for _ in range(0, len(its), batch_size):
            batch = FaceBatch(*(part.to(device, non_blocking=True) for part in next(batches)))
            with torch.inference_mode():
                for detector, kept in zip(missing, columns, strict=True):
                    scores = score_columns(predict_batch(detector.backbone, batch, detector.class_index))
                    kept.append(torch.stack([scores[column] for column in SCORES]))
        for detector, kept in zip(missing, columns, strict=True):
            _save_part(detector.part(its), torch.cat(kept, dim=1).cpu().numpy())
        done += len(its)
        log.info(
            "%d of %d images by %d detectors, %.0f images/s",
            its.stop, len(dataset), len(detectors), done / (time.monotonic() - started),
        )  # fmt: skip
    for detector in detectors:
        _assemble(detector, table, chunks)


def _digest(checkpoint: Path) -> str:
    try:
        with checkpoint.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{checkpoint} cannot be read ({error.strerror}); train the run again") from None


def _save_part(path: Path, scores: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, scores)
    write_atomically(path, content.getbuffer())


def _assemble(detector: Scored, table: pd.DataFrame, chunks: Sequence[range]) -> None:
    """Put the parts beside the manifest's rows into the score file, and take them away."""
    with written_whole(detector.file) as path:
        writer: pq.ParquetWriter | None = None
        for its in chunks:
            scores = dict(zip(SCORES, np.load(detector.part(its)), strict=True))
            images = table.iloc[its.start : its.stop]
            rows = pa.Table.from_pandas(images.assign(**scores), preserve_index=False)
            if writer is None:
                schema = rows.schema.with_metadata(rows.schema.metadata | {MADE_FROM: detector.made_from.encode()})
                writer = pq.ParquetWriter(path, schema)
            writer.write_table(rows.cast(schema))
        writer.close()
    shutil.rmtree(detector.part(chunks[0]).parent)


def _is_scored(file: Path, made_from: str, own: bool, overwrite: bool) -> bool:
    """Whether a run has this score file already; a run scores its own test images when it is trained."""
    if overwrite or not file.exists():
        return False
    try:
        theirs = (pq.read_schema(file).metadata or {}).get(MADE_FROM, b"").decode()
    except (ValueError, OSError):
        raise UserError(f"{file} is damaged; delete it, or give overwrite=true") from None
    if theirs == made_from or (own and not theirs):
        return True
    raise UserError(
        f"{file} holds scores of other images, of another checkpoint or with another batch size; give another name, "
        "set=..., or overwrite=true"
    )


def _images(cfg: DictConfig, run: Path) -> tuple[Manifest, str, dict[str, Any]]:
    """The images to score, the name of their data, and what is made of their human maps.

    Of the study itself they are read as its runs read them.
    """
    if "data" in cfg:
        read, data = instantiate(cfg.data.source), OmegaConf.to_container(cfg.data, resolve=False)
    else:
        data = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))["data"]
        source = {key: value for key, value in data["source"].items() if key not in ("_target_", "_partial_")}
        if data["source"].get("_target_") not in READERS or any(isinstance(value, dict) for value in source.values()):
            raise UserError(f"{run / 'config.yaml'} names no reader of this package; give data=... data.root=...")
        # Called with plain values, not instantiated: whatever they name stays a word.
        read = partial(get_method(data["source"]["_target_"]), **source)
    manifest = read()
    check_files(manifest)
    options = data.get("human_maps") or {}
    return manifest, str(data["name"]), {name: options[name] for name in ("blur", "binarise") if name in options}
