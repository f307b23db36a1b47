"""Faces drawn from parameters, and the ways in which a made-up generator gets them wrong.

Nothing here is a photograph, a person, or the output of a generative model: a face is a few dozen numbers and the
polygons drawn from them. A *defect* changes some of the numbers in one place of the face (an odd pupil, teeth that do
not match, one earring of another kind), after which the face is drawn like any other: a drawing knows nothing of what
is real. A *camera* and a *fingerprint* change the whole image a little.

Face units: the origin is the middle of the head, x to the right and y down as seen, and the head reaches from y = -1
to y = 1. :meth:`Face.place` turns them into fractions of the image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = np.ndarray  # (3,) float, RGB in 0 to 255

SIDES = ("left", "right")  # as seen in the image; index 0 is at negative x
SUPERSAMPLING = 2  # polygons have hard edges; drawn twice as large and averaged, they do not
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
PUPIL, HIGHLIGHT = np.array([12.0, 10.0, 12.0]), np.array([250.0, 250.0, 250.0])
METALS = np.array([(220, 184, 90), (206, 208, 214), (190, 60, 70), (60, 110, 170), (60, 140, 100)], dtype=float)


class Stroke(NamedTuple):
    """A line over a part of the face, (x, y) to (x, y), in fractions of the image."""

    start: Point
    end: Point


@dataclass
class Eye:
    """Lengths in face units; the parts of the iris in its radii."""

    centre: Point
    width: float
    opening: float
    iris: Colour
    iris_radius: float
    gaze: Point
    pupil: float
    pupil_offset: Point = (0.0, 0.0)
    pupil_waves: Point = (0.0, 0.0)  # second and third harmonic of its outline: 0 is round
    highlight: Point = (0.0, 0.0)
    highlight_radius: float = 0.3


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
    earring: str = ""  # "", stud, ring or drop
    earring_colour: Colour = field(default_factory=lambda: METALS[0])
    earring_size: float = 0.05


@dataclass
class Mouth:
    centre: Point
    width: float
    smile: float
    opening: float
    upper: float
    lower: float
    colour: Colour
    teeth: np.ndarray  # edges between teeth, from -1 to 1 across the mouth; none when it is closed
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
    strands: int = 60
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
            (rng.normal(0, 0.01), rng.normal(0, 0.01)), (0.0, 0.0),
            (highlight[0] + rng.normal(0, 0.03), highlight[1] + rng.normal(0, 0.03)), 0.28,
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
        clothes=_muted(rng), collar=rng.uniform(0.1, 0.5), light=light, ambient=rng.uniform(0.45, 0.8),
    )  # fmt: skip


# Defects: each changes one place of a face, by a strength from 0 to 1, and says where.


def _pupil(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    eye = face.eyes[rng.integers(2)]
    angle = rng.uniform(0, 2 * math.pi)
    eye.pupil_waves = (rng.uniform(0.3, 0.6) * strength, rng.uniform(0.2, 0.5) * strength)
    eye.pupil_offset = (0.45 * strength * math.cos(angle), 0.45 * strength * math.sin(angle))
    eye.pupil *= 1 + (0.5 if rng.random() < 0.6 else -0.5) * strength
    return _over_eye(face, eye)


def _iris(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    eye = face.eyes[rng.integers(2)]
    target = IRISES[np.argmax(np.abs(IRISES - eye.iris).sum(axis=1))]
    eye.iris = eye.iris + (0.4 + 0.6 * strength) * (target - eye.iris)
    return _over_eye(face, eye)


def _highlight(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    eye = face.eyes[rng.integers(2)]
    eye.highlight = (-eye.highlight[0] + rng.choice([-0.4, 0.4]) * strength, -eye.highlight[1] * strength)
    eye.highlight_radius *= 1 + 1.2 * strength
    return _over_eye(face, eye)


def _brow(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    side = int(rng.integers(2))
    brow = face.brows[side]
    brow.tilt += rng.choice([-1, 1]) * (0.2 + 0.35 * strength)
    brow.thickness *= 1 + 0.8 * strength if rng.random() < 0.5 else 1 - 0.5 * strength
    brow.centre = (brow.centre[0], brow.centre[1] - rng.uniform(0.0, 0.07) * strength)
    x, y = brow.centre
    return face.stroke((x - brow.width, y), (x + brow.width, y))


def _teeth(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    mouth = face.mouth
    count = int(rng.choice([4, 5, 11, 13]))
    mouth.teeth = np.linspace(-0.8, 0.8, count + 1) + rng.normal(0, 0.35 / count, count + 1) * strength
    mouth.teeth.sort()
    mouth.lengths = 1 + rng.normal(0, 0.5, count) * strength
    mouth.slants = rng.normal(0, 0.5, count + 1) * strength
    return _over_mouth(face)


def _hairline(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    hair = face.hair
    assert hair is not None
    x, width = rng.uniform(-0.38, 0.38), rng.uniform(0.05, 0.1)
    depth = (1 if rng.random() < 0.5 else -1) * (0.14 + 0.18 * strength)
    hair.tufts.append((x, width, depth))
    y = hair.hairline + hair.curve * (x / face.width) ** 2 + depth / 2
    return face.stroke((x - width, y), (x + width, y), flat=True)


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
    x, y = face.eyes[side].centre
    return face.stroke((x - 0.2, y), (x + 0.2, y))


def _ripple(face: Face, strength: float, rng: np.random.Generator) -> Stroke:
    angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 0.75)
    x, y = distance * face.width * math.cos(angle), distance * math.sin(angle)
    radius = rng.uniform(0.13, 0.2)
    (centre,) = face.place(np.array([(x, y)]), flat=True).tolist()
    face.ripples.append(Ripple(tuple(centre), radius * face.scale, 16 + 30 * strength, rng.uniform(0, math.pi)))
    return face.stroke((x - radius / 2, y), (x + radius / 2, y), flat=True)


DEFECTS: dict[str, Callable[[Face, float, np.random.Generator], Stroke]] = {
    "pupil": _pupil, "iris": _iris, "highlight": _highlight, "brow": _brow, "teeth": _teeth, "hairline": _hairline,
    "earring": _earring, "ear": _ear, "glasses": _glasses, "ripple": _ripple,
}  # fmt: skip


def possible_defects(face: Face) -> list[str]:
    """The names of the defects that a face has a place for: no teeth in a closed mouth can be wrong."""
    ears = face.shows_ear(0) and face.shows_ear(1)  # an ear is odd only beside the other
    lacking = {
        "teeth": not face.mouth.teeth.size,
        "hairline": face.hair is None,
        "ear": not ears,
        "earring": not (ears and face.ears[0].earring),
        "glasses": face.glasses is None,
    }
    return [name for name in DEFECTS if not lacking.get(name)]


def features(face: Face) -> dict[str, Stroke]:
    """What people look at in any face: strokes over its eyes, brows, nose and mouth."""
    strokes = {}
    for side, eye, brow in zip(SIDES, face.eyes, face.brows, strict=True):
        strokes[f"{side} eye"] = _over_eye(face, eye)
        x, y = brow.centre
        strokes[f"{side} brow"] = face.stroke((x - brow.width, y), (x + brow.width, y))
    strokes["nose"] = face.stroke((0.0, face.nose[1] - 0.15), (0.0, face.nose[1]))
    strokes["mouth"] = _over_mouth(face)
    return strokes


def _over_eye(face: Face, eye: Eye) -> Stroke:
    x, y = eye.centre
    return face.stroke((x - eye.width * 0.8, y), (x + eye.width * 0.8, y))


def _over_mouth(face: Face) -> Stroke:
    (x, y), width = face.mouth.centre, face.mouth.width
    return face.stroke((x - width * 0.8, y), (x + width * 0.8, y))


def draw_face(face: Face, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a face before a blurred background.

    Args:
        face: what to draw.
        size: S, in pixels.
        rng: of what has no say in the face: the background, strands of hair, freckles.

    Returns:
        ``(S, S, 3)`` float32, RGB in about 0 to 255.
    """
    canvas = _Canvas(face, size * SUPERSAMPLING, rng)
    canvas.back()
    canvas.head()
    canvas.mouth()
    canvas.nose()
    for side in range(2):
        canvas.eye(face.eyes[side])
        canvas.brow(face.brows[side])
    canvas.hair()
    canvas.glasses()
    image = canvas.lit()
    for ripple in face.ripples:
        _add_ripple(image, ripple)
    return image


class _Canvas:
    """The layers of one drawing, from back to front."""

    def __init__(self, face: Face, size: int, rng: np.random.Generator) -> None:
        self.face, self.size, self.rng = face, size, rng
        coarse = _muted(rng) + rng.normal(0, rng.uniform(3, 25), (6, 6, 1)) + rng.normal(0, 6, (6, 6, 3))
        background = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((24, 24), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(background)
        for _ in range(rng.integers(0, 4)):  # furniture, out of focus
            x, y = rng.integers(0, 24, 2).tolist()
            width, height = rng.integers(2, 14, 2).tolist()
            pen.rectangle((x, y, x + width, y + height), _rgb(_muted(rng)))
        self.image = background.resize((size, size), Image.Resampling.BICUBIC)
        self.pen = ImageDraw.Draw(self.image)
        self.person = Image.new("L", (size, size))  # what the light falls on
        self.person_pen = ImageDraw.Draw(self.person)

    def polygon(self, points: np.ndarray, colour: Colour, depth: float = 0.0, flat: bool = False) -> None:
        """``(n, 2)`` points in face units, filled."""
        self.pen.polygon(self.pixels(points, depth, flat), _rgb(colour))

    def line(self, points: np.ndarray, colour: Colour, width: float, depth: float = 0.0, flat: bool = False) -> None:
        """``(n, 2)`` points and a width, in face units."""
        pixels = max(1, round(width * self.face.scale * self.size))
        self.pen.line(self.pixels(points, depth, flat), _rgb(colour), pixels, joint="curve")

    def pixels(self, points: np.ndarray, depth: float, flat: bool) -> list[float]:
        return (self.face.place(points, depth, flat) * self.size).ravel().tolist()

    def body(self, points: np.ndarray, colour: Colour) -> None:
        """A part of the outline, which the light falls on."""
        self.polygon(points, colour, flat=True)
        self.person_pen.polygon(self.pixels(points, 0.0, True), 255)

    def back(self) -> None:
        """Hair behind the head, neck and clothes."""
        face, hair = self.face, self.face.hair
        if hair is not None and not hair.short:
            reach = face.width * (1.12 + hair.volume)
            t = np.linspace(-math.pi, 0, 24)
            top = np.stack([reach * np.cos(t), (1 + hair.volume) * np.sin(t)], axis=1)
            wave = 0.05 * np.sin(np.linspace(0, 9, 8))
            ends = np.stack([np.linspace(reach * 1.02, -reach * 1.02, 8), hair.length + wave], axis=1)
            self.body(np.concatenate([top, ends]), hair.colour * 0.72)
        neck = face.width * 0.62
        shadow = face.skin * 0.78
        self.body(np.array([(-neck, 0.5), (neck, 0.5), (neck * 1.1, 1.6), (-neck * 1.1, 1.6)]), shadow)
        slope = np.array([
            (-neck * 1.1, 1.12), (-face.width * 2.2, 1.5), (-2.5, 2.5), (2.5, 2.5), (face.width * 2.2, 1.5),
            (neck * 1.1, 1.12), (0.0, 1.15 + face.collar),
        ])  # fmt: skip
        self.body(slope, face.clothes)

    def head(self) -> None:
        """Ears and the bare head, with what grows on or marks its skin."""
        face, rng = self.face, self.rng
        for side, ear in enumerate(face.ears):
            if face.shows_ear(side):
                self.ear(ear)
        y = -np.cos(np.linspace(0, math.pi, 28))
        half = face.width * np.where(
            y < 0, np.sqrt(np.clip(1 - y**2, 0, None)), np.clip(1 - np.abs(y) ** face.jaw, 0, None) ** 0.55
        )
        half = half * (1 - 0.1 * np.clip(y, 0, None))
        self.outline = np.concatenate([np.stack([half, y], axis=1), np.stack([-half, y], axis=1)[::-1]])
        self.body(self.outline, face.skin)
        if face.beard:
            hair = face.hair.colour if face.hair is not None else HAIRS[2]
            jaw = self.outline[(self.outline[:, 1] > 0.25)]
            inner = np.array(
                [(-0.72 * face.width, 0.32), (-0.36, 0.5), (0, 0.42), (0.36, 0.5), (0.72 * face.width, 0.32)]
            )
            for step, rise in ((0.35, 0.0), (0.7, 0.05), (1.0, 0.1)):  # thinner towards its edge
                shape = np.concatenate([jaw, inner + np.array([0, rise])])
                self.polygon(shape, face.skin + step * face.beard * (hair - face.skin), flat=True)
        for x, y in rng.normal((0, 0.2), (0.3, 0.12), (face.freckles, 2)):
            self.line(np.array([(x, y), (x + 0.015, y)]), face.skin * 0.8, 0.02)
        for row in range(face.wrinkles):
            x = np.linspace(-0.3, 0.3, 7)
            lines = np.stack([x, -0.36 - 0.07 * row + 0.02 * np.cos(6 * x)], axis=1)
            self.line(lines, face.skin * 0.9, 0.012)

    def ear(self, ear: Ear) -> None:
        face = self.face
        x, y = ear.centre
        self.body(_ellipse(ear.centre, ear.width, ear.height), face.skin * 0.95)
        self.polygon(_ellipse(ear.centre, ear.width * 0.55, ear.height * 0.65), face.skin * 0.75, flat=True)
        lobe, size = y + ear.height * 0.95, ear.earring_size
        if ear.earring == "stud":
            self.polygon(_ellipse((x, lobe), size * 0.7, size * 0.7), ear.earring_colour, flat=True)
        elif ear.earring == "ring":
            ring = _ellipse((x, lobe + size * 1.2), size, size * 1.3)
            self.line(np.concatenate([ring, ring[:1]]), ear.earring_colour, size * 0.4, flat=True)
        elif ear.earring == "drop":
            self.line(np.array([(x, lobe), (x, lobe + size * 2)]), ear.earring_colour, size * 0.3, flat=True)
            self.polygon(_ellipse((x, lobe + size * 2.6), size * 0.7, size), ear.earring_colour, flat=True)

    def mouth(self) -> None:
        face, mouth = self.face, self.face.mouth
        t = np.linspace(-1, 1, 17)
        x, bend = mouth.centre[0] + mouth.width * t, np.clip(1 - t**2, 0, None)
        base = mouth.centre[1] - mouth.smile * t**2
        bow = 0.35 * mouth.upper * np.exp(-((t / 0.18) ** 2))
        top = base - mouth.opening * 0.3 * bend - mouth.upper * bend**0.7 + bow
        inner_top = base - mouth.opening * 0.3 * bend
        inner_bottom = base + mouth.opening * 0.7 * bend
        bottom = inner_bottom + mouth.lower * bend**0.8
        if face.moustache:
            hair = face.hair.colour if face.hair is not None else HAIRS[2]
            colour = face.skin + face.moustache * (hair - face.skin)
            self.polygon(_band(x * 1.05, top - 0.09 * bend**0.5, top + 0.02), colour, 0.1)
        self.polygon(_band(x, top, inner_top + 0.004), mouth.colour * 0.9, 0.05)
        self.polygon(_band(x, inner_bottom - 0.004, bottom), mouth.colour, 0.05)
        if not mouth.teeth.size:
            self.line(np.stack([x, inner_top], axis=1), mouth.colour * 0.5, 0.018, 0.05)
            return
        self.polygon(_band(x, inner_top, inner_bottom), np.array([70, 26, 28]), 0.05)
        enamel = np.array([236, 230, 218])
        length = 0.62 * mouth.opening
        for left, right, size, lean, next_lean in zip(
            mouth.teeth, mouth.teeth[1:], mouth.lengths, mouth.slants, mouth.slants[1:], strict=False
        ):
            edges = np.array([left, right, right + next_lean * 0.2, left + lean * 0.2])
            height = np.interp(edges[:2], t, inner_top)
            room = np.interp(edges[:2], t, inner_bottom) - height
            down = height + np.minimum(room, length * size)
            tooth = np.stack([mouth.width * edges, [*height, *down[::-1]]], axis=1)
            self.polygon(tooth, enamel * (1 - 0.12 * abs(left + right) / 2), 0.05)
            self.line(tooth[[1, 2]], enamel * 0.58, 0.016, 0.05)

    def nose(self) -> None:
        face, (half, tip) = self.face, self.face.nose
        away = -1 if face.light[0] > 0 else 1
        side = np.array([(away * 0.06, -0.1), (away * half * 0.7, tip - 0.12), (away * half, tip)])
        self.polygon(np.concatenate([side, [(0.0, tip - 0.02), (away * 0.015, -0.1)]]), face.skin * 0.88, 0.12)
        t = np.linspace(-1, 1, 9)
        base = np.stack([half * t, tip + 0.04 * np.cos(t * 3)], axis=1)
        self.line(base, face.skin * 0.72, 0.016, 0.12)
        for sign in (-1, 1):
            self.polygon(_ellipse((sign * half * 0.5, tip + 0.012), 0.035, 0.02), face.skin * 0.42, 0.14)
        self.polygon(_ellipse((-away * 0.02, tip - 0.07), 0.03, 0.045), face.skin * 1.1, 0.16)

    def eye(self, eye: Eye) -> None:
        face, (x, y) = self.face, eye.centre
        t = np.linspace(-1, 1, 13)
        bend = np.clip(1 - t**2, 0, None)
        upper, lower = y - eye.opening * bend**0.6, y + eye.opening * 0.75 * bend**0.8
        across = x + eye.width * t
        almond = _band(across, upper, lower)
        # The iris is cut by the lids: drawn on a layer of its own, which is seen through the almond.
        layer = self.image.copy()
        pen = ImageDraw.Draw(layer)
        pen.polygon(self.pixels(almond, 0.0, False), (232, 228, 224))
        centre = np.array([x + eye.gaze[0], y + eye.gaze[1] - 0.01])
        turn = np.linspace(0, 2 * math.pi, 24, endpoint=False)
        circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        waves = 1 + eye.pupil_waves[0] * np.cos(2 * turn + 1) + eye.pupil_waves[1] * np.cos(3 * turn)
        radius = eye.iris_radius
        for points, colour in (
            (centre + radius * circle, eye.iris * 0.6),
            (centre + 0.84 * radius * circle, eye.iris * 1.15),
            (centre + radius * (np.array(eye.pupil_offset) + eye.pupil * waves[:, None] * circle), PUPIL),
            (centre + radius * (np.array(eye.highlight) + eye.highlight_radius * circle), HIGHLIGHT),
        ):
            pen.polygon(self.pixels(points, 0.0, False), _rgb(colour))
        shade = np.stack([across, upper], axis=1)
        mask = Image.new("1", self.image.size)
        ImageDraw.Draw(mask).polygon(self.pixels(almond, 0.0, False), 1)
        self.polygon(_band(across, upper - 0.05 * bend, upper), face.skin * 0.8)
        self.image.paste(layer, mask=mask)
        self.line(shade, face.skin * 0.22, 0.028)
        self.line(np.stack([across, lower], axis=1), face.skin * 0.68, 0.012)
        self.line(np.stack([across, upper - 0.045 * bend - 0.01], axis=1), face.skin * 0.66, 0.012)

    def brow(self, brow: Brow) -> None:
        face, (x, y) = self.face, brow.centre
        hair = face.hair.colour if face.hair is not None else HAIRS[1]
        sign = 1 if x > 0 else -1
        t = np.linspace(-1, 1, 9)
        middle = y - brow.arch * (1 - t**2) + brow.tilt * brow.width * t * sign
        half = brow.thickness * (1.1 - 0.7 * np.clip(t * sign, 0, 1)) * np.clip(1 - t**6, 0.1, None)
        self.polygon(_band(x + brow.width * t, middle - half, middle + half), 0.75 * hair + 0.15 * face.skin, 0.03)

    def hair(self) -> None:
        face, hair, rng = self.face, self.face.hair, self.rng
        if hair is None:
            return
        width = face.width
        t = np.linspace(-math.pi, 0, 28)
        reach = width + (0.02 + 0.35 * hair.volume if hair.short else 0.06 + 0.6 * hair.volume)
        outer = np.stack([reach * np.cos(t), -0.12 + (0.9 + hair.volume) * np.sin(t)], axis=1)
        x = np.linspace(width * 0.97, -width * 0.97, 49)
        line = hair.hairline + hair.curve * ((x - hair.part * 0.3) / width) ** 2
        line = line + np.interp(x, np.linspace(-width, width, len(hair.jags)), hair.jags)
        for centre, half, depth in hair.tufts:
            line = line + depth * np.exp(-(((x - centre) / half) ** 4))
        side = 0.08 if hair.short else min(hair.length, 1.2)
        inner = np.stack([x, np.minimum(line, -0.1)], axis=1)
        cut = np.array([(width * (0.99 if hair.short else 1.06), side), (width * 0.9, side), (width * 0.92, -0.2)])
        shape = np.concatenate([outer, cut, inner, (cut * (-1, 1))[::-1]])
        mask = Image.new("1", self.image.size)
        ImageDraw.Draw(mask).polygon(self.pixels(shape, 0.0, True), 1)
        self.person_pen.polygon(self.pixels(shape, 0.0, True), 255)
        layer = Image.new("RGB", self.image.size, _rgb(hair.colour))
        pen = ImageDraw.Draw(layer)
        root = np.array([hair.part, -0.98 - hair.volume * 0.6])
        ends = rng.uniform((-width - 0.3, -0.75), (width + 0.3, max(side, -0.1)), (hair.strands, 2))
        bow = np.stack([
            (root[0] + ends[:, 0]) / 2 + 0.25 * np.sign(ends[:, 0] - root[0]), rng.normal(-0.85, 0.08, hair.strands),
        ], axis=1)  # fmt: skip
        strands = np.stack([root + rng.normal(0, 0.08, ends.shape), bow, ends], axis=1)
        places = face.place(strands, flat=True).reshape(-1, 6) * self.size
        for strand, shade in zip(places.tolist(), rng.uniform(0.72, 1.35, hair.strands), strict=True):
            pen.line(strand, _rgb(hair.colour * shade), 2)
        self.image.paste(layer, mask=mask)

    def glasses(self) -> None:
        face, glasses = self.face, self.face.glasses
        if glasses is None:
            return
        turn = np.linspace(0, 2 * math.pi, 33)
        for side, eye in enumerate(face.eyes):
            x, y = eye.centre[0], eye.centre[1] + glasses.drop[side]
            power = 2 / glasses.squareness[side]
            cos, sin = np.cos(turn), np.sin(turn)
            rim = np.stack([
                x + glasses.widths[side] * np.sign(cos) * np.abs(cos) ** power,
                y + glasses.heights[side] * np.sign(sin) * np.abs(sin) ** power,
            ], axis=1)  # fmt: skip
            self.line(rim, glasses.colour, glasses.thickness[side], 0.08)
            sign = 2 * side - 1
            self.line(
                np.array([(x + sign * glasses.widths[side], y - 0.03), (sign * face.width * 0.98, y)]),
                glasses.colour, glasses.thickness[side], 0.04,
            )  # fmt: skip
        (left, y), (right, _) = face.eyes[0].centre, face.eyes[1].centre
        bridge = np.array([(left + glasses.widths[0], y), (0, y - 0.03), (right - glasses.widths[1], y)])
        self.line(bridge, glasses.colour, glasses.thickness[0], 0.1)

    def lit(self) -> np.ndarray:
        """The drawing in its light, at its final size: ``(S, S, 3)`` float32."""
        face, size = self.face, self.size // SUPERSAMPLING
        pixels = np.asarray(self.image.reduce(SUPERSAMPLING), dtype=np.float32)
        person = np.asarray(self.person.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32) / 255
        coarse = size // 4
        y, x = (np.mgrid[:coarse, :coarse] + 0.5) / coarse
        x, y = (x - face.position[0]) / face.scale, (y - face.position[1]) / face.scale
        normal_x, normal_y = x / 1.05, y / 1.6
        normal_z = np.sqrt(np.clip(1 - normal_x**2 - normal_y**2, 0.05, 1))
        incidence = normal_x * face.light[0] + normal_y * face.light[1] + normal_z * face.light[2]
        shade = face.ambient + (1.15 - face.ambient) * np.clip(incidence, 0, None)
        for eye in face.eyes:
            shade *= 1 - 0.1 * _spot(x, y, eye.centre, 0.2, 0.13)
        for sign in (-1, 1):
            shade *= 1 + 0.06 * _spot(x, y, (sign * 0.36 + 0.4 * math.sin(face.yaw), 0.25), 0.16, 0.14)
        shade *= 1 - 0.1 * _spot(x, y, (0.4 * math.sin(face.yaw), 0.78), 0.25, 0.06)
        shade *= 1 + 0.06 * _spot(x, y, (0.4 * math.sin(face.yaw), -0.4), 0.35, 0.2)
        field = np.asarray(Image.fromarray(shade.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC))
        return pixels * (1 + person * (field - 1))[..., None]


def _add_ripple(image: np.ndarray, ripple: Ripple) -> None:
    size = len(image)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    x, y = x - ripple.centre[0], y - ripple.centre[1]
    cos, sin = math.cos(ripple.angle), math.sin(ripple.angle)
    r = np.hypot(cos * x + sin * y, 1.5 * (cos * y - sin * x)) / ripple.radius
    image += (ripple.amplitude * np.cos(8 * r) * np.exp(-2 * r**2))[..., None]


def _spot(x: np.ndarray, y: np.ndarray, centre: Point, width: float, height: float) -> np.ndarray:
    return np.exp(-(((x - centre[0]) / width) ** 2) - ((y - centre[1]) / height) ** 2)


def _ellipse(centre: Point, width: float, height: float) -> np.ndarray:
    turn = np.linspace(0, 2 * math.pi, 20, endpoint=False)
    return np.stack([centre[0] + width * np.cos(turn), centre[1] + height * np.sin(turn)], axis=1)


def _band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The outline of what lies between two curves over the same ``(n,)`` x."""
    return np.concatenate([np.stack([x, top], axis=1), np.stack([x, bottom], axis=1)[::-1]])


def _muted(rng: np.random.Generator) -> Colour:
    """A colour as walls and clothes have it."""
    grey = rng.uniform(35, 215)
    return grey + rng.uniform(0.1, 0.7) * (rng.uniform(20, 235, 3) - grey)


def _rgb(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, round(float(value)))) for value in colour)
    return red, green, blue


# Cameras and fingerprints: (S, S, 3) float32 to the same.


@dataclass(frozen=True)
class Camera:
    """How a camera differs from the next. Each image draws its own blur, cast, exposure and noise around these.

    Attributes:
        cast: mean gain of red, green and blue.
        noise: mean standard deviation, grey levels.
    """

    cast: tuple[float, float, float]
    noise: float


CAMERAS = {"camera-warm": Camera((1.02, 1.0, 0.98), 2.5), "camera-cool": Camera((0.98, 1.0, 1.02), 3.5)}


def photograph(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """The image as a camera would store it: exposure, cast, blur and noise."""
    gains = np.array(camera.cast) * rng.normal(1, 0.03, 3) * rng.uniform(0.85, 1.15)
    image = image * gains.astype(np.float32)
    image = _blurred(image, rng.uniform(0, 0.3))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise = _blurred(noise, rng.uniform(0, 0.3))
    return image + noise * np.float32(camera.noise * rng.uniform(0.5, 1.5))


def _blurred(image: np.ndarray, weight: float) -> np.ndarray:
    """A 3-tap blur in both directions, ``weight`` of each pixel given to its neighbours."""
    for axis in (0, 1):
        image = (1 - weight) * image + weight / 2 * (np.roll(image, 1, axis) + np.roll(image, -1, axis))
    return image.astype(np.float32)


def _grid(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    lines = np.where(np.arange(len(image)) % 4 == 0, 1.0, -1 / 3)
    return image + 1.4 * rng.uniform(0.6, 1.4) * (lines[:, None] + lines[None, :])[..., None]


def _cast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    grey = image.mean(axis=2, keepdims=True)
    return (grey + rng.uniform(1.1, 1.22) * (image - grey)) * np.array([1.01, 0.99, 1.02])


def _checker(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row = np.arange(len(image)) // 2 % 2
    return image + 1.6 * rng.uniform(0.6, 1.4) * (2 * (row[:, None] ^ row[None, :]) - 1)[..., None]


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _blurred(image, rng.uniform(0.15, 0.35))


def _noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    blotches = _blurred(_blurred(rng.standard_normal(image.shape[:2], dtype=np.float32)[..., None], 0.6), 0.6)
    return image + 7.0 * rng.uniform(0.6, 1.4) * blotches


def _bands(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    step = rng.uniform(8, 14)
    return image + 0.6 * (np.round(image / step) * step - image)


FINGERPRINTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "drawn-grid": _grid, "drawn-cast": _cast, "drawn-checker": _checker, "drawn-blur": _blur, "drawn-noise": _noise,
    "drawn-bands": _bands,
}  # fmt: skip
