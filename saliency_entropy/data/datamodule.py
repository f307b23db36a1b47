"""From manifest to batches."""

import logging
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from saliency_entropy.data.human_maps import load_human_map, on_grid
from saliency_entropy.data.images import load_image
from saliency_entropy.data.manifest import (
    LABELS,
    SPLITS,
    Manifest,
    broken_images,
    check_files,
    each,
    refuse_broken,
    thread_count,
)
from saliency_entropy.data.templates import template_map
from saliency_entropy.errors import UserError

log = logging.getLogger(__name__)

# What must be in order before a stage begins. A broken test image is better found before the training than after it.
STAGES = {"fit": SPLITS, "validate": ("val",), "test": ("test",), "predict": ("val", "test")}
# Read in every epoch, so worth their memory; the test images, by far the most in the paper's data, are read once.
REPEATED = ("train", "val")
TEMPLATE = "template"  # what stands in column human_map, and so in the score tables, for a template map


class FaceBatch(NamedTuple):
    """B images with S x S pixels, and their human maps on a CAM grid of ``h x w`` cells.

    Attributes:
        image: ``(B, 3, S, S)`` uint8, RGB.
        label: ``(B,)`` int64, 0 = real, 1 = synthetic.
        human_map: ``(B, h, w)`` float32 in [0, 1]; zeros where an image has none.
        has_map: ``(B,)`` bool.
        row: ``(B,)`` int64, the row of each image in the manifest's table.
    """

    image: Tensor
    label: Tensor
    human_map: Tensor
    has_map: Tensor
    row: Tensor


class FaceDataset(Dataset[FaceBatch]):
    """The images of one split, in the manifest's order; an item is a :class:`FaceBatch` without its dimension B.

    Each image and its map come from the same row of the manifest; nothing is matched by name.

    Args:
        manifest: the table and its root.
        split: ``train``, ``val`` or ``test``.
        image_size: S, in pixels.
        map_size: ``(h, w)``, the CAM grid, in cells.
        interpolation: of the images; see :func:`~saliency_entropy.data.images.load_image`.
        template_maps: column human_map holds no files; "template" there stands for a template map.
    """

    def __init__(
        self,
        manifest: Manifest,
        split: str,
        image_size: int,
        map_size: tuple[int, int],
        interpolation: str,
        template_maps: bool = False,
    ) -> None:
        table = manifest.split(split)
        self.manifest = manifest
        self.image_size = image_size
        self.map_size = map_size
        self.interpolation = interpolation
        self.template_maps = template_maps
        # Arrays, not lists: forked workers would copy 700,000 Python objects, page by page, by counting references.
        self.rows = table.index.to_numpy()
        self.labels = table["label"].map(LABELS.index).to_numpy(dtype=np.int64)
        self.paths = table["path"].array
        self.human_maps = table["human_map"].array
        self._memory: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> FaceBatch:
        """Raises UserError, naming file and row, if the image or its map cannot be used."""
        image, human_map = self._decode(index) if self._memory is None else (part[index] for part in self._memory)
        return FaceBatch(
            image,
            torch.tensor(self.labels[index]),
            human_map,
            torch.tensor(self.human_maps[index] != ""),
            torch.tensor(self.rows[index]),
        )

    def load(self) -> list[tuple[int, str]]:
        """Decode all images and maps into memory; returns (row, reason) of those that cannot be used."""
        size, count = self.image_size, len(self)
        images = torch.empty((count, 3, size, size), dtype=torch.uint8)
        maps = torch.empty((count, *self.map_size))

        def place(index: int) -> tuple[int, str] | None:
            try:
                images[index], maps[index] = self._read(index)
            except UserError as error:
                return int(self.rows[index]), str(error)
            return None

        broken = [failure for failure in each(place, range(count), thread_count()) if failure]
        self._memory = images, maps
        return broken

    def _decode(self, index: int) -> tuple[Tensor, Tensor]:
        try:
            return self._read(index)
        except UserError as error:
            where = self.manifest.where(int(self.rows[index]))
            raise UserError(f"{self.manifest.origin}: {where}: {error}") from None

    def _read(self, index: int) -> tuple[Tensor, Tensor]:
        image = load_image(self.manifest.file(self.paths[index]), self.image_size, self.interpolation)
        name = self.human_maps[index]
        if not name:
            human_map = np.zeros(self.map_size, dtype=np.float32)
        elif self.template_maps:
            human_map = on_grid(template_map(self.paths[index]), self.map_size, TEMPLATE)
        else:
            human_map = load_human_map(self.manifest.map_files(name), self.map_size)
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(human_map)


class FaceDataModule(pl.LightningDataModule):
    """Training, validation and test images of one data set.

    The batches depend on the data, ``seed``, the epoch and the batch size only: not on the number of workers, nor on
    what is held in memory.

    Args:
        name: the data set's, as in ``data=NAME``.
        source: reads the manifest; called once.
        image_size: S, in pixels.
        interpolation: of the images; the paper's is ``bilinear``.
        batch_size: of the training images.
        seed: of the order of the training images.
        map_size: ``(h, w)``, the CAM grid, in cells. Where the network that decides it is built after the manifest is
            looked at, it may be set later, before ``setup``.
        root: the data root, as the user gave it; ``source`` is what reads it.
        eval_batch_size: of the other images; as ``batch_size``, if not given.
        num_workers: processes that decode the images that are not in memory.
        in_memory: decode the training and validation images once and keep them: 3 S^2 bytes each.
        check: ``decode`` every image before anything is trained, or read the ``headers`` only. Images that are kept
            in memory are decoded in any case.
        skip_last_batch_of_one: leave out a last training batch of one image, as the first author's script does.
        template_maps: give the training and validation images template maps; see
            :mod:`saliency_entropy.data.templates`.
        train_batches: train on this many batches, the same in every epoch and of both classes where the data allow:
            for debugging. All of them, and in each epoch others, if not given.
    """

    def __init__(
        self,
        name: str,
        source: Callable[[], Manifest],
        image_size: int,
        interpolation: str,
        batch_size: int,
        seed: int,
        map_size: tuple[int, int] | None = None,
        root: str | None = None,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        in_memory: bool = True,
        check: Literal["decode", "headers"] = "decode",
        skip_last_batch_of_one: bool = False,
        template_maps: bool = False,
        train_batches: int | None = None,
    ) -> None:
        super().__init__()
        if check not in ("decode", "headers"):
            raise UserError(f"data.check is {check!r}; it must be 'decode' or 'headers'")
        if type(num_workers) is not int or num_workers < 0:
            raise UserError(f"data.num_workers is {num_workers!r}; give a whole number from 0 on")
        for option, value in (("train_batches", train_batches), ("eval_batch_size", eval_batch_size)):
            if value is not None and (type(value) is not int or value < 1):
                raise UserError(f"data.{option} is {value!r}; give a whole number from 1 on, or null")
        self.name = name
        self.source = source
        self.image_size = image_size
        self.map_size = map_size
        self.interpolation = interpolation
        self.batch_size = batch_size
        self.seed = seed
        self.root = root
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.in_memory = in_memory
        self.check = check
        self.skip_last_batch_of_one = skip_last_batch_of_one
        self.template_maps = template_maps
        self.train_batches = train_batches
        self._datasets: dict[str, FaceDataset] = {}

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, its files looked at and its splits complete.

        Raises:
            UserError: it is not in order, a file is missing, or a split lacks images or a class.
        """
        manifest = self.source()
        for split in SPLITS:
            labels = set(manifest.split(split)["label"])
            # One class alone cannot be learned from or validated on; what to score is up to the user.
            lacking = [label for label in LABELS if label not in labels] if split in REPEATED else []
            if not labels or lacking:
                what = f"{' and no '.join(lacking)} image" if labels else "image"
                raise UserError(
                    f"{manifest.origin}: split {split} has no {what}; a study needs train, val and test images, of "
                    f"both classes in train and val"
                )
        check_files(manifest)
        return _with_template_maps(manifest) if self.template_maps else manifest

    @property
    def train_generators(self) -> list[str]:
        """The generators of the synthetic training images, sorted; those of ``a+b`` (one of these) are two."""
        train = self.split_table("train")
        named = train["generator"][train["label"] == "synthetic"].unique()
        return sorted({generator for value in named for generator in value.split("+") if generator})

    def split_table(self, split: str) -> pd.DataFrame:
        """The manifest's rows of a split, in the order of its batches (of ``train``: before they are shuffled)."""
        return self.manifest.split(split)

    def require_human_maps(self, reason: str) -> None:
        """Raises UserError if no training image has a map; ``reason`` names what needs them."""
        if (self.split_table("train")["human_map"] == "").all():
            raise UserError(
                f"{reason} needs human maps, but no training image of data {self.name} ({self.manifest.origin}) has "
                "one: add a column human_map, set data.template_maps=true for template maps of aligned faces, or "
                "choose a method without human maps"
            )

    def setup(self, stage: str | None = None) -> None:
        """Check, and hold in memory, what a stage (all, if None) needs and no earlier call has looked at.

        Raises:
            UserError: names all files that cannot be used.
        """
        broken = []
        for split in STAGES[stage] if stage else SPLITS:
            if split in self._datasets:
                continue
            dataset = FaceDataset(
                self.manifest, split, self.image_size, self.map_size, self.interpolation, self.template_maps
            )
            if self._kept(split):
                broken += dataset.load()
            else:
                decode = self.check == "decode"
                broken += broken_images(self.manifest, split, decode, self.map_size, maps=not self.template_maps)
            self._datasets[split] = dataset
            log.info("%s", self._describe(split))
        refuse_broken(self.manifest, broken)

    def train_dataloader(self) -> DataLoader[FaceBatch]:
        dataset = self._datasets["train"]
        # Its order is a function of seed + epoch, which a resumed run can repeat. The factor keeps the seeds apart:
        # else epoch 1 of seed 0 would be epoch 0 of seed 1, and ten runs of 150 epochs would share their orders.
        sampler = DistributedSampler(
            dataset,
            num_replicas=self.trainer.world_size if self.trainer else 1,
            rank=self.trainer.global_rank if self.trainer else 0,
            shuffle=True,
            seed=1_000_000 * self.seed,
        )
        if self.train_batches is not None:
            sampler = self._alternating(sampler)[: self.train_batches * self.batch_size]
        drop_last = self.skip_last_batch_of_one and len(sampler) % self.batch_size == 1
        return self._loader("train", self.batch_size, sampler=sampler, drop_last=drop_last)

    def _alternating(self, order: Iterable[int]) -> list[int]:
        """Real and synthetic images in turn, each class in the order given, while there are both."""
        order = np.array(list(order))
        labels = pd.Series(self._datasets["train"].labels[order])
        turns = labels.groupby(labels).cumcount()
        return order[turns.argsort(kind="stable")].tolist()

    def val_dataloader(self) -> DataLoader[FaceBatch]:
        return self._loader("val", self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[FaceBatch]:
        return self._loader("test", self.eval_batch_size)

    def predict_dataloader(self) -> list[DataLoader[FaceBatch]]:
        """The splits that a finished run is scored on: ``val``, ``test``."""
        return [self.val_dataloader(), self.test_dataloader()]

    def _loader(self, split: str, batch_size: int, **order: object) -> DataLoader[FaceBatch]:
        workers = 0 if self._kept(split) else self.num_workers
        return DataLoader(
            self._datasets[split],
            batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Seeds the workers. Without it they draw from torch's global generator, and what the model draws next
            # would depend on their number.
            generator=torch.Generator().manual_seed(self.seed),
            **order,
        )

    def _kept(self, split: str) -> bool:
        return self.in_memory and split in REPEATED

    def _describe(self, split: str) -> str:
        table = self.split_table(split)
        kind = "template maps (not human maps)" if self.template_maps else "human maps"
        counts = ", ".join(f"{(table['label'] == label).sum()} {label}" for label in LABELS)
        return f"data {self.name}, {split}: {counts}; {(table['human_map'] != '').sum()} {kind}"


def _with_template_maps(manifest: Manifest) -> Manifest:
    table = manifest.table.copy()
    own = (table["human_map"] != "").sum()
    if own:
        raise UserError(
            f"data.template_maps is true, but {manifest.origin} names {own} human maps; set it to false to use those, "
            "or take column human_map away"
        )
    # Not the test images: the paper's have no maps, and nothing says that they are aligned.
    table.loc[table["split"].isin(REPEATED), "human_map"] = TEMPLATE
    return Manifest(table, Path(manifest.root), manifest.origin, manifest.parts)
