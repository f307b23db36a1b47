"""The decoy data set: the drawn faces of :mod:`saliency_entropy.data.builtin` with a shortcut beside the face.

It is a positive control: a detector that goes by the shortcut is right on the training and validation images, and at
chance on the test images. What guides a detector to the face must help here, or it does not work.
"""

from collections.abc import Sequence
from pathlib import Path

from saliency_entropy.data.builtin import draw_faces
from saliency_entropy.data.drawn.decoy import Decoy
from saliency_entropy.data.table import Manifest


def decoy_faces(
    folder: str | Path,
    seed: int,
    image_size: int,
    train: int,
    val: int,
    test: int,
    strength: float,
    on_synthetic: float,
    on_real: float,
    place: Sequence[float],
    size: float,
    defects: Sequence[str],
) -> Manifest:
    """The decoy data set; see :func:`~saliency_entropy.data.builtin.builtin_faces` for its first arguments and
    :class:`~saliency_entropy.data.drawn.decoy.Decoy` for the others.

    Returns:
        The manifest, with the further columns of the built-in faces and ``mark`` (``yes`` or ``no``).

    Raises:
        UserError: as these two.
    """
    decoy = Decoy(strength, on_synthetic, on_real, tuple(place), size, tuple(defects))
    return draw_faces(folder, seed, image_size, {"train": train, "val": val, "test": test}, decoy)
