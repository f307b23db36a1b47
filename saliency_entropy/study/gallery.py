"""Test images beside the CAMs of every method, for the page of a report.

``experiments/focus.py`` keeps them. A report without them says which command makes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image
from scipy.special import expit

from saliency_entropy.errors import UserError
from saliency_entropy.metrics import seen_in_training
from saliency_entropy.page import wording
from saliency_entropy.page.web_page import data_uri
from saliency_entropy.run.console import typed
from saliency_entropy.run.ranking import ranking_scores
from saliency_entropy.scores.map_files import maps_file
from saliency_entropy.study.figures import map_kind
from saliency_entropy.study.focus import StudyMaps
from saliency_entropy.study.runs import Run, Study

SCORED = ("path", "label", "generator", "logit_real", "logit_synthetic")
JPEG_QUALITY = 85
MAKE_MAPS = f"{typed('focus')} study=STUDY"


@dataclass(frozen=True)
class View:
    """The CAM and the score that a method gives an image.

    Attributes:
        method: its name.
        title: its name in tables and figures.
        cam: data URI of the CAM in colours, one pixel for each cell: the mean over the method's runs.
        score: the softmax score of "synthetic" in [0, 1]: the mean over the method's runs.
        right: whether that score and the label are on the same side of 0.5.
        runs_right: the number of runs that judge the image rightly.
        runs: the number of runs of the method.
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
        seen: whether the generator of a synthetic image is in training (yes, no or not known); "real" for a real image.
        photo: data URI of the image.
        human_map: data URI of its human map in colours, "" without one.
        views: one for each method.
    """

    path: str
    group: str
    seen: str
    photo: str
    human_map: str
    views: list[View]


@dataclass(frozen=True)
class Gallery:
    """The images in the order in which they are shown, and sentences about them."""

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


def read_gallery(maps: StudyMaps | None, count: int) -> Gallery | None:
    """Up to ``count`` of the images whose maps are kept; None for 0.

    Each generator and each source of real images gets as many places as the others, as far as it has images. The images
    chosen of it lie evenly along their score, from the most surely real to the most surely synthetic.

    Args:
        maps: of a study's test images, if there are any.
        count: not negative.

    Raises:
        UserError: the maps are of other images than the scores.
    """
    if count == 0:
        return None
    if maps is None:
        return Gallery(
            [], [f"No CAMs are kept of test images yet. {MAKE_MAPS} makes them; then write the report again."]
        )
    study = maps.study
    tables = [_scores_of_images(run, maps) for run in maps.runs]
    groups, seen = zip(*(_kind(image, study) for image in tables[0].to_dict("records")), strict=True)
    scores = np.stack([expit(ranking_scores(table)["margin"]) for table in tables])
    synthetic = (tables[0]["label"] == "synthetic").to_numpy()
    images = [
        GalleryImage(
            str(maps.sample.path[place]),
            groups[place],
            seen[place],
            data_uri(Image.fromarray(maps.sample.image[place]), "jpeg", quality=JPEG_QUALITY),
            _coloured(maps.sample.human_map[place]) if maps.sample.has_map[place] else "",
            [
                _view(method, study.titles[method], maps.maps["cam"][own, place], scores[own, place], synthetic[place])
                for method, own in maps.methods.items()
            ],
        )
        for place in evenly_chosen(groups, scores.mean(axis=0), count)
    ]
    return Gallery(images, _notes(images, maps))


def evenly_chosen(groups: Sequence[str], scores: np.ndarray, count: int) -> np.ndarray:
    """The places in ``(N,)`` of at most ``count`` images to show: the groups in the order of their names, the images of
    each by rising score."""
    images = pd.DataFrame({"group": groups, "score": scores}).sort_values(["group", "score"], kind="stable")
    # Places go to the groups in turn, as long as these have images.
    in_turn = images.groupby("group").cumcount().sort_values(kind="stable").index
    quotas = images["group"].loc[in_turn[:count]].value_counts()
    # The middle of each of as many equal parts.
    chosen = [
        own.index[((np.arange(quotas[name]) + 0.5) * len(own) / quotas[name]).astype(int)]
        for name, own in images.groupby("group")
        if name in quotas
    ]
    return np.concatenate(chosen)


def _scores_of_images(run: Run, maps: StudyMaps) -> pd.DataFrame:
    """The run's test scores of the images that have maps, in the order of the maps."""
    paths = maps.sample.path
    table = run.test_scores(SCORED).set_index("path")
    unknown = ~np.isin(paths, table.index)
    if unknown.any():
        file = maps_file(maps.study.folder, maps.name)
        raise UserError(
            f"{file} holds {wording.count(int(unknown.sum()), 'image')} that {run.name} was not scored on, "
            f"{paths[unknown][0]} for one; {MAKE_MAPS} overwrite=true makes it anew"
        )
    return table.loc[paths]


def _view(method: str, title: str, cams: np.ndarray, scores: np.ndarray, synthetic: bool) -> View:
    """A method's view of an image, from the ``(R, h, w)`` CAMs and ``(R,)`` scores of its runs."""
    return View(
        method=method,
        title=title,
        cam=_coloured(cams.mean(axis=0)),
        score=float(scores.mean()),
        right=bool((scores.mean() > 0.5) == synthetic),
        runs_right=int(((scores > 0.5) == synthetic).sum()),
        runs=len(scores),
    )


def _kind(image: dict[str, object], study: Study) -> tuple[str, str]:
    """:attr:`GalleryImage.group` and :attr:`GalleryImage.seen` of a row of the scores."""
    if image["label"] == "synthetic":
        generator = str(image["generator"])
        return generator or "(generator not named)", seen_in_training(
            generator, study.train_generators, study.relatives
        )
    source = image.get("source")
    return f"real, {source}" if isinstance(source, str) and source else "real", "real"


def _coloured(cells: np.ndarray) -> str:
    """A picture of one pixel for each cell, which a browser enlarges smoothly, in the colours of
    :func:`~saliency_entropy.page.overlay.cam_overlay`."""
    colours = colormaps["plasma"](np.clip(cells.astype(np.float32), 0, 1))[..., :3]
    return data_uri(Image.fromarray((colours * 255).round().astype(np.uint8)), "png")


def _notes(images: list[GalleryImage], maps: StudyMaps) -> list[str]:
    sentences = [
        f"{wording.count(len(images), 'test image')}: as many of each generator and each source of real images as of "
        "the others, as far as there are, and of these, images that lie evenly along their mean score.",
        "CAM: of the class whose CAM the run is trained with, from 0 (dark violet) to 1 (yellow), the mean over the "
        "seeds of a method. Score: the softmax score of “synthetic”, the mean over the same seeds; right where it is "
        "on the label’s side of 0.5. Below: how many of the seeds are right.",
    ]
    if any(image.human_map for image in images) and (kind := map_kind(maps.study)) != "human":
        sentences.append(f"The maps in the place of human ones are {kind} maps.")
    return sentences + maps.problems
