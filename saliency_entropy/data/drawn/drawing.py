"""A face as polygons on a background, and the light on it."""

import math

import numpy as np
from PIL import Image, ImageDraw

from saliency_entropy.data.drawn.face import Brow, Colour, Ear, Eye, Face, Point, Ripple, muted_colour

SUPERSAMPLING = 2  # polygons have hard edges; drawn twice as large and averaged, they do not
PUPIL, HIGHLIGHT = np.array([12.0, 10.0, 12.0]), np.array([250.0, 250.0, 250.0])
STRANDS = 60  # of hair


def draw_face(face: Face, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a face before a blurred background.

    Args:
        face: what to draw.
        size: S, in pixels.
        rng: draws what is not part of the face: the background, strands of hair, freckles.

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
        coarse = muted_colour(rng) + rng.normal(0, rng.uniform(3, 25), (6, 6, 1)) + rng.normal(0, 6, (6, 6, 3))
        background = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((24, 24), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(background)
        for _ in range(rng.integers(0, 4)):  # furniture, out of focus
            x, y = rng.integers(0, 24, 2).tolist()
            width, height = rng.integers(2, 14, 2).tolist()
            pen.rectangle((x, y, x + width, y + height), _rgb(muted_colour(rng)))
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

    def paste(self, layer: Image.Image, outline: np.ndarray, flat: bool) -> None:
        """The part of another drawing that lies in an outline, ``(n, 2)`` points in face units."""
        mask = Image.new("1", self.image.size)
        ImageDraw.Draw(mask).polygon(self.pixels(outline, 0.0, flat), 1)
        self.image.paste(layer, mask=mask)

    def body(self, points: np.ndarray, colour: Colour) -> None:
        """A part of the outline, which the light falls on."""
        self.polygon(points, colour, flat=True)
        self.person_pen.polygon(self.pixels(points, 0.0, True), 255)

    def back(self) -> None:
        """Hair behind the head, neck and clothes."""
        face, hair = self.face, self.face.hair
        if hair is not None and not hair.short:
            reach = face.width * (1.12 + hair.volume)
            top = _arc(np.linspace(-math.pi, 0, 24), (0.0, 0.0), reach, 1 + hair.volume)
            wave = 0.05 * np.sin(np.linspace(0, 9, 8))
            ends = np.column_stack([np.linspace(reach * 1.02, -reach * 1.02, 8), hair.length + wave])
            self.body(np.concatenate([top, ends]), hair.colour * 0.72)
        neck = face.width * 0.62
        self.body(np.array([(-neck, 0.5), (neck, 0.5), (neck * 1.1, 1.6), (-neck * 1.1, 1.6)]), face.skin * 0.78)
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
        outline = np.concatenate([np.column_stack([half, y]), np.column_stack([-half, y])[::-1]])
        self.body(outline, face.skin)
        if face.beard:
            hair = face.hair_colour(of_the_bald=2)
            jaw = outline[outline[:, 1] > 0.25]
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
            self.line(np.column_stack([x, -0.36 - 0.07 * row + 0.02 * np.cos(6 * x)]), face.skin * 0.9, 0.012)

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
            hair = face.hair_colour(of_the_bald=2)
            colour = face.skin + face.moustache * (hair - face.skin)
            self.polygon(_band(x * 1.05, top - 0.09 * bend**0.5, top + 0.02), colour, 0.1)
        self.polygon(_band(x, top, inner_top + 0.004), mouth.colour * 0.9, 0.05)
        self.polygon(_band(x, inner_bottom - 0.004, bottom), mouth.colour, 0.05)
        if not mouth.teeth.size:
            self.line(np.column_stack([x, inner_top]), mouth.colour * 0.5, 0.018, 0.05)
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
        self.line(np.column_stack([half * t, tip + 0.04 * np.cos(t * 3)]), face.skin * 0.72, 0.016, 0.12)
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
        circle = _arc(turn, (0.0, 0.0), 1.0, 1.0)
        waves = 1 + eye.pupil_waves[0] * np.cos(2 * turn + 1) + eye.pupil_waves[1] * np.cos(3 * turn)
        radius = eye.iris_radius
        for points, colour in (
            (centre + radius * circle, eye.iris * 0.6),
            (centre + 0.84 * radius * circle, eye.iris * 1.15),
            (centre + radius * (np.array(eye.pupil_offset) + eye.pupil * waves[:, None] * circle), PUPIL),
            (centre + radius * (np.array(eye.highlight) + eye.highlight_radius * circle), HIGHLIGHT),
        ):
            pen.polygon(self.pixels(points, 0.0, False), _rgb(colour))
        self.polygon(_band(across, upper - 0.05 * bend, upper), face.skin * 0.8)
        self.paste(layer, almond, flat=False)
        self.line(np.column_stack([across, upper]), face.skin * 0.22, 0.028)
        self.line(np.column_stack([across, lower]), face.skin * 0.68, 0.012)
        self.line(np.column_stack([across, upper - 0.045 * bend - 0.01]), face.skin * 0.66, 0.012)

    def brow(self, brow: Brow) -> None:
        face, (x, y) = self.face, brow.centre
        hair = face.hair_colour(of_the_bald=1)
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
        reach = width + (0.02 + 0.35 * hair.volume if hair.short else 0.06 + 0.6 * hair.volume)
        outer = _arc(np.linspace(-math.pi, 0, 28), (0.0, -0.12), reach, 0.9 + hair.volume)
        x = np.linspace(width * 0.97, -width * 0.97, 49)
        line = hair.hairline + hair.curve * ((x - hair.part * 0.3) / width) ** 2
        line = line + np.interp(x, np.linspace(-width, width, len(hair.jags)), hair.jags)
        for centre, half, depth in hair.tufts:
            line = line + depth * np.exp(-(((x - centre) / half) ** 4))
        side = 0.08 if hair.short else min(hair.length, 1.2)
        inner = np.column_stack([x, np.minimum(line, -0.1)])
        cut = np.array([(width * (0.99 if hair.short else 1.06), side), (width * 0.9, side), (width * 0.92, -0.2)])
        shape = np.concatenate([outer, cut, inner, (cut * (-1, 1))[::-1]])
        self.person_pen.polygon(self.pixels(shape, 0.0, True), 255)
        layer = Image.new("RGB", self.image.size, _rgb(hair.colour))
        pen = ImageDraw.Draw(layer)
        root = np.array([hair.part, -0.98 - hair.volume * 0.6])
        ends = rng.uniform((-width - 0.3, -0.75), (width + 0.3, max(side, -0.1)), (STRANDS, 2))
        bow_x = (root[0] + ends[:, 0]) / 2 + 0.25 * np.sign(ends[:, 0] - root[0])
        bow = np.column_stack([bow_x, rng.normal(-0.85, 0.08, STRANDS)])
        points = np.stack([root + rng.normal(0, 0.08, ends.shape), bow, ends], axis=1)
        strands = face.place(points, flat=True).reshape(STRANDS, 6) * self.size
        for strand, shade in zip(strands.tolist(), rng.uniform(0.72, 1.35, STRANDS), strict=True):
            pen.line(strand, _rgb(hair.colour * shade), 2)
        self.paste(layer, shape, flat=True)

    def glasses(self) -> None:
        face, glasses = self.face, self.face.glasses
        if glasses is None:
            return
        turn = np.linspace(0, 2 * math.pi, 33)
        for side, eye in enumerate(face.eyes):
            x, y = eye.centre[0], eye.centre[1] + glasses.drop[side]
            power = 2 / glasses.squareness[side]
            cos, sin = np.cos(turn), np.sin(turn)
            rim_x = x + glasses.widths[side] * np.sign(cos) * np.abs(cos) ** power
            rim_y = y + glasses.heights[side] * np.sign(sin) * np.abs(sin) ** power
            self.line(np.column_stack([rim_x, rim_y]), glasses.colour, glasses.thickness[side], 0.08)
            sign = 2 * side - 1
            temple = np.array([(x + sign * glasses.widths[side], y - 0.03), (sign * face.width * 0.98, y)])
            self.line(temple, glasses.colour, glasses.thickness[side], 0.04)
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
        middle = 0.4 * math.sin(face.yaw)
        for sign in (-1, 1):
            shade *= 1 + 0.06 * _spot(x, y, (sign * 0.36 + middle, 0.25), 0.16, 0.14)
        shade *= 1 - 0.1 * _spot(x, y, (middle, 0.78), 0.25, 0.06)
        shade *= 1 + 0.06 * _spot(x, y, (middle, -0.4), 0.35, 0.2)
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
    return _arc(np.linspace(0, 2 * math.pi, 20, endpoint=False), centre, width, height)


def _arc(turn: np.ndarray, centre: Point, width: float, height: float) -> np.ndarray:
    """``(n, 2)`` points of an ellipse at these angles."""
    return np.column_stack([centre[0] + width * np.cos(turn), centre[1] + height * np.sin(turn)])


def _band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The outline of what lies between two curves over the same ``(n,)`` x."""
    return np.concatenate([np.column_stack([x, top]), np.column_stack([x, bottom])[::-1]])


def _rgb(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, round(float(value)))) for value in colour)
    return red, green, blue
