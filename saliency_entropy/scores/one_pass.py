"""Several detectors score the same images in one pass: each image is decoded once, and judged by all.

The images are cut into chunks. Each detector's scores of a chunk are one file, kept until all chunks are scored and
make the score file: an interrupted pass goes on after its last whole chunk, and memory holds no more than a chunk.
"""

import hashlib
import io
import itertools
import logging
import math
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saliency_entropy.backbone import Backbone
from saliency_entropy.cam import predict_batch
from saliency_entropy.data import FaceBatch
from saliency_entropy.data.loaders import batch_loader, worker_count
from saliency_entropy.data.table import images_hash
from saliency_entropy.errors import UserError, listing
from saliency_entropy.metrics import SCORES, score_columns
from saliency_entropy.run.result import IMAGES, save_scores
from saliency_entropy.run.whole_files import write_atomically
from saliency_entropy.scores.images import file_digests
from saliency_entropy.scores.score_table import ScoreTable, VariantDataset

log = logging.getLogger(__name__)

# Keys in a score file's metadata.
MADE_FROM = b"saliency_entropy.made_from"
CHECKPOINT = b"saliency_entropy.checkpoint"


@dataclass(frozen=True, eq=False)
class Scored:
    """A detector and the score file that it fills.

    Attributes:
        file: ``<run>/scores/<set>.parquet``.
        identity: 16 hex digits of everything that the scores depend on, except for what is in the images' files.
        checkpoint: the digest of the weights, see :func:`~saliency_entropy.run.checkpoint.file_digest`.
        backbone: in evaluation mode, on its device.
        class_index: whose CAM is taken.
    """

    file: Path
    identity: str
    checkpoint: str
    backbone: Backbone
    class_index: str

    @property
    def parts(self) -> Path:
        """The folder of the scores of single chunks, kept until all chunks are scored."""
        return self.file.parent / f".{self.file.stem}-{self.identity}"


def score_images(
    table: ScoreTable,
    detectors: Sequence[Scored],
    device: torch.device,
    batch_size: int,
    chunk: int,
    num_workers: int | None = None,
    skip_broken: bool = False,
) -> None:
    """Write the score file of each detector.

    Args:
        table: the images and the columns of the score files.
        detectors: their networks see images of the table's size.
        device: where the networks are.
        batch_size: images, or variants of images, in a forward.
        chunk: batches in a chunk.
        num_workers: processes that decode; as many as there are cores, if None.
        skip_broken: leave out the images that cannot be used, and name them in the log.

    Raises:
        UserError: names all images that cannot be used, after all chunks without such an image have been scored; or
            the device has too little memory.
        OSError: a file cannot be written. The chunks that were scored stay.
    """
    dataset = table.dataset
    images_a_batch = max(1, batch_size // len(dataset.variants))
    # Chunks are whole batches, so that an interrupted pass goes on with the very batches that it would have had.
    chunks = {
        images: f"{images.start}-{images.stop}.npz" for images in _cut(range(len(dataset)), images_a_batch * chunk)
    }
    for images, name in chunks.items():
        _remove_others(dataset, images, [detector.parts / name for detector in detectors])
    missing = {
        images: [detector for detector in detectors if not (detector.parts / name).exists()]
        for images, name in chunks.items()
    }
    todo = [images for images in chunks if missing[images]]
    batches = [batch for images in todo for batch in _cut(images, images_a_batch)]
    progress = _Progress(len(dataset), sum(map(len, todo)), len(detectors))
    workers = min(worker_count(num_workers), len(batches))
    loader = batch_loader(dataset, workers, batch_sampler=batches, pin_memory=device.type == "cuda")
    loaded = progress.counted(loader)
    broken: list[str] = []
    try:
        for images in todo:
            its_batches = itertools.islice(loaded, math.ceil(len(images) / images_a_batch))
            scores, reasons, digests = _score_chunk(its_batches, missing[images], device, batch_size)
            broken += filter(None, reasons)
            if skip_broken or not any(reasons):
                for detector, chunk_scores in zip(missing[images], scores, strict=True):
                    content = io.BytesIO()
                    usable = np.array([not why for why in reasons])
                    np.savez(content, scores=chunk_scores, usable=usable, digests=digests)
                    write_atomically(detector.parts / chunks[images], content.getbuffer())
            progress.log()
    except torch.OutOfMemoryError:
        raise UserError(
            f"{device} has too little memory for {len(detectors)} detectors and batches of {batch_size} images; give "
            "a smaller batch_size="
        ) from None
    _report(dataset, broken, skip_broken)
    for detector in detectors:
        _assemble(detector, table, chunks)


class _Progress:
    """Logs how far a pass has come: after every chunk, and in between when nothing was logged for a while.

    Args:
        images: number of images in the whole pass.
        todo: number of images that are left to score.
        detectors: number of detectors that score them.
    """

    SILENCE = 30.0  # seconds

    def __init__(self, images: int, todo: int, detectors: int) -> None:
        self._images, self._todo, self._detectors = images, todo, detectors
        self._done = 0
        self._started = self._said = time.monotonic()

    def counted(self, batches: Iterable[tuple[FaceBatch, list[str]]]) -> Iterator[tuple[FaceBatch, list[str]]]:
        for batch in batches:
            if time.monotonic() - self._said > self.SILENCE:
                self.log()
            self._done += len(batch[1])
            yield batch

    def log(self) -> None:
        self._said = time.monotonic()
        rate = self._done / max(self._said - self._started, 1e-9)
        left = self._todo - self._done
        log.info(
            "%d of %d images by %d detectors, %s images/s%s",
            self._images - left, self._images, self._detectors, f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}",
            f", about {math.ceil(left / rate / 60)} min left" if left and rate else "",
        )  # fmt: skip


def made_from(identity: str, digests: np.ndarray) -> str:
    """16 hex digits of a detector's identity and of the digests of the images' files (earlier: the sizes)."""
    return hashlib.sha256(identity.encode() + digests.astype("<i8").tobytes()).hexdigest()[:16]


def _remove_others(dataset: VariantDataset, images: range, parts: Sequence[Path]) -> None:
    """Remove the scores of a chunk that an interrupted pass made of other files than those that are there now."""
    there = [part for part in parts if part.exists()]
    now = file_digests(dataset.manifest, dataset.faces.rows[images]) if there else None
    for part in there:
        with np.load(part) as scored:
            changed = not np.array_equal(scored["digests"], now)
        if changed:
            log.warning("%s: some of these images have changed since they were scored; scored again", part)
            part.unlink()


def remove_interrupted_passes(file: Path, identity: str | None) -> None:
    """Remove what interrupted passes left beside a score file, except for the pass ``identity``, which is to go on."""
    # Digits, since another set may be called "<set>-2".
    folder = re.compile(rf"\.{re.escape(file.stem)}-([0-9a-f]{{16}})")
    for left in file.parent.glob(".*-*"):
        match = folder.fullmatch(left.name)
        if match and match[1] != identity:
            shutil.rmtree(left)


def _cut(images: range, size: int) -> Iterator[range]:
    return (images[start : start + size] for start in range(0, len(images), size))


def _score_chunk(
    batches: Iterable[tuple[FaceBatch, list[str]]],
    detectors: Sequence[Scored],
    device: torch.device,
    batch_size: int,
) -> tuple[list[np.ndarray], list[str], np.ndarray]:
    """Each detector's scores of a chunk, and for each image the reason why it cannot be used ("" if it can) and its
    digest."""
    kept: list[list[Tensor]] = [[] for _ in detectors]
    reasons: list[str] = []
    digests: list[Tensor] = []
    for batch, batch_reasons in batches:
        reasons += batch_reasons
        digests.append(batch.digest)
        on_device = FaceBatch(*(part.to(device, non_blocking=True) for part in batch))
        for detector, scores in zip(detectors, kept, strict=True):
            scores.append(score_variants(detector.backbone, on_device, detector.class_index, batch_size))
    return [torch.cat(scores).cpu().numpy() for scores in kept], reasons, torch.cat(digests).numpy()


@torch.inference_mode()
def score_variants(backbone: Backbone, batch: FaceBatch, class_index: str, batch_size: int) -> Tensor:
    """``(B, V, 5)`` scores, in the order of :data:`~saliency_entropy.metrics.SCORES`, of B images ``(B, V, 3, S,
    S)`` in V variants."""
    images, variants = batch.image.shape[:2]
    flat = FaceBatch(batch.image.flatten(0, 1), *(part.repeat_interleave(variants, dim=0) for part in batch[1:]))
    scores = []
    for start in range(0, images * variants, batch_size):
        part = FaceBatch(*(values[start : start + batch_size] for values in flat))
        columns = score_columns(predict_batch(backbone, part, class_index))
        scores.append(torch.stack([columns[name] for name in SCORES], dim=1))
    return torch.cat(scores).unflatten(0, (images, variants))


def _report(dataset: VariantDataset, broken: list[str], skip_broken: bool) -> None:
    if not broken:
        return
    origin = dataset.manifest.origin
    several = "images" if len(broken) > 1 else "image"
    named = listing(why.removeprefix(f"{origin}: ") for why in broken)
    if not skip_broken:
        raise UserError(
            f"{origin}: {len(broken)} {several} cannot be used: {named}; mend them and give the same command again, "
            "which scores the rest, or leave them out with skip_broken=true"
        )
    log.warning("%s: %d %s cannot be used and left out (skip_broken=true): %s", origin, len(broken), several, named)


def _assemble(detector: Scored, table: ScoreTable, chunks: Mapping[range, str]) -> None:
    """Put the scores of the chunks together into the score file, and remove them."""

    def rows() -> Iterator[pd.DataFrame]:
        for images, name in chunks.items():
            with np.load(detector.parts / name) as part:
                usable = part["usable"].repeat(len(table.dataset.variants))
                yield table.rows(images, part["scores"])[usable]

    columns = []
    for name in chunks.values():
        with np.load(detector.parts / name) as part:
            columns.append((part["digests"], part["usable"]))
    digests, usable = map(np.concatenate, zip(*columns, strict=True))
    images = images_hash(table.dataset.paths[usable], digests[usable])
    about = {MADE_FROM: made_from(detector.identity, digests), CHECKPOINT: detector.checkpoint, IMAGES: images}
    save_scores(detector.file, rows(), table.schema, about)
    shutil.rmtree(detector.parts)
