"""The files of the maps of a study's detectors, which :mod:`saliency_entropy.scores.maps` makes.

``<study>/maps/<set>.npz`` holds the images (:class:`Sample`), ``<run>/maps/<set>.npz`` what one run makes of them
(:class:`RunMaps`). Both are plain arrays: nothing in them is unpickled, whoever wrote them.
"""

import io
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, TypeVar, get_type_hints

import numpy as np

from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.run.console import typed
from saliency_entropy.run.whole_files import write_atomically

# The run's own CAM, whichever class it shows; the CAM of two other choices of the class; and another kind of map.
KINDS = ("cam", "cam_true", "cam_difference", "grad_cam")
PICTURE = 112  # pixels, the side of the images that are kept for figures

# The annotation of an array gives the type of its values (text U, whole numbers i and u, fractions from 0 to 1 f, truth
# values b) and its shape, in which the same letter stands for the same number in all arrays of a file.
Map = Annotated[np.ndarray, "f", "n", "h", "w"]


@dataclass(frozen=True, eq=False)
class Sample:
    """The images that all runs of a study were shown."""

    sample: Annotated[str, "U"]  # 16 hex digits of the images' rows in the manifest and of what is made of their maps
    row: Annotated[np.ndarray, "i", "n"]  # in the manifest's table
    path: Annotated[np.ndarray, "U", "n"]  # as in the manifest and the score tables
    label: Annotated[np.ndarray, "i", "n"]  # 0 = real, 1 = synthetic
    generator: Annotated[np.ndarray, "U", "n"]  # "" of a real image
    image: Annotated[np.ndarray, "u", "n", PICTURE, PICTURE, 3]  # RGB
    human_map: Map  # zeros where an image has none
    has_map: Annotated[np.ndarray, "b", "n"]


@dataclass(frozen=True, eq=False)
class RunMaps:
    """What one run makes of a :class:`Sample`. A map that is constant is zeros."""

    sample: Annotated[str, "U"]  # that of the images
    checkpoint: Annotated[str, "U"]  # 16 hex digits of the weights
    row: Annotated[np.ndarray, "i", "n"]  # in the manifest's table
    cam: Map  # which the run is trained and scored with (protocol.class_index)
    cam_true: Map  # of the true class
    cam_difference: Map  # of the logit "synthetic" less the logit "real"
    grad_cam: Map  # of the predicted class, see saliency_entropy.scores.maps.GradCam


Kept = TypeVar("Kept", Sample, RunMaps)


def maps_file(folder: Path, name: str) -> Path:
    """Where the maps of a run, or the sample of a study, lie in its folder."""
    return folder / "maps" / f"{name}.npz"


def save_maps(path: Path, content: Sample | RunMaps) -> None:
    file = io.BytesIO()
    np.savez(file, **{item.name: getattr(content, item.name) for item in fields(content)})
    write_atomically(path, file.getbuffer())


def read_maps(path: Path, kind: type[Kept]) -> Kept:
    """What :func:`save_maps` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, holds pickled objects or something else.
    """
    try:
        with zipfile.ZipFile(path) as file:
            # Written without compression, so that a file takes no more memory than it has bytes.
            if any(member.compress_type != zipfile.ZIP_STORED for member in file.infolist()):
                raise ValueError("its arrays are compressed")
        with np.load(path, allow_pickle=False) as file:
            arrays = {item.name: file[item.name] for item in fields(kind)}
        _check(arrays, kind)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged or malicious file makes the readers raise almost anything
        raise UserError(
            f"{path} cannot be read as plain arrays ({in_one_line(error)}), and nothing in it was executed; delete it "
            f"and give {typed('focus')} again"
        ) from None
    return kind(**{name: str(array) if array.ndim == 0 else array for name, array in arrays.items()})


def _check(arrays: dict[str, np.ndarray], kept: type[Kept]) -> None:
    numbers: dict[str | int, int] = {}
    for name, annotation in get_type_hints(kept, include_extras=True).items():
        array, (kind, *sides) = arrays[name], annotation.__metadata__
        expected = tuple(
            side if isinstance(side, int) else numbers.setdefault(side, number)
            for side, number in zip(sides, array.shape, strict=False)
        )
        if array.dtype.kind != kind or len(sides) != array.ndim or expected != array.shape:
            raise ValueError(f"{name} has type {array.dtype} and shape {array.shape}")
        if kind == "f" and not ((array >= 0) & (array <= 1)).all():
            raise ValueError(f"{name} has values that are not from 0 to 1")
