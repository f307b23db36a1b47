"""What one annotator says of one image: real or synthetic, and the strokes over what decided it."""

from collections.abc import Sequence
from io import BytesIO
from typing import Annotated, Literal

import resvg_py
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

Milliseconds = Annotated[int, Field(ge=0, le=10**14)]
Count = Annotated[int, Field(ge=0, le=10**9)]
# Of an image's side; a stroke that leaves the image goes on outside of it.
Fraction = Annotated[float, Field(ge=-1, le=2)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Stroke(_Strict):
    """One stroke of the brush.

    Attributes:
        erase: it takes paint away.
        width: the diameter of the brush, in fractions of the image's longer side.
        at: when it began, in milliseconds since 1970 by the browser's clock.
        points: each x and y, in fractions of the image's width and height from its top left corner, and the
            milliseconds since ``at``.
    """

    erase: bool
    width: Annotated[float, Field(gt=0, le=1)]
    at: Milliseconds
    points: Annotated[list[tuple[Fraction, Fraction, Milliseconds]], Field(min_length=1)]


class Drawing(_Strict):
    """The state of one image for one annotator, as the browser sends it after every stroke.

    Attributes:
        page: the loaded page that painted it.
        base: the revision that this page began with.
        revision: the number of changes so far.
        answer: None until it is given.
        seconds: from when the image was shown until the answer.
        status: ``done`` if the annotator says so; a change makes it ``open`` again.
        strokes: in their order.
    """

    page: Annotated[str, Field(max_length=100)]
    base: Count
    revision: Count
    answer: Literal["real", "synthetic"] | None = None
    seconds: Annotated[float, Field(ge=0)] | None = None
    status: Literal["open", "done", "skipped"] = "open"
    strokes: list[Stroke] = []

    def continues(self, known: "Drawing") -> bool:
        """Whether it was painted upon the known state of the same image, or is that state sent once more."""
        return self.base == known.revision or (self.page == known.page and self.revision >= known.revision)


def painted(strokes: Sequence[Stroke], size: tuple[int, int]) -> Image.Image:
    """The map that strokes make: 255 where there is paint, 0 elsewhere, levels between at the edges.

    A stroke covers what is nearer to the line through its points than half its width.

    Args:
        strokes: one after another; an eraser takes away only what was painted before it.
        size: width and height of the image, in pixels.

    Returns:
        A grey (mode ``L``) image of this size.
    """
    width, height = size
    lines = []
    for stroke in strokes:
        # The last point stands twice: a line of one point would not be drawn.
        points = " ".join(f"{x * width:.2f},{y * height:.2f}" for x, y, _ in (*stroke.points, stroke.points[-1]))
        look = f'stroke="{"#000" if stroke.erase else "#fff"}" stroke-width="{stroke.width * max(size):.2f}"'
        lines.append(f'<polyline {look} points="{points}"/>')
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        '<rect width="100%" height="100%"/>'
        f'<g fill="none" stroke-linecap="round" stroke-linejoin="round">{"".join(lines)}</g></svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    with Image.open(BytesIO(png), formats=["PNG"]) as image:
        return image.getchannel("R")
