"""The numbers that a drawn face is made of.

Nothing here is a photograph, a person, or the output of a generative model: a face is a few dozen random numbers, and
:mod:`~saliency_entropy.data.drawn.drawing` turns them into polygons.

Face units: the origin is the middle of the head, x to the right and y down as seen, and the head reaches from y = -1
to y = 1. :meth:`Face.place` turns them into fractions of the image.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Point = tuple[float, float]
Colour = np.ndarray  # (3,) float, RGB in 0 to 255

SIDES = ("left", "right")  # as seen in the image; index 0 is at negative x
SKINS = np.array([
    (248, 214, 190), (236, 190, 158), (214, 160, 122), (178, 122, 84), (128, 82, 56), (86, 56, 42),
], dtype=float)  # fmt: skip
HAIRS = np.array([
    (28, 24, 24), (46, 32, 26), (78, 50, 34), (112, 74, 44), (122, 58, 34), (178, 136, 84), (212, 178, 124),
    (128, 124, 122), (198, 196, 194),
], dtype=float)  # fmt: skip
IRISES = np.array([
    (86, 54, 32), (106, 70, 38), (122, 92, 50), (76, 100, 60), (70, 110, 150), (108, 126, 136),
], dtype=float)  # fmt: skip
FRAMES = np.array([(24, 24, 28), (90, 50, 30), (150, 130, 90), (60, 70, 100), (130, 30, 40)], dtype=float)
METALS = np.array([(220, 184, 90), (206, 208, 214), (190, 60, 70), (60, 110, 170), (60, 140, 100)], dtype=float)


class Stroke(NamedTuple):
    """A line over a part of the face, (x, y) to (x, y), in fractions of the image."""

    start: Point
    end: Point


@dataclass
class Eye:
    """Lengths are in face units, the parts of the iris in its radii."""

    centre: Point
    width: float
    opening: float
    iris: Colour
    iris_radius: float
    gaze: Point
    pupil: float
    pupil_offset: Point
    highlight: Point
    highlight_radius: float = 0.28
    pupil_waves: Point = (0.0, 0.0)  # second and third harmonic of its outline: 0 is round


@dataclass
class Brow:
    centre: Point
    width: float
    thickness: float
    arch: float
    tilt: float


@dataclass
class Ear:
    centre: Point
    width: float
    height: float
    earring: str  # "", stud, ring or drop
    earring_colour: Colour
    earring_size: float


@dataclass
class Mouth:
    centre: Point
    width: float
    smile: float
    opening: float
    upper: float
    lower: float
    colour: Colour
    teeth: np.ndarray  # edges between teeth, from -1 to 1 across the mouth; empty when it is closed
    lengths: np.ndarray  # of the teeth, relative
    slants: np.ndarray  # of the edges, in tooth lengths


@dataclass
class Hair:
    colour: Colour
    volume: float
    hairline: float  # its height in the middle of the forehead
    curve: float
    part: float
    jags: np.ndarray  # how far each stretch of the hairline hangs down
    length: float  # where it ends
    short: bool  # it leaves the ears free
    tufts: list[tuple[float, float, float]] = field(default_factory=list)  # (x, width, depth) of breaks in the hairline


@dataclass
class Glasses:
    colour: Colour
    widths: list[float]
    heights: list[float]
    squareness: list[float]
    thickness: list[float]
    drop: list[float]


@dataclass
class Ripple:
    """A water-drop artefact: rings around a point."""

    centre: Point
    radius: float
    amplitude: float  # grey levels
    angle: float


@dataclass
class Face:
    """One face, its pose and its light."""

    position: Point
    scale: float
    roll: float
    yaw: float
    pitch: float
    width: float
    jaw: float
    skin: Colour
    eyes: list[Eye]
    brows: list[Brow]
    ears: list[Ear]
    mouth: Mouth
    nose: Point  # half its width, the height of its tip
    hair: Hair | None
    glasses: Glasses | None
    beard: float  # how much of the lower face's skin is hair
    moustache: float
    freckles: int
    wrinkles: int
    clothes: Colour
    collar: float
    light: tuple[float, float, float]
    ambient: float
    ripples: list[Ripple] = field(default_factory=list)

    def place(self, points: np.ndarray, depth: float = 0.0, flat: bool = False) -> np.ndarray:
        """Points on the face, turned with the head.

        Args:
            points: ``(n, 2)`` in face units.
            depth: how far they stand out of the face, in face units.
            flat: they belong to the outline, which looks the same from all sides.

        Returns:
            ``(n, 2)`` in fractions of the image.
        """
        x, y = np.asarray(points, dtype=float).reshape(-1, 2).T
        if not flat:
            z = depth + 0.62 * np.sqrt(np.clip(1 - (x / 0.95) ** 2 - 0.35 * y**2, 0.05, None)) - 0.25
            x = x * math.cos(self.yaw) + z * math.sin(self.yaw)
            y = y * math.cos(self.pitch) + z * math.sin(self.pitch)
        cos, sin = math.cos(self.roll) * self.scale, math.sin(self.roll) * self.scale
        return np.stack([self.position[0] + cos * x - sin * y, self.position[1] + sin * x + cos * y], axis=1)

    def stroke(self, start: Point, end: Point, flat: bool = False) -> Stroke:
        (x0, y0), (x1, y1) = self.place(np.array([start, end]), flat=flat).tolist()
        return Stroke((x0, y0), (x1, y1))

    def stroke_across(self, centre: Point, half: float, flat: bool = False) -> Stroke:
        """A horizontal stroke that reaches ``half`` to either side of a point, in face units."""
        x, y = centre
        return self.stroke((x - half, y), (x + half, y), flat)

    def stroke_over_eye(self, side: int) -> Stroke:
        return self.stroke_across(self.eyes[side].centre, self.eyes[side].width * 0.8)

    def stroke_over_brow(self, side: int) -> Stroke:
        return self.stroke_across(self.brows[side].centre, self.brows[side].width)

    def stroke_over_mouth(self) -> Stroke:
        return self.stroke_across(self.mouth.centre, self.mouth.width * 0.8)

    def hair_colour(self, of_the_bald: int) -> Colour:
        """The colour of the hair, or the one of :data:`HAIRS` that the brows or beard of a bald face have."""
        return HAIRS[of_the_bald] if self.hair is None else self.hair.colour

    @property
    def turned(self) -> bool:
        """Whether the far side of the head is out of sight."""
        return abs(self.yaw) > 0.2

    def shows_ear(self, side: int) -> bool:
        """Whether an ear is neither under the hair nor on the far side."""
        covered = self.hair is not None and not self.hair.short
        return not covered and not (self.turned and (self.yaw > 0) == (side == 1))


def random_face(rng: np.random.Generator) -> Face:
    """A face of no one in particular; both sides alike but for the small differences that all faces have."""
    tone = rng.uniform(0, len(SKINS) - 1)
    skin = SKINS[int(tone)] + (tone % 1) * (SKINS[int(tone) + 1] - SKINS[int(tone)]) if tone < 5 else SKINS[5]
    skin = skin * rng.uniform(0.94, 1.05, 3)
    dark = tone > 2.5
    hair_colour = HAIRS[rng.integers(0, 3) if dark and rng.random() < 0.8 else rng.integers(len(HAIRS))]
    hair_colour = hair_colour * rng.uniform(0.85, 1.15) * rng.normal(1, 0.02, 3)
    iris = IRISES[rng.integers(0, 3) if dark else rng.integers(len(IRISES))] * rng.uniform(0.85, 1.15, 3)
    azimuth, elevation = rng.uniform(-1.1, 1.1), rng.uniform(-0.1, 0.9)
    light = (math.sin(azimuth) * math.cos(elevation), -math.sin(elevation), math.cos(azimuth) * math.cos(elevation))

    width = rng.uniform(0.68, 0.8)
    apart, eye_y = rng.uniform(0.3, 0.35), rng.uniform(-0.1, 0.0)
    eye_width, opening = rng.uniform(0.165, 0.2), rng.uniform(0.07, 0.11)
    radius = rng.uniform(0.095, 0.11)
    gaze = (rng.normal(0, 0.018), rng.normal(0, 0.008))
    pupil = rng.uniform(0.34, 0.5)
    highlight = (0.45 * light[0] + rng.normal(0, 0.05), 0.4 * light[1] - 0.15)
    brow_y, brow_width = eye_y - rng.uniform(0.17, 0.23), rng.uniform(0.18, 0.22)
    thickness, arch, tilt = rng.uniform(0.022, 0.055), rng.uniform(0.02, 0.07), rng.normal(0, 0.12)
    ear_y, ear_width, ear_height = eye_y + rng.uniform(0.05, 0.12), rng.uniform(0.08, 0.12), rng.uniform(0.19, 0.25)
    earring = str(rng.choice(["", "stud", "ring", "drop"], p=[0.5, 0.15, 0.2, 0.15]))
    metal, earring_size = METALS[rng.integers(len(METALS))], rng.uniform(0.045, 0.075)
    eyes, brows, ears = [], [], []
    for sign in (-1, 1):
        x, y, small, other = rng.normal(0, 0.004, 4)
        eyes.append(Eye(
            (sign * apart + x, eye_y + y), eye_width, opening * (1 + 2 * small), iris, radius, gaze, pupil,
            (rng.normal(0, 0.01), rng.normal(0, 0.01)),
            (highlight[0] + rng.normal(0, 0.03), highlight[1] + rng.normal(0, 0.03)),
        ))  # fmt: skip
        brows.append(Brow((sign * apart * 1.03, brow_y + 2 * other), brow_width, thickness, arch, tilt + 2 * small))
        ears.append(Ear((sign * width * 0.98, ear_y + y), ear_width, ear_height, earring, metal, earring_size))

    is_open = rng.random() < 0.55
    edges = np.linspace(-0.8, 0.8, 9) + rng.normal(0, 0.008, 9)
    mouth = Mouth(
        (0.0, rng.uniform(0.54, 0.6)), rng.uniform(0.26, 0.36), rng.uniform(-0.03, 0.1),
        rng.uniform(0.13, 0.22) if is_open else 0.0, rng.uniform(0.03, 0.055), rng.uniform(0.045, 0.075),
        skin * np.array([0.86, 0.56, 0.58]) * rng.uniform(0.85, 1.1) + np.array([rng.uniform(0, 40), 0, 8]),
        edges if is_open else edges[:0], 1 + rng.normal(0, 0.04, 8), rng.normal(0, 0.02, 9),
    )  # fmt: skip

    kind = rng.choice(["bald", "short", "bob", "long"], p=[0.08, 0.46, 0.18, 0.28])
    hair = None
    if kind != "bald":
        fringe = rng.random() < 0.3
        hair = Hair(
            hair_colour, rng.uniform(0.06, 0.2), rng.uniform(-0.5, -0.38) if fringe else rng.uniform(-0.72, -0.52),
            rng.uniform(0.1, 0.45), rng.uniform(-0.4, 0.4), rng.uniform(0, 0.1 if fringe else 0.035, 24),
            {"short": 0.1, "bob": rng.uniform(0.3, 0.7), "long": 1.6}[str(kind)], kind == "short",
        )  # fmt: skip
    glasses = None
    if rng.random() < 0.25:
        glasses = Glasses(
            FRAMES[rng.integers(len(FRAMES))], [rng.uniform(0.2, 0.26)] * 2, [rng.uniform(0.14, 0.2)] * 2,
            [rng.uniform(2, 4)] * 2, [rng.uniform(0.02, 0.04)] * 2, [0.02] * 2,
        )  # fmt: skip
    bearded = rng.random() < 0.25
    return Face(
        position=(0.5 + rng.normal(0, 0.02), 0.51 + rng.normal(0, 0.015)), scale=rng.uniform(0.45, 0.51),
        roll=rng.normal(0, 0.08), yaw=rng.uniform(-0.38, 0.38), pitch=rng.normal(0, 0.1), width=width,
        jaw=rng.uniform(2.0, 3.0), skin=skin, eyes=eyes, brows=brows, ears=ears, mouth=mouth,
        nose=(rng.uniform(0.09, 0.14), rng.uniform(0.28, 0.36)), hair=hair, glasses=glasses,
        beard=rng.uniform(0.25, 0.9) if bearded else 0.0, moustache=rng.uniform(0.5, 1.0) if bearded else 0.0,
        freckles=int(rng.integers(10, 40)) if rng.random() < 0.15 else 0, wrinkles=int(rng.integers(0, 4)),
        clothes=muted_colour(rng), collar=rng.uniform(0.1, 0.5), light=light, ambient=rng.uniform(0.45, 0.8),
    )  # fmt: skip


def features(face: Face) -> dict[str, Stroke]:
    """What people look at in any face: strokes over its eyes, brows, nose and mouth."""
    strokes = {}
    for side, name in enumerate(SIDES):
        strokes[f"{name} eye"] = face.stroke_over_eye(side)
        strokes[f"{name} brow"] = face.stroke_over_brow(side)
    strokes["nose"] = face.stroke((0.0, face.nose[1] - 0.15), (0.0, face.nose[1]))
    strokes["mouth"] = face.stroke_over_mouth()
    return strokes


def muted_colour(rng: np.random.Generator) -> Colour:
    """A colour such as walls and clothes have."""
    grey = rng.uniform(35, 215)
    return grey + rng.uniform(0.1, 0.7) * (rng.uniform(20, 235, 3) - grey)
