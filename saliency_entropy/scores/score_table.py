"""The content of a score file: the images, as they are or corrupted, and the columns."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from saliency_entropy.data import FaceBatch, Manifest
from saliency_entropy.data.dataset import FaceDataset, Transform
from saliency_entropy.data.table import LABELS
from saliency_entropy.errors import UserError
from saliency_entropy.metrics import SCORES, score_table
from saliency_entropy.run.result import score_schema
from saliency_entropy.scores.corruptions import NONE, Variant, corrupted
from saliency_entropy.scores.images import file_digests

SUFFIX = "+corruptions"  # follows the set's name in the name of the file of its corrupted images
VARIANT_SCORES = SCORES[:3]  # the scores of corrupted images: both logits and the entropy of the CAM
PLAIN = [Variant(NONE, 0)]  # each image as it is, and no other variant


class VariantDataset(Dataset[tuple[FaceBatch, str]]):
    """The images of a split, each decoded once and given in V variants.

    An item is a :class:`~saliency_entropy.data.FaceBatch` without its dimension B, whose ``image`` is ``(V, 3, S, S)``,
    and ""; or a blank FaceBatch, and the reason why the image or its map cannot be used.
    """

    def __init__(self, manifest: Manifest, split: str, transform: Transform, variants: Sequence[Variant]) -> None:
        self.faces = FaceDataset(manifest, split, transform)
        self.manifest = manifest
        self.variants = list(variants)
        self.paths = manifest.split(split)["path"].array
        self._blank = FaceBatch(
            torch.zeros(len(variants), 3, transform.image_size, transform.image_size, dtype=torch.uint8),
            torch.tensor(0),
            torch.zeros(transform.map_size),
            torch.tensor(False),
            torch.tensor(-1),
            torch.tensor(0),
        )

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> tuple[FaceBatch, str]:
        try:
            face = self.faces[index]
        except UserError as error:
            digest = file_digests(self.manifest, self.faces.rows[[index]])[0]
            return self._blank._replace(digest=torch.tensor(digest)), str(error)
        pixels = face.image.permute(1, 2, 0).numpy()
        images = [corrupted(pixels, variant, self.paths[index]).transpose(2, 0, 1) for variant in self.variants]
        return face._replace(image=torch.from_numpy(np.stack(images))), ""


class ScoreTable:
    """The table that a score file is, the same for each detector but for the scores.

    ``scores/<set>.parquet`` has a row an image, with the manifest's columns and :data:`SCORES`.
    ``scores/<set>+corruptions.parquet`` has a row an image and variant, with columns ``path, label, generator`` of the
    manifest, ``corruption`` ("none" for the image as it is) and ``strength`` of
    :mod:`~saliency_entropy.scores.corruptions`, and :data:`VARIANT_SCORES`. Names are kept as dictionaries there.

    Args:
        manifest: whose images are scored.
        split: ``train``, ``val`` or ``test``.
        transform: how the networks see an image.
        variants: of each image; :data:`PLAIN` for a table of the images as they are.

    Attributes:
        dataset: the images.
        schema: the columns.
    """

    def __init__(self, manifest: Manifest, split: str, transform: Transform, variants: Sequence[Variant]) -> None:
        self.dataset = VariantDataset(manifest, split, transform, variants)
        self._images = manifest.split(split)
        self._corrupted = list(variants) != PLAIN
        names = pa.dictionary(pa.int32(), pa.string())
        self.schema = (
            score_schema(self._images)
            if not self._corrupted
            else pa.schema(
                [(name, names) for name in ("path", "label", "generator", "corruption")]
                + [("strength", pa.float64())]
                + [(name, pa.float32()) for name in VARIANT_SCORES]
            )
        )

    def rows(self, images: range, scores: np.ndarray) -> pd.DataFrame:
        """The rows of some images, all V variants of one after the other.

        Args:
            images: places in :attr:`dataset`.
            scores: ``(len(images), V, 5)`` float32, the last as in :data:`~saliency_entropy.metrics.SCORES`.
        """
        variants = self.dataset.variants
        rows = self._images.iloc[np.repeat(images, len(variants))]
        if self._corrupted:
            rows = rows.assign(
                corruption=[variant.corruption for variant in variants] * len(images),
                strength=[variant.strength for variant in variants] * len(images),
            )
        return score_table(rows, dict(zip(SCORES, scores.reshape(-1, len(SCORES)).T, strict=True)))


def sampled(table: pd.DataFrame, images: int | None) -> pd.DataFrame:
    """A sample of the images, half of them real where there are enough, for work that would take too long with all.

    The generators of either label, and the sources of each generator, keep their shares to one image. A hash of its
    path decides whether an image is taken: the sample is the same in every run, whatever the order of the rows.

    Args:
        table: rows of a manifest.
        images: the size of the sample; all images, if None.

    Returns:
        Rows of ``table``, in its order.
    """
    if images is None or images >= len(table):
        return table
    hashes = pd.util.hash_pandas_object(table["path"].astype("str"), index=False)
    order = table[["generator", "source"]].assign(hash=hashes.to_numpy())
    real, synthetic = (
        order[table["label"] == label].sort_values(["generator", "source", "hash"]).index for label in LABELS
    )
    # If one label has too few images for its half, the other fills it up.
    count = min(len(real), max(images // 2, images - len(synthetic)))
    taken = _evenly(real, count).append(_evenly(synthetic, images - count))
    return table.loc[table.index.isin(taken)]


def _evenly(rows: pd.Index, count: int) -> pd.Index:
    """``count`` rows at even distances: of rows that are sorted by group, each group gives its share."""
    return rows[(2 * np.arange(count) + 1) * len(rows) // (2 * max(count, 1))]
