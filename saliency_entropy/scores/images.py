"""The images that are scored: those of a study, read as its runs read them, or others."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from saliency_entropy.data import Manifest
from saliency_entropy.data.dataset import FaceDataset, Transform
from saliency_entropy.data.human_maps.templates import with_template_maps
from saliency_entropy.data.table import REPEATED, check_files, file_problems, without_broken
from saliency_entropy.errors import UserError, in_one_line, listing
from saliency_entropy.parallel import each, thread_count
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
        human_maps: ``blur`` and ``binarise`` of :class:`~saliency_entropy.data.dataset.Transform`, and whether the
            split has ``template_maps``.
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
        return Transform(image_size, interpolation, map_size, maps["blur"], maps["binarise"])

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
        read = instantiate(cfg.data.source)
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
    }
    skip_broken = bool(cfg.skip_broken or data.get("skip_broken"))
    if not skip_broken:
        check_files(manifest)
    else:
        manifest = without_broken(manifest, file_problems(manifest), SKIP)
    images = ScoredImages(manifest, cfg.split, str(data.get("name")), human_maps, skip_broken)
    # Only the headers of images: the pass, which decodes them, leaves out the others that cannot be used.
    return replace(images, manifest=images.without_broken(manifest, decode=False)) if skip_broken else images


def file_sizes(manifest: Manifest) -> np.ndarray:
    """``(N,)`` int64, the bytes of each image's file, which almost always reveal a change."""

    def size(name: str) -> int:
        file = manifest.file(name)
        try:
            return file.stat().st_size
        except OSError as error:
            raise UserError(f"{file} cannot be looked at ({error.strerror}); copy it again") from None

    paths = manifest.table["path"]
    return np.fromiter(each(size, paths, thread_count()), np.int64, len(paths))


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
                "human_maps": [maps.get("blur"), maps.get("binarise"), data.get("template_maps")],
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
