"""The images that are scored: those of a study, read as its runs read them, or others."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from saliency_entropy.cpu.cores import each, thread_count
from saliency_entropy.data import Manifest
from saliency_entropy.data.dataset import FaceDataset, Transform
from saliency_entropy.data.human_maps.templates import with_template_maps
from saliency_entropy.data.images import Digested, joint_digest
from saliency_entropy.data.listed_files import check_files, file_problems, without_broken
from saliency_entropy.data.table import REPEATED
from saliency_entropy.errors import UserError, in_one_line, listing
from saliency_entropy.run.folder import read_config

SKIP = "skip_broken"
# The readers that a study's own config.yaml may name: the file is data, and must not choose what is called.
READERS = {
    f"saliency_entropy.data.{reader}"
    for reader in ("builtin.builtin_faces", "decoy.decoy_faces", "folder_tree.folder_tree", "manifest.read_manifest",
                   "shards.read_shards", "und_cyborg.und_cyborg")
}  # fmt: skip
# The errors raised by reading a damaged or foreign configuration.
UNUSABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, YAMLError, OmegaConfBaseException)


@dataclass(frozen=True)
class ScoredImages:
    """The images that are scored, and how they are read.

    Attributes:
        manifest: with the rows of one split only.
        split: the name of that split.
        data_name: of the data set, as in ``data=NAME``.
        human_maps: ``blur``, ``binarise`` and, where it is given, ``colormap`` of
            :class:`~saliency_entropy.data.dataset.Transform`, and whether the split has ``template_maps``.
        skip_broken: leave out what cannot be used.
    """

    manifest: Manifest
    split: str
    data_name: str
    human_maps: dict[str, Any]
    skip_broken: bool

    def transform(self, image_size: int, interpolation: str, map_size: tuple[int, int]) -> Transform:
        """The transform for a network with this image size, interpolation and CAM grid."""
        maps = self.human_maps
        return Transform(image_size, interpolation, map_size, maps["blur"], maps["binarise"], maps.get("colormap"))

    def without_broken(self, checked: Manifest, decode: bool) -> Manifest:
        """The manifest without the images and human maps that cannot be used.

        Args:
            checked: the rows of the manifest that are looked at.
            decode: look at every pixel of the images, or at their headers only.
        """
        dataset = FaceDataset(checked, self.split, self.transform(32, "bilinear", (7, 7)))
        return without_broken(self.manifest, dataset.broken(decode), SKIP)


def read_images(cfg: DictConfig, folders: Sequence[Path]) -> ScoredImages:
    """The images to score: of other data, or of the study's own, which are read as its runs read them."""
    if "data" in cfg:
        data = OmegaConf.to_container(cfg.data, resolve=True)
        read = instantiate(cfg.data.source, _convert_="all")
    else:
        data = _own_data(folders)
        # Called with plain values, not instantiated: names in them are never resolved.
        source = {key: value for key, value in data["source"].items() if key not in ("_target_", "_partial_")}
        read = partial(get_method(data["source"]["_target_"]), **source)
    manifest = with_template_maps(read()) if data.get("template_maps") else read()
    manifest = replace(manifest, table=manifest.split(cfg.split))
    if manifest.table.empty:
        raise UserError(f"{manifest.origin}: split {cfg.split} has no image to score")
    options = data.get("human_maps") or {}
    human_maps = {
        "blur": options.get("blur", 0.0),
        "binarise": options.get("binarise"),
        "template_maps": manifest.template_maps and cfg.split in REPEATED,
    } | {key: options[key] for key in ("colormap",) if options.get(key)}  # stored scores lack it where it is not given
    skip_broken = bool(cfg.skip_broken or data.get("skip_broken"))
    if not skip_broken:
        check_files(manifest)
    else:
        manifest = without_broken(manifest, file_problems(manifest), SKIP)
    images = ScoredImages(manifest, cfg.split, str(data.get("name")), human_maps, skip_broken)
    # Only the headers of images: the pass, which decodes them, leaves out the others that cannot be used.
    return replace(images, manifest=images.without_broken(manifest, decode=False)) if skip_broken else images


def file_sizes(manifest: Manifest) -> np.ndarray:
    """``(N,)`` int64, the bytes of each image's file, by which earlier versions knew images again."""
    return _of_each(manifest.table, lambda path, _: manifest.file(path).stat().st_size)


def file_digests(manifest: Manifest, rows: Sequence[int] | None = None) -> np.ndarray:
    """As ``FaceDataset.digests``, of the bytes that are there now: the files of all
    images, or of those in some ``rows``, are read, and none is decoded."""

    def digest(path: str, maps: str) -> int:
        names = [] if manifest.template_maps else manifest.map_files(maps)
        files = [Digested(file) for file in (manifest.file(path), *names)]
        for file in files:
            file.open("rb")
        return joint_digest(files)

    return _of_each(manifest.table if rows is None else manifest.table.loc[rows], digest)


def _of_each(table: pd.DataFrame, number: Callable[[str, str], int]) -> np.ndarray:
    """A number of each image, from its ``path`` and ``human_map``; 0 where a file cannot be read."""

    def number_or_0(cells: tuple[str, str]) -> int:
        with suppress(OSError, UserError):
            return number(*cells)
        return 0

    cells = zip(table["path"], table["human_map"], strict=True)
    return np.fromiter(each(number_or_0, cells, thread_count()), np.int64, len(table))


def _own_data(folders: Sequence[Path]) -> dict[str, Any]:
    """The ``data`` that the configurations of all runs have in common.

    Raises:
        UserError: they cannot be read, differ, or name a function that does not read a data set.
    """
    remedy = "give data=... data.root=... set=..."
    found: dict[Path, dict[str, Any]] = {}
    for folder in folders:
        path = folder / "config.yaml"
        try:
            data = read_config(folder)["data"]
            source, maps = data["source"], data.get("human_maps") or {}
            known = source.get("_target_") in READERS and not any(isinstance(value, dict) for value in source.values())
            if known:
                arguments = {key: value for key, value in source.items() if key not in ("_target_", "_partial_")}
                inspect.signature(get_method(source["_target_"])).bind(**arguments)
            found[path] = {
                # The folder of drawn faces does not matter: they are the same wherever they are drawn.
                "source": {key: value for key, value in source.items() if key != "folder"},
                "human_maps": [maps.get(key) for key in ("blur", "binarise", "colormap")] + [data.get("template_maps")],
            }
        except UNUSABLE as error:
            raise UserError(f"{path} does not say what data the run had ({in_one_line(error)}); {remedy}") from None
        if not known:
            raise UserError(f"{path} names no reader of this package; {remedy}")
    (first, expected), *others = found.items()
    differing = [str(path) for path, data in others if data != expected]
    if differing:
        raise UserError(f"other data than in {first} are named in {listing(differing)}; {remedy}, or split the study")
    return read_config(first.parent)["data"]
