"""The decoy of a drawn face: a small mark outside it that tells the label in training, and nothing in the test.

After decoy MNIST (Ross, Hughes, Doshi-Velez, "Right for the right reasons", IJCAI 2017): a shortcut that is known to
be there, and known to lead nowhere on the test images.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np

from saliency_entropy.data.drawn.defects import DEFECTS
from saliency_entropy.errors import UserError

# No drawn head, without its hair, reaches beyond this ellipse, in fractions of the image.
HEAD_CENTRE, HEAD_HALF_AXES = np.array([0.5, 0.51]), np.array([0.46, 0.57])
COLOURS = np.array([(255, 220, 0), (0, 60, 255)], dtype=np.float32)  # of its quarters, as on a chessboard


@dataclass(frozen=True)
class Decoy:
    """The mark, the images that have it, and the defects beside it.

    Attributes:
        strength: the mark's opacity, above 0 and 1 at most.
        on_synthetic, on_real: the probability that a synthetic and that a real training or validation image has the
            mark. A pair of a real and a synthetic test image has it on both, with the mean of the two probabilities, or
            on neither.
        place: (x, y) of the mark's centre, in fractions of the image.
        size: the mark's side, in fractions of the image.
        defects: a synthetic face has all of these kinds that it can have, at full strength.

    Raises:
        UserError: a value is out of range, or the mark does not lie beside the face.
    """

    strength: float
    on_synthetic: float
    on_real: float
    place: tuple[float, float]
    size: float
    defects: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, least in (("strength", "above"), ("on_synthetic", "from"), ("on_real", "from"), ("size", "above")):
            value = getattr(self, name)
            if not _in_unit_range(value) or (least == "above" and value == 0):
                raise UserError(f"data.source.{name} is {value!r}; give a number {least} 0 to 1")
        place = list(self.place)
        if len(place) != 2 or not all(map(_in_unit_range, place)):
            raise UserError(f"data.source.place is {place}; give x and y, two numbers from 0 to 1")
        unknown = [f"{kind!r}, which is no defect" for kind in self.defects if kind not in DEFECTS]
        if unknown or not self.defects:
            raise UserError(f"data.source.defects names {(*unknown, 'none')[0]}; choose from {', '.join(DEFECTS)}")
        low, high = (np.array(place) + sign * self.size / 2 for sign in (-1, 1))
        mark = f"the mark of data.source.size={self.size} at data.source.place={place}"
        if low.min() < 0 or high.max() > 1:
            raise UserError(f"{mark} does not lie within the image; make it smaller, or move it to the middle")
        if np.hypot(*((HEAD_CENTRE.clip(low, high) - HEAD_CENTRE) / HEAD_HALF_AXES)) < 1:
            raise UserError(f"{mark} would lie over the face; make it smaller, or move it to a corner")

    def box(self, side: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the mark in an image of ``side`` pixels; it has one pixel at least."""
        left, top = ((np.array(self.place) - self.size / 2) * side).round().astype(int).tolist()
        extent = max(1, round(self.size * side))
        return left, top, left + extent, top + extent

    def mark(self, pixels: np.ndarray) -> None:
        """Draw the mark into ``(S, S, 3)`` float RGB pixels."""
        left, top, right, bottom = self.box(len(pixels))
        under = pixels[top:bottom, left:right]
        later_half = (2 * np.arange(right - left) >= right - left).astype(int)
        under += self.strength * (COLOURS[later_half[:, None] ^ later_half] - under)


def _in_unit_range(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= 1
