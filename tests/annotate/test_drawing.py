"""Strokes become the map that they should, worked out without a renderer."""

import numpy as np
import pytest
from pydantic import ValidationError

from saliency_entropy.annotate.drawing import Drawing, Stroke, painted


def stroke(*points, width=0.1, erase=False):
    return Stroke(erase=erase, width=width, at=0, points=[(x, y, 0) for x, y in points])


def distances(points, size):
    """(h, w): of each pixel's centre from the line through the points, by plane geometry."""
    width, height = size
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    corners = np.array(points) * size
    nearest = np.full((height, width), np.inf)
    for start, end in zip(corners, [*corners[1:], corners[-1]], strict=True):
        along = end - start
        share = ((centres - start) @ along / max(along @ along, 1e-9)).clip(0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(centres - start - share[..., None] * along, axis=-1))
    return nearest


@pytest.mark.parametrize("size", [(96, 96), (150, 80)])
@pytest.mark.parametrize(
    "points",
    [
        [(0.5, 0.4)],  # a tap of the finger
        [(0.2, 0.3), (0.7, 0.8)],
        [(0.1, 0.1), (0.9, 0.2), (0.3, 0.9), (0.31, 0.88)],
        [(0.5, 0.5), (1.4, 0.5)],  # out of the image
    ],
)
def test_a_stroke_covers_what_is_nearer_than_half_its_width(points, size) -> None:
    image = np.asarray(painted([stroke(*points, width=0.12)], size))
    off = distances(points, size) - 0.12 * max(size) / 2
    assert image.shape == off.shape
    assert (image[off < -1] == 255).all()
    assert (image[off > 1] == 0).all()
    assert (off < -1).any()
    assert (off > 1).any()


def test_an_eraser_takes_away_what_was_painted_before_it_only() -> None:
    across, down = [(0.1, 0.5), (0.9, 0.5)], [(0.5, 0.1), (0.5, 0.9)]
    size = (100, 100)
    strokes = [stroke(*across, width=0.2), stroke(*down, width=0.1, erase=True), stroke((0.5, 0.5), width=0.04)]
    image = np.asarray(painted(strokes, size))
    bar, cut, dot = (distances(p, size) - 100 * w / 2 for p, w in ((across, 0.2), (down, 0.1), ([(0.5, 0.5)], 0.04)))
    assert (image[dot < -1] == 255).all()
    assert (image[(cut < -1) & (dot > 1)] == 0).all()
    assert (image[(bar < -1) & (cut > 1)] == 255).all()


def test_without_strokes_the_map_is_empty() -> None:
    assert painted([], (8, 4)).getextrema() == (0, 0)
    assert painted([stroke((0.5, 0.5), erase=True)], (8, 4)).getextrema() == (0, 0)


RIGHT = (
    '{"page": "p", "base": 0, "revision": 1, "strokes": '
    '[{"erase": false, "width": 0.1, "at": 0, "points": [[0, 0, 0]]}]}'
)


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ('"revision": 1, ', ""),
        ('"revision": 1', '"revision": -1'),
        ('"revision": 1', '"revision": 1, "answer": "perhaps"'),
        ('"revision": 1', '"revision": 1, "path": "../x"'),
        ('"revision": 1', '"revision": 1, "seconds": NaN'),
        ("[[0, 0, 0]]", "[]"),
        ("[[0, 0, 0]]", "[[9, 0, 0]]"),
        ("[[0, 0, 0]]", "[" * 100_000),
        ("0.1", "2"),
        ("0.1", "0"),
    ],
)
def test_what_is_no_drawing_is_refused(part, wrong) -> None:
    assert Drawing.model_validate_json(RIGHT).strokes[0].points == [(0, 0, 0)]
    with pytest.raises(ValidationError):
        Drawing.model_validate_json(RIGHT.replace(part, wrong, 1))
