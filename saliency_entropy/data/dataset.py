"""The images of one split with their human maps: decoded when asked for, held in memory, or kept on disk."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from saliency_entropy.cpu.cores import each, thread_count
from saliency_entropy.data.cache import CachedArrays, DecodeCache
from saliency_entropy.data.human_maps.implausible import LEAST_CELLS, implausible_shapes, repeated, shows
from saliency_entropy.data.human_maps.loading import DRAWN_WITH, load_human_map, on_grid
from saliency_entropy.data.human_maps.templates import TEMPLATE, template_map
from saliency_entropy.data.images import DataFile, Digested, check_header, check_pixels, joint_digest, load_channels
from saliency_entropy.data.table import LABELS, Manifest
from saliency_entropy.errors import UserError


class FaceBatch(NamedTuple):
    """B images with S x S pixels, and their human maps on a CAM grid of ``h x w`` cells.

    Attributes:
        image: ``(B, 3, S, S)`` uint8, RGB.
        label: ``(B,)`` int64, 0 = real, 1 = synthetic.
        human_map: ``(B, h, w)`` float32 in [0, 1]; zeros where an image has none.
        has_map: ``(B,)`` bool.
        row: ``(B,)`` int64, the row of each image in the manifest's table.
        digest: ``(B,)`` int64, of the bytes that each was decoded from, see ``FaceDataset.digests``.
    """

    image: Tensor
    label: Tensor
    human_map: Tensor
    has_map: Tensor
    row: Tensor
    digest: Tensor


@dataclass(frozen=True)
class Transform:
    """What is made of an image and its human map before they become tensors.

    Attributes:
        image_size: S, in pixels.
        interpolation: of the images; see :func:`~saliency_entropy.data.images.load_image`.
        map_size: ``(h, w)``, the CAM grid, in cells.
        blur, binarise, colormap: of the human maps; see
            :func:`~saliency_entropy.data.human_maps.loading.load_human_map`.
    """

    image_size: int
    interpolation: str
    map_size: tuple[int, int]
    blur: float = 0.0
    binarise: float | None = None
    colormap: str | None = None


class FaceDataset(Dataset[FaceBatch]):
    """The images of one split, in the manifest's order; an item is a :class:`FaceBatch` without its dimension B.

    Each image and its map come from the same row of the manifest; nothing is matched by name.
    """

    def __init__(self, manifest: Manifest, split: str, transform: Transform) -> None:
        table = manifest.split(split)
        self.manifest = manifest
        # Arrays, not lists: forked workers would copy 700,000 Python objects, page by page, by counting references.
        self.rows = table.index.to_numpy()
        self.labels = table["label"].map(LABELS.index).to_numpy(dtype=np.int64)
        self.has_map = (table["human_map"] != "").to_numpy()
        # Where the image and the map of each item are in the two columns, which keep what is left out later.
        self._places = np.arange(len(table))
        size, interpolation, grid = transform.image_size, transform.interpolation, transform.map_size
        self._images = _Column(
            _Files(table["path"].array, partial(_image_files, manifest)),
            partial(read_image, size=size, interpolation=interpolation),
            (3, size, size), np.uint8, "images", {"image_size": size, "interpolation": interpolation},
        )  # fmt: skip
        options = {"blur": transform.blur, "binarise": transform.binarise, "colormap": transform.colormap}
        if manifest.template_maps:
            maps = _Files(table["path"].where(self.has_map, "").array, _template_paths)
            read_map = partial(_read_template, grid=grid)
        else:
            maps = _Files(table["human_map"].array, manifest.map_files)
            read_map = partial(load_human_map, grid=grid, **options)
        self._maps = _Column(maps, read_map, grid, np.float32, "human_maps", options | DRAWN_WITH)
        self._no_map = np.zeros(grid, dtype=np.float32)
        self.control: tuple[float, float | np.ndarray] = (1, 0)  # (a, b): a * h + b stands in for the human map h

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> FaceBatch:
        """Raises UserError, naming file and row, if the image or its map cannot be used."""
        place = self._places[index]
        try:
            image, digest = self._images[place]
            human_map, map_digest = self.human_map(index) if self.has_map[index] else (self._no_map, 0)
        except UserError as error:
            where = self.manifest.where(int(self.rows[index]))
            raise UserError(f"{self.manifest.origin}: {where}: {error}") from None
        return FaceBatch(
            torch.from_numpy(image),
            torch.tensor(self.labels[index]),
            torch.from_numpy(human_map),
            torch.tensor(self.has_map[index]),
            torch.tensor(self.rows[index]),
            torch.tensor(digest + map_digest),
        )

    def human_map(self, index: int) -> tuple[np.ndarray, int]:
        """``(h, w)`` float32, of an image that has one, or its control; and the digest of the map's files."""
        factor, offset = self.control
        human_map, digest = self._maps[self._places[index]]
        return factor * human_map + offset, digest

    @property
    def digests(self) -> np.ndarray:
        """``(N,)`` int64: for each image the sum of the digests of its file and of those of its human map, of the bytes
        that were decoded; 0 if not known, since the image was not decoded yet."""
        images, maps = (column.digests[self._places] for column in (self._images, self._maps))
        return np.where(images == 0, 0, images + self.has_map * maps)

    def keep(self, cache_folder: Path | None) -> list[tuple[int, str, str]]:
        """Decode all images and maps once and keep them, on disk below ``cache_folder``, or in memory if it is None.

        Returns:
            (row, column, reason) of each image (column ``path``) and map (``human_map``) that cannot be used.

        Raises:
            UserError: ``cache_folder`` cannot be written to, or has too little room.
        """
        without_files = self.manifest.template_maps or not self.has_map.any()
        return self._located(self._images.keep(cache_folder), self._maps.keep(None if without_files else cache_folder))

    def missing_bytes(self, cache_folder: Path) -> int:
        """What the images that are not there yet will add below ``cache_folder``; the maps are small beside them."""
        return self._images.cache(cache_folder).missing_bytes(self._images.files)

    def broken(self, decode: bool) -> list[tuple[int, str, str]]:
        """As :meth:`keep`, of images that are not kept: ``decode`` them, or read their headers only. Maps, which are
        small and few, are kept in memory in any case."""
        look = check_pixels if decode else lambda file: check_header(file.file)
        images = self._images.failures(lambda _, files: look(files[0]))
        return self._located(images, self._maps.keep(None))

    def implausible_maps(self) -> dict[str, tuple[int, int]]:
        """How many of the human maps, which have been kept, are of each of the
        :data:`~saliency_entropy.data.human_maps.implausible.KINDS`, and how many were looked at: all of them, but for
        ``image itself`` 64 at most, spread over the split, since an image costs more than its map."""
        with_map = np.flatnonzero(self.has_map)
        if not len(with_map) or min(self._no_map.shape) < LEAST_CELLS:
            return {}
        maps = np.stack([self._maps[place][0] for place in self._places[with_map]])
        kinds = implausible_shapes(maps) | {"same map": repeated(maps)}
        items = [self[index] for index in with_map[:: math.ceil(len(maps) / 64)]]
        pictures = [Image.fromarray(item.image.movedim(0, -1).numpy()) for item in items]
        shown = [shows(item.human_map.numpy(), picture) for item, picture in zip(items, pictures, strict=True)]
        kinds["image itself"] = np.array(shown)
        return {kind: (int(which.sum()), len(which)) for kind, which in kinds.items()}

    def _located(self, images: Mapping[int, str], maps: Mapping[int, str]) -> list[tuple[int, str, str]]:
        return [
            (int(self.rows[index]), column, reason)
            for column, broken in (("path", images), ("human_map", maps))
            for index, reason in broken.items()
        ]

    def leave_out(self, images: Sequence[int], human_maps: Sequence[int]) -> None:
        """Leave out the images, and the human maps of the images, in these rows of the manifest."""
        self.has_map = self.has_map & ~np.isin(self.rows, human_maps)
        kept = ~np.isin(self.rows, images)
        self.rows, self.labels, self.has_map = self.rows[kept], self.labels[kept], self.has_map[kept]
        self._places = self._places[kept]


class _Files(Sequence[Sequence[DataFile]]):
    """The files of each item, made when asked for: 700,000 paths would be 300 MB of Python objects.

    An item without a human map has no file.
    """

    def __init__(self, names: Sequence[str], files: Callable[[str], list[DataFile]]) -> None:
        self._names = names
        self._files = files

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> list[DataFile]:
        return self._files(self._names[index])


@dataclass
class _Column:
    """The images, or the human maps, of a split: one array an item, decoded each time that it is asked for until all
    are kept.

    Attributes:
        files: of each item.
        read: makes the array of an item from its files; raises UserError if they cannot be used.
        shape, dtype: of the array of an item.
        name: of the folder in the cache.
        settings: everything besides the files that the arrays depend on.
        kept: the arrays, once they are kept.
        digests: ``(N,)`` int64, of the bytes that each item was decoded from, once it was kept or looked at.
    """

    files: _Files
    read: Callable[[Sequence[DataFile]], np.ndarray]
    shape: tuple[int, ...]
    dtype: type
    name: str
    settings: dict[str, object]
    kept: np.ndarray | CachedArrays | None = None

    def __post_init__(self) -> None:
        self.digests = np.zeros(len(self.files), np.int64)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """The array of an item, and the digest of the bytes that it was decoded from."""
        if self.kept is not None:
            return self.kept[index], int(self.digests[index])
        files = [Digested(file) for file in self.files[index]]
        return self.read(files), joint_digest(files)

    def cache(self, folder: Path) -> DecodeCache:
        return DecodeCache(folder / self.name, self.settings, self.shape, self.dtype)

    def keep(self, cache_folder: Path | None) -> dict[int, str]:
        """Decode every item and keep its array, on disk or in memory; index -> reason, of those that cannot be used."""
        if cache_folder is not None:
            self.kept = self.cache(cache_folder).open(self.files, self.read)
            self.digests = self.kept.digests
            return self.kept.broken
        arrays = self.kept = np.zeros((len(self.files), *self.shape), dtype=self.dtype)
        return self.failures(lambda index, files: np.copyto(arrays[index], self.read(files)))

    def failures(self, use: Callable[[int, Sequence[Digested]], object]) -> dict[int, str]:
        """Use the files of every item that has files, on all cores; index -> reason, of those that cannot be used."""

        def reason(index: int) -> str | None:
            files = [Digested(file) for file in self.files[index]]
            try:
                if files:
                    use(index, files)
            except UserError as error:
                return str(error)
            finally:
                self.digests[index] = joint_digest(files)
            return None

        reasons = each(reason, range(len(self.files)), thread_count())
        return {index: why for index, why in enumerate(reasons) if why}


def _image_files(manifest: Manifest, name: str) -> list[DataFile]:
    return [manifest.file(name)]


def _template_paths(path: str) -> list[str]:
    return [path] if path else []


def read_image(files: Sequence[DataFile], size: int, interpolation: str) -> np.ndarray:
    """One image as ``(3, S, S)`` uint8; see :func:`~saliency_entropy.data.images.load_channels`."""
    (file,) = files
    return load_channels(file, size, interpolation)


def _read_template(paths: Sequence[str], grid: tuple[int, int]) -> np.ndarray:
    (path,) = paths
    return on_grid(template_map(str(path)), grid, TEMPLATE)
