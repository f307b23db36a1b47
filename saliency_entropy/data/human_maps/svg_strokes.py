"""Free-hand strokes stored as SVG, drawn into a grey map.

An SVG is a program for a renderer: it can name files and addresses, multiply itself through entities and references,
and nest until the renderer's stack overflows. So a file is read through once before it is drawn, and anything but
strokes, which is what an annotation tool writes, is refused by its name and line. That also keeps a map whole: text,
pictures and effects, strokes where nothing is drawn, and whatever follows an error in a path would be drawn
differently, or not at all, without a word.

The reading is expat's, not defusedxml's, which would refuse a document type, but without its line, and would drop
processing instructions.
"""

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from xml.etree import ElementTree
from xml.parsers import expat

import resvg_py
from PIL import Image

from saliency_entropy.data.images import DataFile, UnreadableFile
from saliency_entropy.errors import UserError, in_one_line, refuse_pipe

# The longer side of a drawn map, in pixels: a CAM has some 7 to 14 cells a side. The size that the file states gives
# the aspect only, so strokes in fractions of the image (viewBox="0 0 1 1") are drawn as finely as those in pixels.
SIDE = 512
# 4 MB are some 200,000 points. An element may cost a pass over the whole map (15 ms), a level 40 KB of the stack, of
# which a thread has 8 MB or less.
LARGEST_BYTES = 4_000_000
MOST_ELEMENTS = 10_000
DEEPEST = 32
SVG = "http://www.w3.org/2000/svg"
SHAPES = ("path", "polyline", "polygon", "line", "circle", "ellipse", "rect")
# The elements that may contain shapes; in defs, no renderer draws them, which is what defs is for.
CONTAINERS = {"svg", "g", "defs"}
ELEMENTS = {*SHAPES, *CONTAINERS, "style", "title", "desc", "metadata"}
GEOMETRY = {
    "d", "points", "transform", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "width", "height",
    "stroke-width", "stroke-opacity", "opacity",
}  # fmt: skip
LENGTH = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(px|pt|pc|mm|cm|in|)\s*", re.IGNORECASE)
UNITS = {"": 1, "px": 1, "pt": 96 / 72, "pc": 16, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96}  # in pixels, as CSS says
# Sides of an SVG, in its own units: from fractions of an image to far more than any has. The renderer computes in
# single precision.
LEAST_SIDE, GREATEST_SIDE = 0.001, 1e6
# What programs write for a number that they lack. A renderer drops the rest of the path, or takes 0.
NO_NUMBER = re.compile(r"nan|inf|undefined|null", re.IGNORECASE)
# The grammar of SVG 1.1, 8.3.9 and 9.7.1. Atomic, so that no digit is given back: 12 is one number, not 1 and 2.
_NUMBER = r"(?>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)"
_GAP = r"(?>\s*,?\s*)"
# The arguments of each command, which may be repeated; two of an arc are flags of one digit, with no gap needed.
_ARGUMENTS = {
    "ml": [_NUMBER] * 2, "hv": [_NUMBER], "c": [_NUMBER] * 6, "sq": [_NUMBER] * 4, "t": [_NUMBER] * 2,
    "a": [_NUMBER] * 3 + ["[01]"] * 2 + [_NUMBER] * 2,
}  # fmt: skip
_TAKING = [
    rf"[{letters}]\s*{_GAP.join(arguments)}(?:{_GAP}{_GAP.join(arguments)})*"
    for letters, arguments in _ARGUMENTS.items()
]
COMMAND = re.compile(rf"(?:{'|'.join(_TAKING)}){_GAP}|z\s*", re.IGNORECASE | re.ASCII)
POINT = re.compile(f"{_NUMBER}{_GAP}{_NUMBER}{_GAP}", re.IGNORECASE | re.ASCII)
# A million dashes to a stroke take seconds. Some tools write the absence of dashes at every stroke.
DASHES = re.compile(r"dasharray(?!\s*:\s*none)", re.IGNORECASE)


def draw_svg(path: DataFile) -> Image.Image:
    """The opacity of an SVG's strokes: what they cover, in whatever colour.

    Overlapping translucent strokes add up as a browser shows them, and a path is filled unless it says
    ``fill="none"``.

    Args:
        path: an SVG file, UTF-8, not compressed.

    Returns:
        A grey (mode ``L``) image whose longer side is :data:`SIDE`: 0 where there is no stroke, 255 where one is
        opaque.

    Raises:
        UserError: it is too large, not well-formed, has no size, holds anything but strokes, or cannot be drawn.
        UnreadableFile: it could not be read, for a reason that does not lie in its content.
    """
    text = _read(path)
    width, height = _Check(path).parse(text)
    svg = ElementTree.fromstring(text)
    # Set here, and not left to the renderer, which rounds the size to whole units before it scales: 1 x 0.75 would
    # become 1 x 1.
    svg.set("viewBox", svg.get("viewBox", f"0 0 {width} {height}"))
    for name, side in (("width", width), ("height", height)):
        svg.set(name, str(max(1, round(SIDE * side / max(width, height)))))
    try:
        png = resvg_py.svg_to_bytes(
            svg_string=ElementTree.tostring(svg, encoding="unicode"), skip_system_fonts=True, dpi=96.0
        )
    except ValueError as error:
        raise UserError(f"{path} cannot be drawn ({in_one_line(error)}); export it again") from None
    except BaseException as error:
        # A failed assertion within the renderer is no Exception, so that nothing passes over it unawares.
        if type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{path} cannot be drawn (its numbers are too large); export it again") from None
    with Image.open(BytesIO(png), formats=["PNG"]) as image:
        alpha = image.getchannel("A")
    low, high = alpha.getextrema()
    if low == high > 0:
        raise UserError(f"{path} covers every pixel alike (a background?); export its strokes alone")
    return alpha


def _read(path: DataFile) -> str:
    try:
        refuse_pipe(path)
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        why = error.strerror or in_one_line(error)
        raise UnreadableFile(f"{path} cannot be read ({why}); try again, or copy it again") from None
    if not content:
        raise UserError(f"{path} is empty (0 bytes); copy it again, or remove it from column human_map")
    if len(content) > LARGEST_BYTES:
        raise UserError(f"{path} is an SVG of more than {LARGEST_BYTES // 1_000_000} MB; save it as a grey PNG")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}), as an SVG must be; save it as SVG in UTF-8, not compressed"
        ) from None


class _Check:
    """One pass over an SVG by a parser that makes no tree and follows no reference."""

    def __init__(self, path: DataFile) -> None:
        self.path = path
        self.open: list[str] = []
        self.undrawn = 0  # depth of the outermost open element in which nothing is drawn; 0 outside of any
        self.namespace = ""
        self.elements = 0
        self.style: list[str] = []
        self.size: Sequence[float] = ()  # width and height
        # A space cannot be part of a name: "NAMESPACE NAME".
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartDoctypeDeclHandler = lambda *_: self.refuse(
            "a document type (<!DOCTYPE>), which can multiply the file or name others", "delete that line"
        )
        self.parser.ProcessingInstructionHandler = lambda target, _: self.refuse(
            f"a processing instruction (<?{target}?>), which can name other files", "delete it"
        )
        self.parser.StartElementHandler = self.start
        self.parser.CharacterDataHandler = self.characters
        self.parser.EndElementHandler = self.end

    def parse(self, text: str) -> Sequence[float]:
        """The width and height that the file states, in pixels or in units of its viewBox."""
        try:
            self.parser.Parse(text, True)
        except expat.ExpatError as error:
            raise UserError(
                f"{self.path} is not well-formed XML ({in_one_line(error)}), as an SVG must be; export it again"
            ) from None
        return self.size

    def refuse(self, what: str, remedy: str) -> None:
        raise UserError(f"{self.path} line {self.parser.CurrentLineNumber}: {what}; {remedy}")

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        self.open.append(local)
        self.elements += 1
        if self.elements == 1:
            self.root(namespace, local, attributes)
        if self.elements > MOST_ELEMENTS:
            self.refuse(f"more than {MOST_ELEMENTS:,} elements", "save it as a grey PNG")
        if len(self.open) > DEEPEST:
            self.refuse(f"elements nested more than {DEEPEST} deep", "export its strokes without groups")
        # A renderer skips an element of another vocabulary, such as an editor's notes on its window, and all in it.
        if namespace in ("", SVG) and local not in ELEMENTS:
            self.refuse(f"<{local}> is no stroke", f"keep only strokes ({', '.join(SHAPES)}), or save it as a grey PNG")
        for attribute, value in attributes.items():
            self.attribute(attribute.rpartition(" ")[2], value)
        if namespace in ("", SVG) and local in SHAPES:
            self.shape(namespace, local, attributes)
        if not self.undrawn and not (namespace == self.namespace and local in CONTAINERS):
            self.undrawn = len(self.open)

    def shape(self, namespace: str, local: str, attributes: Mapping[str, str]) -> None:
        if self.undrawn:
            outer = self.open[self.undrawn - 1]
            self.refuse(f"<{local}> lies in <{outer}>, where nothing is drawn", "move it out of there, or delete it")
        if namespace != self.namespace:
            self.refuse(f"<{local}> has another namespace (xmlns) than <svg>, so it is not drawn", "give it the same")
        if local == "path":
            self.sequence("d", attributes.get("d", ""), COMMAND)
        if local in ("polyline", "polygon"):
            self.sequence("points", attributes.get("points", ""), POINT)

    def sequence(self, name: str, value: str, part: re.Pattern[str]) -> None:
        """Refuse what a renderer would draw only as far as the first error."""
        value = value.strip()
        if name == "d" and value and value[0] not in "Mm":
            self.refuse(f"d begins with {value[:20]!r} instead of a move (M)", "export it again")
        at = 0
        while at < len(value):
            match = part.match(value, at)
            if match is None:
                self.refuse(f"{name} is in error from {value[at : at + 20]!r} on", "export it again")
            at = match.end()

    def root(self, namespace: str, local: str, attributes: Mapping[str, str]) -> None:
        self.namespace = namespace
        if local != "svg" or namespace not in ("", SVG):
            self.refuse(f"the first element is <{local}>, not <svg>", "rename the file to what it is")
        # A width or height in other units depends on the page that the drawing is shown on.
        lengths = [LENGTH.fullmatch(attributes.get(side, "")) for side in ("width", "height")]
        box = attributes.get("viewBox")
        drawn_on = 'viewBox="0 0 W H", W x H being the size of the image that was drawn on'
        if box is not None:
            try:
                _, _, *self.size = map(float, re.split(r"[\s,]+", box.strip()))
            except ValueError:
                self.size = ()
            if len(self.size) != 2 or not all(map(_is_side, self.size)):
                self.refuse(f"viewBox is {box!r}", f"give {drawn_on}")
        if all(lengths):
            self.size = [float(length[1]) * UNITS[length[2].lower()] for length in lengths]
        elif box is None:
            self.refuse(
                "<svg> has no size (neither a viewBox nor a width and height), so where on the image its strokes lie "
                "is unknown",
                f"add {drawn_on}",
            )
        if not all(map(_is_side, self.size)):
            self.refuse("<svg> has a size of {:g} x {:g}".format(*self.size), f"give {drawn_on}")

    def attribute(self, name: str, value: str) -> None:
        if name == "href" and not value.startswith("#"):
            self.refuse(f"a reference to another file or address ({value[:60]!r})", "delete the element")
        # Whatever paints, clips or filters is no stroke and was refused, so a reference to it leads nowhere.
        if "url(" in value.lower():
            self.refuse(f"{name} refers to {value[:60]!r}", "export plain strokes, without gradients, masks or filters")
        if DASHES.search(f"{name}:{value}"):
            self.refuse("a dashed stroke", "export solid strokes")
        if name in GEOMETRY and NO_NUMBER.search(value):
            self.refuse(f"{name} holds {NO_NUMBER.search(value)[0]!r} instead of a number", "export it again")

    def characters(self, text: str) -> None:
        if self.open[-1] == "style":
            self.style.append(text)

    def end(self, _: str) -> None:
        if len(self.open) == self.undrawn:
            self.undrawn = 0
        if self.open.pop() != "style":
            return
        rules = "".join(self.style)
        self.style.clear()
        # @import and url(), however they are written: CSS allows \75rl(.
        if re.search(r"@|\\|url\(", rules, re.IGNORECASE):
            self.refuse("<style> holds @, \\ or url(, which can name other files", "keep plain rules only")
        if DASHES.search(rules):
            self.refuse("<style> dashes strokes", "export solid strokes")


def _is_side(length: float) -> bool:
    return LEAST_SIDE <= length <= GREATEST_SIDE
