"""The ways in which a made-up generator gets a face wrong.

A *defect* changes some of the numbers in one place of the face (an odd pupil, teeth that do not match, one earring of
another kind) by a strength from 0 to 1, and returns a stroke over that place. The face is then drawn like any other:
the drawing knows nothing of what is real.
"""

import math
from collections.abc import Callable

import numpy as np

from saliency_entropy.data.drawn.face import IRISES, METALS, Face, Ripple, Stroke


def _pupil(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    side = int(rng.integers(2))
    eye = face.eyes[side]
    angle = rng.uniform(0, 2 * math.pi)
    eye.pupil_waves = (rng.uniform(0.3, 0.6) * strength, rng.uniform(0.2, 0.5) * strength)
    eye.pupil_offset = (0.45 * strength * math.cos(angle), 0.45 * strength * math.sin(angle))
    eye.pupil *= 1 + (0.5 if rng.random() < 0.6 else -0.5) * strength
    return face.stroke_over_eye(side)


def _iris(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    side = int(rng.integers(2))
    eye = face.eyes[side]
    target = IRISES[np.argmax(np.abs(IRISES - eye.iris).sum(axis=1))]
    eye.iris = eye.iris + (0.4 + 0.6 * strength) * (target - eye.iris)
    return face.stroke_over_eye(side)


def _highlight(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    side = int(rng.integers(2))
    eye = face.eyes[side]
    eye.highlight = (-eye.highlight[0] + rng.choice([-0.4, 0.4]) * strength, -eye.highlight[1] * strength)
    eye.highlight_radius *= 1 + 1.2 * strength
    return face.stroke_over_eye(side)


def _brow(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    side = int(rng.integers(2))
    brow = face.brows[side]
    brow.tilt += rng.choice([-1, 1]) * (0.2 + 0.35 * strength)
    brow.thickness *= 1 + 0.8 * strength if rng.random() < 0.5 else 1 - 0.5 * strength
    brow.centre = (brow.centre[0], brow.centre[1] - rng.uniform(0.0, 0.07) * strength)
    return face.stroke_over_brow(side)


def _teeth(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    mouth = face.mouth
    count = int(rng.choice([4, 5, 11, 13]))
    mouth.teeth = np.linspace(-0.8, 0.8, count + 1) + rng.normal(0, 0.35 / count, count + 1) * strength
    mouth.teeth.sort()
    mouth.lengths = 1 + rng.normal(0, 0.5, count) * strength
    mouth.slants = rng.normal(0, 0.5, count + 1) * strength
    return face.stroke_over_mouth()


def _hairline(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    hair = face.hair
    assert hair is not None
    x, width = rng.uniform(-0.38, 0.38), rng.uniform(0.05, 0.1)
    depth = (1 if rng.random() < 0.5 else -1) * (0.14 + 0.18 * strength)
    hair.tufts.append((x, width, depth))
    y = hair.hairline + hair.curve * (x / face.width) ** 2 + depth / 2
    return face.stroke_across((x, y), width, flat=True)


def _earring(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    ear = face.ears[rng.integers(2)]
    others = [kind for kind in ("stud", "ring", "drop") if kind != ear.earring]
    ear.earring = str(rng.choice(others))
    ear.earring_colour = METALS[rng.integers(len(METALS))]
    ear.earring_size *= 1 + 0.5 * strength
    x, y = ear.centre
    return face.stroke((x, y + ear.height * 0.8), (x, y + ear.height * 1.2), flat=True)


def _ear(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    ear = face.ears[rng.integers(2)]
    sign = rng.choice([-1, 1])
    ear.height *= 1 + sign * 0.4 * strength
    ear.centre = (ear.centre[0] * (1 + 0.06 * strength), ear.centre[1] + rng.choice([-1, 1]) * 0.14 * strength)
    x, y = ear.centre
    return face.stroke((x, y - ear.height / 2), (x, y + ear.height / 2), flat=True)


def _glasses(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    glasses, side = face.glasses, int(rng.integers(2))
    assert glasses is not None
    glasses.squareness[side] = 2.0 if glasses.squareness[side] > 3 else 5.0
    glasses.heights[side] *= 1 + rng.choice([-0.4, 0.4]) * strength
    glasses.thickness[side] *= 1 - 0.6 * strength
    glasses.drop[side] += rng.choice([-0.07, 0.07]) * strength
    return face.stroke_across(face.eyes[side].centre, 0.2)


def _ripple(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 0.75)
    x, y = distance * face.width * math.cos(angle), distance * math.sin(angle)
    radius = rng.uniform(0.13, 0.2)
    (centre,) = face.place(np.array([(x, y)]), flat=True).tolist()
    face.ripples.append(Ripple(tuple(centre), radius * face.scale, 16 + 30 * strength, rng.uniform(0, math.pi)))
    return face.stroke_across((x, y), radius / 2, flat=True)


DEFECTS: dict[str, Callable[[Face, float, np.random.Generator], Stroke]] = {
    "pupil": _pupil, "iris": _iris, "highlight": _highlight, "brow": _brow, "teeth": _teeth, "hairline": _hairline,
    "earring": _earring, "ear": _ear, "glasses": _glasses, "ripple": _ripple,
}  # fmt: skip


def possible_defects(face: Face) -> list[str]:
    """The names of the defects that a face can have: in a closed mouth, no teeth can be wrong."""
    ears = face.shows_ear(0) and face.shows_ear(1)  # an ear is odd only beside the other
    lacking = {
        "teeth": not face.mouth.teeth.size,
        "hairline": face.hair is None,
        "ear": not ears,
        "earring": not (ears and face.ears[0].earring),
        "glasses": face.glasses is None,
    }
    return [name for name in DEFECTS if not lacking.get(name)]
