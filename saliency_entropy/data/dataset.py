"""The images of one split with their human maps: decoded when asked for, held in memory, or kept on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from saliency_entropy.data.cache import DecodeCache
from saliency_entropy.data.images import DataFile, check_header, check_pixels, load_channels
from saliency_entropy.data.maps.human_maps import DRAWN_WITH, load_human_map, on_grid
from saliency_entropy.data.maps.templates import template_map
from saliency_entropy.data.table import LABELS, Manifest
from saliency_entropy.errors import UserError
from saliency_entropy.parallel import each, thread_count

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


class Arrays(Protocol):
    """One array an item; raises UserError where an item that is decoded when asked for cannot be used."""

    def __getitem__(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Transform:
    """What is made of an image and its human map before they become tensors.

    Attributes:
        image_size: S, in pixels.
        interpolation: of the images; see :func:`~saliency_entropy.data.images.load_image`.
        map_size: ``(h, w)``, the CAM grid, in cells.
        blur, binarise: of the human maps; see :func:`~saliency_entropy.data.maps.human_maps.load_human_map`.
        template_maps: column human_map holds no files; "template" there stands for a template map.
    """

    image_size: int
    interpolation: str
    map_size: tuple[int, int]
    blur: float = 0.0
    binarise: float | None = None
    template_maps: bool = False


class FaceDataset(Dataset[FaceBatch]):
    """The images of one split, in the manifest's order; an item is a :class:`FaceBatch` without its dimension B.

    Each image and its map come from the same row of the manifest; nothing is matched by name.
    """

    def __init__(self, manifest: Manifest, split: str, transform: Transform) -> None:
        table = manifest.split(split)
        self.manifest = manifest
        self.transform = transform
        # Arrays, not lists: forked workers would copy 700,000 Python objects, page by page, by counting references.
        self.rows = table.index.to_numpy()
        self.labels = table["label"].map(LABELS.index).to_numpy(dtype=np.int64)
        self.has_map = (table["human_map"] != "").to_numpy()
        # Of each item, where its image and its map are among the arrays, which also hold those that were left out.
        self._places = np.arange(len(table))
        self._image_files = _Files(table["path"].array, partial(_image_files, manifest))
        self._read_image = partial(read_image, size=transform.image_size, interpolation=transform.interpolation)
        if transform.template_maps:
            self._map_files = _Files(table["path"].where(self.has_map, "").array, _template_paths)
            self._read_map = partial(_read_template, grid=transform.map_size)
        else:
            self._map_files = _Files(table["human_map"].array, manifest.map_files)
            self._read_map = partial(
                load_human_map, grid=transform.map_size, blur=transform.blur, binarise=transform.binarise
            )
        self._no_map = np.zeros(transform.map_size, dtype=np.float32)
        self._images: Arrays = _Decoding(self._image_files, self._read_image)
        self._maps: Arrays = _Decoding(self._map_files, self._read_map)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> FaceBatch:
        """Raises UserError, naming file and row, if the image or its map cannot be used."""
        place = self._places[index]
        try:
            image = self._images[place]
            human_map = self._maps[place] if self.has_map[index] else self._no_map
        except UserError as error:
            where = self.manifest.where(int(self.rows[index]))
            raise UserError(f"{self.manifest.origin}: {where}: {error}") from None
        return FaceBatch(
            torch.from_numpy(image),
            torch.tensor(self.labels[index]),
            torch.from_numpy(human_map),
            torch.tensor(self.has_map[index]),
            torch.tensor(self.rows[index]),
        )

    def keep(self, cache_folder: Path | None) -> list[tuple[int, str, str]]:
        """Decode all images and maps once and keep them, on disk below ``cache_folder``, or in memory if it is None.

        Returns:
            (row, column, reason) of each image (column ``path``) and map (``human_map``) that cannot be used.

        Raises:
            UserError: ``cache_folder`` cannot be written to, or has too little room.
        """
        size, grid = self.transform.image_size, self.transform.map_size
        images = (self._image_files, self._read_image, (3, size, size), np.uint8)
        maps = (self._map_files, self._read_map, grid, np.float32)
        if cache_folder is None:
            self._images, broken_images = _in_memory(*images)
            self._maps, broken_maps = _in_memory(*maps)
        else:
            self._images = self._image_cache(cache_folder).open(self._image_files, self._read_image)
            broken_images = self._images.broken
            if self.transform.template_maps or not self.has_map.any():  # no files
                self._maps, broken_maps = _in_memory(*maps)
            else:
                map_settings = {"blur": self.transform.blur, "binarise": self.transform.binarise} | DRAWN_WITH
                self._maps, broken_maps = _on_disk(cache_folder / "human_maps", map_settings, *maps)
        return self._located(broken_images, broken_maps)

    def missing_bytes(self, cache_folder: Path) -> int:
        """What the images that are not there yet will add below ``cache_folder``; the maps are small beside them."""
        return self._image_cache(cache_folder).missing_bytes(self._image_files)

    def _image_cache(self, folder: Path) -> DecodeCache:
        size = self.transform.image_size
        settings = {"image_size": size, "interpolation": self.transform.interpolation}
        return DecodeCache(folder / "images", settings, (3, size, size), np.uint8)

    def broken(self, decode: bool) -> list[tuple[int, str, str]]:
        """As :meth:`keep`, of images that are not kept: ``decode`` them, or read their headers only. Maps, which are
        small and few, are read in any case."""
        look = check_pixels if decode else check_header
        images = _failures(self._image_files, lambda _, files: look(files[0]))
        maps = _failures(self._map_files, lambda _, files: self._read_map(files))
        return self._located(images, maps)

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


class _Decoding:
    """Decodes an item each time that it is asked for."""

    def __init__(self, files: _Files, read: Callable[[Sequence[DataFile]], np.ndarray]) -> None:
        self._files = files
        self._read = read

    def __getitem__(self, index: int) -> np.ndarray:
        return self._read(self._files[index])


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
    return on_grid(template_map(path), grid, TEMPLATE)


def _failures(files: _Files, use: Callable[[int, Sequence[DataFile]], object]) -> dict[int, str]:
    """Use the files of every item that has some, on all cores; index -> reason, of those that cannot be used."""

    def reason(index: int) -> str | None:
        try:
            if of_item := files[index]:
                use(index, of_item)
        except UserError as error:
            return str(error)
        return None

    reasons = each(reason, range(len(files)), thread_count())
    return {index: why for index, why in enumerate(reasons) if why}


def _in_memory(
    files: _Files, read: Callable[[Sequence[DataFile]], np.ndarray], shape: tuple[int, ...], dtype: type
) -> tuple[Arrays, dict[int, str]]:
    arrays = np.zeros((len(files), *shape), dtype=dtype)
    return arrays, _failures(files, lambda index, of_item: np.copyto(arrays[index], read(of_item)))


def _on_disk(
    folder: Path,
    settings: dict[str, object],
    files: _Files,
    read: Callable[[Sequence[DataFile]], np.ndarray],
    shape: tuple[int, ...],
    dtype: type,
) -> tuple[Arrays, dict[int, str]]:
    arrays = DecodeCache(folder, settings, shape, dtype).open(files, read)
    return arrays, arrays.broken
