"""From manifest to batches."""

import logging
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader, Sampler
from torch.utils.data.distributed import DistributedSampler

from saliency_entropy.data.dataset import FaceBatch, FaceDataset, Transform
from saliency_entropy.data.group_names import near_misses
from saliency_entropy.data.human_maps.controls import check_control, constant_control, with_shuffled_maps
from saliency_entropy.data.human_maps.implausible import KINDS
from saliency_entropy.data.human_maps.loading import DRAWN_WITH, check_options, keep_fraction
from saliency_entropy.data.human_maps.templates import with_template_maps
from saliency_entropy.data.images import INTERPOLATIONS
from saliency_entropy.data.listed_files import check_files, file_problems, refuse_broken, without_broken
from saliency_entropy.data.loaders import DealtBatches, SplitBatches, batch_loader, worker_count
from saliency_entropy.data.table import LABELS, REPEATED, SPLITS, Manifest, data_hash, images_hash
from saliency_entropy.errors import UserError, whole_number
from saliency_entropy.metrics import is_known
from saliency_entropy.run.console import typed

log = logging.getLogger(__name__)

# What must be in order before a stage begins. A broken test image is better found before the training than after it.
STAGES = {"fit": SPLITS, "validate": ("val",), "test": ("test",), "predict": ("val", "test")}
CACHES = ("disk", "memory", "none")
SKIP = "data.skip_broken"
SKIPS = f"{SKIP}=true does without them"


@dataclass(frozen=True)
class HumanMaps:
    """How many of the human maps are used, and what is made of them.

    Attributes:
        fraction: share of the training images with a map that keep it, in [0, 1], for a study of how much annotation
            is needed; see :func:`~saliency_entropy.data.human_maps.loading.keep_fraction`.
        seed: of the choice, and of the control ``shuffled``.
        blur, binarise, colormap: see :func:`~saliency_entropy.data.human_maps.loading.load_human_map`.
        control: ``none``, or what the training and validation images have in the place of their own map: the map of
            another image of their split (``shuffled``), a blob in the middle or a constant map, the same for all
            (``centre``, ``uniform``), or 1 minus the map (``inverted``); see
            :mod:`saliency_entropy.data.human_maps.controls`.
    """

    fraction: float = 1.0
    seed: int = 0
    blur: float = 0.0
    binarise: float | None = None
    colormap: str | None = None
    control: str = "none"

    def __post_init__(self) -> None:
        check_control(self.control)
        check_options(self.blur, self.binarise, self.colormap)


class FaceDataModule(pl.LightningDataModule):
    """Training, validation and test images of one data set.

    The batches depend on the data, ``seed``, the epoch and the batch size only: not on the number of workers, nor on
    what is held in memory.

    Args:
        name: of the data set, as in ``data=NAME``.
        source: reads the manifest; called once.
        image_size: S, in pixels.
        interpolation: of the images; the paper's is ``bilinear``.
        batch_size: of the training images, of all processes together where several train one detector.
        seed: of the order of the training images.
        map_size: ``(h, w)``, the CAM grid, in cells. Where the network that decides it is built after the manifest is
            read, it may be set later, before ``setup``.
        root: the data root, as the user gave it; ``source`` is what reads it.
        eval_batch_size: of the other images; as ``batch_size``, if not given.
        num_workers: processes that decode the images that are not kept; as many as there are cores, but no more than
            :data:`~saliency_entropy.data.loaders.MOST_WORKERS`, if not given.
        cache: where the decoded images are kept, 3 S^2 bytes each: ``disk``, once for all runs; ``memory`` of this
            process; ``none``: they are decoded each time that they are read.
        cache_folder: for ``disk``; see :mod:`saliency_entropy.data.cache`.
        cached_splits: the splits that are kept.
        check: ``decode`` every image before anything is trained, or read the ``headers`` only. Images that are kept
            are decoded in any case, and all are where ``skip_broken`` is set.
        skip_broken: leave out the images and human maps that cannot be used instead of refusing them all;
            :attr:`left_out` counts them.
        skip_last_batch_of_one: leave out a last training batch of one image, as the first author's script does.
        human_maps: the arguments of :class:`HumanMaps`.
        template_maps: give the training and validation images template maps; see
            :mod:`saliency_entropy.data.human_maps.templates`.
        train_batches: train on this many batches, the same in every epoch and of both classes where the data allow,
            for debugging. If not given, on all images, in other batches in each epoch.
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
        num_workers: int | None = None,
        cache: Literal["disk", "memory", "none"] = "memory",
        cache_folder: str | None = None,
        cached_splits: Sequence[str] = REPEATED,
        check: Literal["decode", "headers"] = "decode",
        skip_broken: bool = False,
        skip_last_batch_of_one: bool = False,
        human_maps: Mapping[str, object] | None = None,
        template_maps: bool = False,
        train_batches: int | None = None,
    ) -> None:
        super().__init__()
        for option, value, allowed in (("check", check, ("decode", "headers")), ("cache", cache, CACHES)):
            if value not in allowed:
                words = f"{', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}"
                raise UserError(f"data.{option} is {value!r}; it must be {words}")
        if interpolation not in INTERPOLATIONS:
            raise UserError(f"interpolation is {interpolation!r}; use one of {', '.join(INTERPOLATIONS)}")
        if cache == "disk" and not cache_folder:
            raise UserError("data.cache is 'disk', but data.cache_folder is not given; name a folder with room")
        unknown = [split for split in cached_splits if split not in SPLITS]
        if unknown:
            raise UserError(f"data.cached_splits names {unknown[0]!r}; choose from {', '.join(SPLITS)}")
        whole_number("data.batch_size", batch_size, 1)
        whole_number("data.num_workers", num_workers, 0, or_null=True)
        whole_number("data.train_batches", train_batches, 1, or_null=True)
        whole_number("data.eval_batch_size", eval_batch_size, 1, or_null=True)
        self.name = name
        self.source = source
        self.image_size = image_size
        self.map_size = map_size
        self.interpolation = interpolation
        self.batch_size = batch_size
        self.seed = seed
        self.root = root
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = worker_count(num_workers)
        self.cache = cache
        self.cache_folder = cache_folder
        self.cached_splits = tuple(cached_splits)
        self.check = check
        self.skip_broken = skip_broken
        self.skip_last_batch_of_one = skip_last_batch_of_one
        self.human_maps = HumanMaps(**human_maps or {})
        self.template_maps = template_maps
        self.train_batches = train_batches
        self._datasets: dict[str, FaceDataset] = {}

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of the images that are used; its files have been looked at, and its splits are complete. What is
        left out later is taken out of it.

        Raises:
            UserError: the table is wrong, a file is missing, or a split lacks images or a class.
        """
        manifest = self.source()
        if self.template_maps:
            maps = self.human_maps
            if maps.blur or maps.binarise is not None or maps.colormap is not None:
                raise UserError(
                    "data.template_maps is true, but data.human_maps.blur, binarise and colormap are for human maps; "
                    "leave out the one or the other"
                )
            manifest = with_template_maps(manifest)
        # Before anything is left out, so that a broken file does not decide which other images keep their maps.
        table = keep_fraction(manifest.table, self.human_maps.fraction, self.human_maps.seed)
        if (control := self.human_maps.control) != "none":
            if (table["human_map"][table["split"] == "train"] == "").all():
                raise UserError(
                    f"data.human_maps.control is {control}, but no training image of data {self.name} "
                    f"({manifest.origin}) has a human map that it could stand in for; give data with maps, or none"
                )
            if control == "shuffled":
                if self.template_maps:
                    raise UserError(
                        "data.human_maps.control is shuffled, but template maps are those of no image in particular; "
                        "choose another control"
                    )
                table = with_shuffled_maps(table, self.human_maps.seed)
        manifest = replace(manifest, table=table)
        if self.skip_broken:
            manifest = without_broken(manifest, file_problems(manifest), SKIP)
            _require_splits(manifest)
        else:
            _require_splits(manifest)
            check_files(manifest, SKIPS)
        return manifest

    @property
    def left_out(self) -> dict[str, dict[str, int]]:
        """The counts of ``images`` and ``human_maps`` that ``skip_broken`` left out so far, by split."""
        found = Counter(self.manifest.left_out)
        splits = dict.fromkeys(split for split, _ in found)
        return {split: {"images": found[split, "path"], "human_maps": found[split, "human_map"]} for split in splits}

    @property
    def train_generators(self) -> list[str]:
        """The generators of the synthetic training images, sorted; those of ``a+b`` (one of these) are two."""
        train = self.split_table("train")
        named = train["generator"][train["label"] == "synthetic"].unique()
        return sorted({generator for value in named for generator in value.split("+") if is_known(generator)})

    @property
    def relatives(self) -> list[str]:
        """The generators that are not in training, but of the family (column ``family``, if there is one) of one that
        is, as StyleGAN2-ADA where StyleGAN2 is; sorted. A family may be called by the name of a generator."""
        table = self.manifest.table[self.manifest.table["label"] == "synthetic"]
        families = table.get("family", pd.Series("", table.index)).fillna("").astype(str).str.strip().str.lower()
        trained = {*families[table["split"] == "train"], *map(str.lower, self.train_generators)} - {""}
        named = {part for value in table["generator"][families.isin(trained)].unique() for part in value.split("+")}
        return sorted(filter(is_known, named - {*self.train_generators}))

    def summary(self) -> dict[str, Any]:
        """What ``result.json`` says of the data: its generators, the CAM grid's cells, the manifest's digest, and how
        many images and files were left out; and the digest of the training and validation images, if it is known."""
        kinds = {kind: count for kind, count in self.manifest.unread if kind in Image.registered_extensions()}
        maps = self.human_maps
        kind = f"{maps.control} control" if maps.control != "none" else "template" * self.template_maps
        return {
            "train_generators": self.train_generators,
            **({"relatives": self.relatives} if self.relatives else {}),
            "cam_cells": math.prod(self.map_size),
            "data_hash": data_hash(self.manifest.table),
            # Of a part of the human maps, or dealt out anew, runs have others.
            "images_hash": images_hash(*self.decoded()) if maps.fraction == 1 and maps.control != "shuffled" else "",
            "left_out": self.left_out,
            "unread": kinds,
            # What stood in the place of the images' own human maps.
            **({"map_kind": kind} if kind else {}),
            # How map files are read: results without it are of versions that did not scale each to its own range.
            **({"map_range": DRAWN_WITH["range"]} if self.manifest.has_map_files else {}),
        }

    def decoded(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the N training and validation images that were set up, column ``path`` and the ``(N,)``
        ``FaceDataset.digests``."""
        paths = np.concatenate([self.split_table(split)["path"].to_numpy(dtype=object) for split in REPEATED])
        return paths, np.concatenate([self._datasets[split].digests for split in REPEATED])

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
        """Check and keep the splits that a stage (all, if None) needs, unless an earlier call did.

        Raises:
            UserError: names all files that cannot be used.
        """
        prepared, broken = {}, []
        for split in STAGES[stage] if stage else SPLITS:
            if split not in self._datasets:
                dataset = prepared[split] = self._dataset(split)
                if self._kept(split):
                    broken += dataset.keep(Path(self.cache_folder) if self.cache == "disk" else None)
                else:  # what is to be left out has to be found first
                    broken += dataset.broken(self.check == "decode" or self.skip_broken)
        if not self.skip_broken:
            refuse_broken(self.manifest, [(row, why) for row, _, why in broken], SKIPS)
        if broken:
            self.manifest = without_broken(self.manifest, broken, SKIP)
            _require_splits(self.manifest)
            images, human_maps = ([row for row, of, _ in broken if of == column] for column in ("path", "human_map"))
            for dataset in prepared.values():
                dataset.leave_out(images, human_maps)
        self._datasets |= prepared
        for split in prepared:
            if split in REPEATED:
                self._datasets[split].control = self._control
            log.info("%s", self._describe(split))
        self._warn_of_doubtful_data(prepared)

    @cached_property
    def _control(self) -> tuple[float, float | np.ndarray]:
        """(a, b): an image has a * h + b in the place of its human map h."""
        control = self.human_maps.control
        if control not in ("centre", "uniform"):
            return (-1, 1) if control == "inverted" else (1, 0)
        train = self._datasets.get("train") or self._dataset("train")
        maps = [train.human_map(index)[0] for index in np.flatnonzero(train.has_map)]
        if not maps:
            raise UserError(f"data.human_maps.control is {control}, but no training image has a map that can be used")
        return 0, constant_control(control, np.stack(maps))

    def _dataset(self, split: str) -> FaceDataset:
        maps = self.human_maps
        options = maps.blur, maps.binarise, maps.colormap
        transform = Transform(self.image_size, self.interpolation, self.map_size, *options)
        return FaceDataset(self.manifest, split, transform)

    def _warn_of_doubtful_data(self, prepared: Mapping[str, FaceDataset]) -> None:
        """One line in the log for what :mod:`saliency_entropy.check` says by row: maps that are probably none, and
        names of generators that are probably misspelt."""
        doubts = near_misses(self.manifest.table) if "test" in prepared else []
        for split in prepared if not self.template_maps else ():
            for kind, (found, of) in prepared[split].implausible_maps().items() if split in REPEATED else ():
                doubts += [f"{found} of {of} human maps of {split} {KINDS[kind]}"] if found else []
        if doubts:
            root = f" data.root={shlex.quote(str(self.root))}" if self.root else ""
            log.warning(
                "data %s: %s; %s data=%s%s, with the other data options of this command, shows them",
                self.name, ", ".join(doubts), typed("data"), self.name, root,
            )  # fmt: skip

    def bytes_to_keep(self) -> int:
        """The space that the images not yet cached will take: on the disk with ``cache=disk``, else in memory."""
        splits = [split for split in SPLITS if self._kept(split)]
        if self.cache == "disk":
            return sum(self._dataset(split).missing_bytes(Path(self.cache_folder)) for split in splits)
        return sum(len(self.split_table(split)) for split in splits) * 3 * self.image_size**2

    def train_dataloader(self) -> DataLoader[FaceBatch]:
        dataset = self._datasets["train"]
        # Its order is a function of seed + epoch, which a resumed run can repeat. The factor keeps the seeds apart:
        # else epoch 1 of seed 0 would be epoch 0 of seed 1, and ten runs of 150 epochs would share their orders.
        order = DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True, seed=1_000_000 * self.seed)
        if self.trainer is not None:
            # Where a run goes on, workers are given the first epoch's order before Lightning says which epoch it is.
            order.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        if self.train_batches is not None:
            order = self._alternating(order)[: self.train_batches * self.batch_size]
        drop_last = self.skip_last_batch_of_one and len(order) % self.batch_size == 1
        batches = SplitBatches(order, self.batch_size, drop_last, *self._process)
        if batches.left_out:
            log.warning(
                "the last batch of every epoch, of %d %s, is left out: it cannot be shared by %d devices; one device "
                "trains on it",
                batches.left_out, "image" if batches.left_out == 1 else "images", self._process[1],
            )  # fmt: skip
        return self._loader("train", batches)

    def _alternating(self, order: Iterable[int]) -> list[int]:
        """Real and synthetic images in turn, each class in the order given, while there are both."""
        order = np.array(list(order))
        labels = pd.Series(self._datasets["train"].labels[order])
        turns = labels.groupby(labels).cumcount()
        return order[turns.argsort(kind="stable")].tolist()

    def val_dataloader(self) -> DataLoader[FaceBatch]:
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader[FaceBatch]:
        return self._in_order("test")

    def predict_dataloader(self) -> list[DataLoader[FaceBatch]]:
        """The splits that a finished run is scored on: ``val``, ``test``."""
        return [self.val_dataloader(), self.test_dataloader()]

    @property
    def _process(self) -> tuple[int, int]:
        """The rank of this process and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _in_order(self, split: str) -> DataLoader[FaceBatch]:
        return self._loader(split, DealtBatches(len(self._datasets[split]), self.eval_batch_size, *self._process))

    def _loader(self, split: str, batches: Sampler[list[int]]) -> DataLoader[FaceBatch]:
        workers = 0 if self._kept(split) else self.num_workers
        return batch_loader(
            self._datasets[split],
            workers,
            batch_sampler=batches,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Seeds the workers. Without it they draw from torch's global generator, and what the model draws next
            # would depend on their number.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _kept(self, split: str) -> bool:
        return self.cache != "none" and split in self.cached_splits

    def _describe(self, split: str) -> str:
        table = self.split_table(split)
        kind = "template maps (not human maps)" if self.template_maps else "human maps"
        counts = ", ".join(f"{(table['label'] == label).sum()} {label}" for label in LABELS)
        return f"data {self.name}, {split}: {counts}; {(table['human_map'] != '').sum()} {kind}"


def _require_splits(manifest: Manifest) -> None:
    for split in SPLITS:
        labels = set(manifest.split(split)["label"])
        # One class alone cannot be learned from or validated on; what to score is up to the user.
        lacking = [label for label in LABELS if label not in labels] if split in REPEATED else []
        if not labels or lacking:
            what = f"{' and no '.join(lacking)} image" if labels else "image"
            raise UserError(
                f"{manifest.origin}: split {split} has no {what}; a study needs train, val and test images, of both "
                "classes in train and val"
            )
