"""The files of what the detectors of a study look at, which :mod:`saliency_entropy.scores.maps` makes.

``<study>/maps/<set>.npz`` holds the images (:class:`Sample`), ``<run>/maps/<set>.npz`` what one run makes of them
(:class:`RunMaps`). Both are plain arrays: nothing in them is unpickled, whoever wrote them.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.run.folder import write_atomically

# The run's own CAM, whichever class it is of; the same of two other choices of the class; and another kind of map.
KINDS = ("cam", "cam_true", "cam_difference", "grad_cam")
PICTURE = 112  # pixels, the side of the images that are kept for figures


@dataclass(frozen=True, eq=False)
class Sample:
    """The images that all runs of a study were shown.

    Attributes:
        sample: 16 hex digits of the images' rows in the manifest and of what is made of their human maps.
        row: ``(n,)`` int64, in the manifest's table.
        path: ``(n,)`` text, as in the manifest and the score tables.
        label: ``(n,)`` int64, 0 = real, 1 = synthetic.
        generator: ``(n,)`` text, "" of a real image.
        image: ``(n, 112, 112, 3)`` uint8 RGB.
        human_map: ``(n, h, w)`` float32 in [0, 1]; zeros where an image has none.
        has_map: ``(n,)`` bool.
    """

    sample: str
    row: np.ndarray
    path: np.ndarray
    label: np.ndarray
    generator: np.ndarray
    image: np.ndarray
    human_map: np.ndarray
    has_map: np.ndarray


@dataclass(frozen=True, eq=False)
class RunMaps:
    """What one run makes of a :class:`Sample`. Each map is ``(n, h, w)`` float32 in [0, 1], zeros if it is constant.

    Attributes:
        sample: of which sample.
        checkpoint: 16 hex digits of the weights.
        row: ``(n,)`` int64, in the manifest's table.
        cam: the CAM that the run is trained and scored with (``protocol.class_index``).
        cam_true: of the true class.
        cam_difference: of the difference of both logits, "synthetic" less "real".
        grad_cam: Grad-CAM of the predicted class, see
            :class:`~saliency_entropy.scores.maps.GradCam`.
    """

    sample: str
    checkpoint: str
    row: np.ndarray
    cam: np.ndarray
    cam_true: np.ndarray
    cam_difference: np.ndarray
    grad_cam: np.ndarray


# Of each array: what it holds (as NumPy abbreviates it), and its sides; equal letters stand for equal numbers.
Layout = dict[str, tuple[str, tuple[str | int, ...]]]
LAYOUTS: dict[type, Layout] = {
    Sample: {
        "sample": ("U", ()),
        "row": ("i", ("n",)),
        "path": ("U", ("n",)),
        "label": ("i", ("n",)),
        "generator": ("U", ("n",)),
        "image": ("u", ("n", PICTURE, PICTURE, 3)),
        "human_map": ("f", ("n", "h", "w")),
        "has_map": ("b", ("n",)),
    },
    RunMaps: {"sample": ("U", ()), "checkpoint": ("U", ()), "row": ("i", ("n",))}
    | {kind: ("f", ("n", "h", "w")) for kind in KINDS},
}
Kept = TypeVar("Kept", Sample, RunMaps)


def maps_file(folder: Path, name: str) -> Path:
    """Where the maps of a run, or the sample of a study, lie in its folder."""
    return folder / "maps" / f"{name}.npz"


def save_maps(path: Path, content: Sample | RunMaps) -> None:
    file = io.BytesIO()
    np.savez(file, **{name: getattr(content, name) for name in LAYOUTS[type(content)]})
    write_atomically(path, file.getbuffer())


def read_maps(path: Path, kind: type[Kept]) -> Kept:
    """What :func:`save_maps` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, holds pickled objects or something else.
    """
    layout = LAYOUTS[kind]
    try:
        with zipfile.ZipFile(path) as file:
            # Written without compression, so that a file takes no more memory than it has bytes.
            if any(member.compress_type != zipfile.ZIP_STORED for member in file.infolist()):
                raise ValueError("its arrays are compressed")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in layout}
        _check(arrays, layout)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged or malicious file makes the readers raise almost anything
        raise UserError(
            f"{path} cannot be read as plain arrays ({in_one_line(error)}), and nothing in it was executed; delete it "
            "and give experiments/focus.py again"
        ) from None
    return kind(**{name: str(array) if array.ndim == 0 else array for name, array in arrays.items()})


def _check(arrays: dict[str, np.ndarray], layout: Layout) -> None:
    sides: dict[str | int, int] = {}
    for name, (kind, shape) in layout.items():
        array = arrays[name]
        expected = tuple(
            side if isinstance(side, int) else sides.setdefault(side, number)
            for side, number in zip(shape, array.shape, strict=False)
        )
        if array.dtype.kind != kind or len(shape) != array.ndim or expected != array.shape:
            raise ValueError(f"{name} has type {array.dtype} and shape {array.shape}")
        if kind == "f" and not ((array >= 0) & (array <= 1)).all():
            raise ValueError(f"{name} has values that are not from 0 to 1")
