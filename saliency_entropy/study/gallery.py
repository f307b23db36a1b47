"""Test images beside the CAMs of every method, for the page of a report.

``experiments/focus.py`` keeps the maps: ``<study>/maps/test.npz`` has the images and the human maps,
``<run>/maps/test.npz`` the CAMs of a run. A report without them says which command makes them.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image
from scipy.special import expit

from saliency_entropy.errors import UserError
from saliency_entropy.map_files import RunMaps, Sample, maps_file, read_maps
from saliency_entropy.metrics import seen_in_training
from saliency_entropy.study import wording
from saliency_entropy.study.figures import map_kind
from saliency_entropy.study.runs import Run, Study

SET = "test"
SCORED = ("path", "label", "generator", "logit_real", "logit_synthetic")
JPEG_QUALITY = 85
MAKE_MAPS = "python experiments/focus.py study=STUDY"
Kept = TypeVar("Kept", Sample, RunMaps)


@dataclass(frozen=True)
class View:
    """What a method makes of an image.

    Attributes:
        method: its name.
        title: how it is called.
        cam: data URI of the CAM in colours, a pixel a cell: the mean over its runs.
        score: the softmax score of "synthetic" in [0, 1], the mean over its runs.
        right: whether that score is on the side of 0.5 where the label is.
        runs_right: how many of its runs judge the image rightly.
        runs: how many runs these means are over.
    """

    method: str
    title: str
    cam: str
    score: float
    right: bool
    runs_right: int
    runs: int


@dataclass(frozen=True)
class GalleryImage:
    """A test image.

    Attributes:
        path: as in the manifest.
        group: its generator, or "real" with its source.
        seen: of a synthetic image, whether its generator is in training (yes, no or not known); "real" of others.
        photo: data URI.
        human_map: data URI of its map in colours, "" without one.
        views: a method each.
    """

    path: str
    group: str
    seen: str
    photo: str
    human_map: str
    views: list[View]


@dataclass(frozen=True)
class Gallery:
    """The images in the order in which they are shown, and sentences on what they are."""

    images: list[GalleryImage]
    notes: list[str]

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(image.group for image in self.images))

    @property
    def methods(self) -> dict[str, str]:
        """Method -> title."""
        return {view.method: view.title for image in self.images for view in image.views}

    @property
    def seen(self) -> set[str]:
        return {image.seen for image in self.images}


@dataclass(frozen=True, eq=False)
class Judgements:
    """Of the N images of a sample, a run's ``cams``, ``(N, h, w)`` in [0, 1], and ``scores``, ``(N,)`` in [0, 1]."""

    cams: np.ndarray
    scores: np.ndarray


def read_gallery(study: Study, count: int) -> Gallery | None:
    """Up to ``count`` of the images whose maps are kept; None for 0.

    Each generator and each source of real images gets as many places as the others, as far as it has images; of its
    images those are taken that lie evenly along their score, from those most surely held real to the most surely
    synthetic.

    Raises:
        UserError: ``count`` is not a whole number from 0 on, or maps are damaged or of other images than the scores.
    """
    if type(count) is not int or count < 0:
        raise UserError(f"gallery_images is {count!r}; give a whole number, 0 for a page without photographs")
    if count == 0:
        return None
    file = maps_file(study.folder, SET)
    sample = _read(file, Sample)
    if sample is None:
        return _empty("No images and CAMs are kept yet.")
    paths = _paths(file)
    if paths is None:
        return _empty("The images that are kept are not named, so that their scores cannot be found.")
    found = {run.name: found for run in study.runs if (found := _judgements(run, sample, paths)) is not None}
    if not found:
        return _empty("No run has CAMs of the images that are kept.")
    table = _by_path(study.runs[0], paths)
    groups = [_group(image) for image in table.to_dict("records")]
    chosen = evenly_chosen(groups, np.mean([run.scores for run in found.values()], axis=0), count)
    images = [
        GalleryImage(
            str(paths[place]),
            groups[place],
            _seen(table.iloc[place], study),
            _data_uri(Image.fromarray(sample.image[place]), "jpeg", quality=JPEG_QUALITY),
            _coloured(sample.human_map[place]) if sample.has_map[place] else "",
            [
                _view(method, study.titles[method], own, place, table["label"].iloc[place] == "synthetic")
                for method in study.methods
                if (own := [found[run.name] for run in study.of_method(method) if run.name in found])
            ],
        )
        for place in chosen
    ]
    return Gallery(images, _notes(study, images, [run.name for run in study.runs if run.name not in found]))


def evenly_chosen(groups: Sequence[str], scores: np.ndarray, count: int) -> np.ndarray:
    """Which of ``(N,)`` images to show: at most ``count`` places, the groups in the order of their names, the images of
    each by rising score."""
    members = {
        name: np.array(places)[np.argsort(scores[places], kind="stable")]
        for name, places in sorted(pd.Series(range(len(groups))).groupby(list(groups)).groups.items())
    }
    quotas = dict.fromkeys(members, 0)
    free = min(count, len(groups))
    while free:
        for name in [name for name in members if quotas[name] < len(members[name])][:free]:
            quotas[name] += 1
            free -= 1
    # The middle of each of as many equal parts.
    chosen = [
        own[((np.arange(quota) + 0.5) * len(own) / quota).astype(int)]
        for name, own in members.items()
        if (quota := quotas[name])
    ]
    return np.concatenate(chosen)


def _empty(why: str) -> Gallery:
    return Gallery([], [f"{why} {MAKE_MAPS} makes them; then write the report again."])


def _judgements(run: Run, sample: Sample, paths: np.ndarray) -> Judgements | None:
    """None where the run kept none of this sample."""
    maps = _read(maps_file(run.folder, SET), RunMaps)
    if maps is None or maps.sample != sample.sample:
        return None
    table = _by_path(run, paths)
    differences = table["logit_synthetic"].to_numpy(np.float64) - table["logit_real"].to_numpy(np.float64)
    return Judgements(maps.cam, expit(differences))


def _by_path(run: Run, paths: np.ndarray) -> pd.DataFrame:
    """The run's test scores of these images, in their order."""
    table = run.test_scores(SCORED).drop_duplicates("path").set_index("path")
    unknown = ~np.isin(paths, table.index)
    if unknown.any():
        raise UserError(
            f"{maps_file(run.folder.parent.parent, SET)} holds {wording.count(int(unknown.sum()), 'image')} that "
            f"{run.name} was not scored on, {paths[unknown][0]} for one; {MAKE_MAPS} overwrite=true makes it anew"
        )
    return table.loc[paths]


def _view(method: str, title: str, own: list[Judgements], place: int, synthetic: bool) -> View:
    scores = np.array([run.scores[place] for run in own])
    return View(
        method=method,
        title=title,
        cam=_coloured(_mean_map([run.cams[place] for run in own])),
        score=float(scores.mean()),
        right=bool((scores.mean() > 0.5) == synthetic),
        runs_right=int(((scores > 0.5) == synthetic).sum()),
        runs=len(own),
    )


def _read(path: Path, kind: type[Kept]) -> Kept | None:
    try:
        return read_maps(path, kind)
    except FileNotFoundError:
        return None


def _paths(file: Path) -> np.ndarray | None:
    """``(n,)`` text, the images of a sample as the manifest names them; None where they are not kept."""
    with np.load(file, allow_pickle=False) as arrays:
        return arrays.get("path")


def _group(image: dict[str, object]) -> str:
    if image["label"] == "synthetic":
        return str(image["generator"]) or "(generator not named)"
    source = image.get("source")
    return f"real, {source}" if isinstance(source, str) and source else "real"


def _seen(image: pd.Series, study: Study) -> str:
    return seen_in_training(image["generator"], study.train_generators) if image["label"] == "synthetic" else "real"


def _mean_map(cams: list[np.ndarray]) -> np.ndarray:
    """The mean of ``(h, w)`` maps; those of a coarser network are enlarged to the finest."""
    height, width = max(cam.shape for cam in cams)
    enlarged = [
        Image.fromarray(cam.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR) for cam in cams
    ]
    return np.mean([np.asarray(cam) for cam in enlarged], axis=0)


def _coloured(cells: np.ndarray) -> str:
    """A pixel a cell, which a browser enlarges smoothly, in the colours of
    :func:`~saliency_entropy.overlay.cam_overlay`."""
    colours = colormaps["plasma"](np.clip(cells.astype(np.float32), 0, 1))[..., :3]
    return _data_uri(Image.fromarray((colours * 255).round().astype(np.uint8)), "png")


def _data_uri(image: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _notes(study: Study, images: list[GalleryImage], missing: list[str]) -> list[str]:
    sentences = [
        f"{wording.count(len(images), 'test image')}: as many of each generator and each source of real images as of "
        "the others, as far as there are, and of these, images that lie evenly along their mean score.",
        "CAM: of the class that a run predicts, from 0 (dark violet) to 1 (yellow), the mean over the seeds of a "
        "method. Score: the softmax score of “synthetic”, the mean over the same seeds; right where it is on the "
        "label’s side of 0.5. In brackets: how many of the seeds are right.",
    ]
    if any(image.human_map for image in images) and (kind := map_kind(study)) != "human":
        sentences.append(f"The maps in the place of human ones are {kind} maps.")
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        sentences.append(f"No CAMs are kept of {', '.join(missing[:3])}{more}: {MAKE_MAPS} makes them.")
    return sentences
