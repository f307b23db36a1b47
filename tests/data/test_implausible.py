"""Maps that are probably none: found where they are, and hardly ever among honest maps of many kinds."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from saliency_entropy.data.builtin import annotated
from saliency_entropy.data.drawn.face import features, random_face
from saliency_entropy.data.human_maps.implausible import implausible_shapes, repeated, shows
from saliency_entropy.data.human_maps.loading import on_grid
from saliency_entropy.data.human_maps.templates import template_map

SIZE, COUNT = 112, 60
GRIDS = (7, 14)


def builtin(rng: np.random.Generator) -> Image.Image:
    return annotated(features(random_face(rng)), {}, SIZE, rng)


def template(rng: np.random.Generator) -> Image.Image:
    return template_map(f"{rng.integers(10**9)}.png")


def strokes(rng: np.random.Generator, blur: float = 0) -> Image.Image:
    """One to six thin strokes around the middle of a face."""
    page = Image.new("L", (SIZE, SIZE))
    for _ in range(rng.integers(1, 7)):
        start = rng.normal([0.5, 0.55], [0.14, 0.16])
        ends = np.concatenate([start, start + rng.normal(0, 0.12, 2)]).clip(0.02, 0.98)
        ImageDraw.Draw(page).line((SIZE * ends).tolist(), fill=255, width=int(rng.integers(2, 8)))
    return page.filter(ImageFilter.GaussianBlur(blur * SIZE))


def soft(rng: np.random.Generator) -> Image.Image:
    """One to three wide blobs."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    blobs = (
        np.exp(-(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2) / 2)
        for cx, cy, sx, sy in rng.uniform([0.25, 0.25, 0.05, 0.05], [0.75, 0.75, 0.25, 0.25], (rng.integers(1, 4), 4))
    )
    total = sum(blobs)
    return Image.fromarray((255 * total / total.max()).astype(np.uint8))


def region(rng: np.random.Generator, least: float = 0.3, most: float = 0.95) -> Image.Image:
    """An ellipse of these parts of the sides."""
    page = Image.new("L", (SIZE, SIZE))
    centre, radii = rng.normal(0.5, 0.05, 2), rng.uniform(least, most, 2) / 2
    ImageDraw.Draw(page).ellipse((SIZE * np.concatenate([centre - radii, centre + radii])).tolist(), fill=255)
    return page


def edge(rng: np.random.Generator) -> Image.Image:
    """Hair above, or shoulders below, over the whole width."""
    page, part = Image.new("L", (SIZE, SIZE)), rng.uniform(0.1, 0.4)
    box = (0, 0, SIZE, SIZE * part) if rng.random() < 0.5 else (0, SIZE * (1 - part), SIZE, SIZE)
    ImageDraw.Draw(page).rectangle(box, fill=255)
    return page


HONEST = {
    "builtin": builtin, "template": template, "strokes": strokes, "blurred": lambda rng: strokes(rng, 0.05),
    "soft": soft, "region": region, "edge": edge,
}  # fmt: skip


def cells(draw: Callable[[np.random.Generator], Image.Image], grid: int, inverted: bool = False) -> np.ndarray:
    rng = np.random.default_rng(0)
    drawn = [draw(rng) for _ in range(COUNT)]
    return np.stack([on_grid(Image.eval(m, lambda v: 255 - v) if inverted else m, (grid, grid), "m") for m in drawn])


def found(maps: np.ndarray) -> dict[str, int]:
    return {kind: int(which.sum()) for kind, which in implausible_shapes(maps).items() if which.any()}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", HONEST)
def test_honest_maps_are_not_doubted(kind: str, grid: int) -> None:
    assert found(cells(HONEST[kind], grid)) == {}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", ["builtin", "template", "strokes", "blurred"])
def test_inverted_maps_are_found(kind: str, grid: int) -> None:
    assert found(cells(HONEST[kind], grid, inverted=True)) == {"inverted": COUNT}


@pytest.mark.parametrize("grid", GRIDS)
def test_of_inverted_wide_blobs_and_large_regions_most_are_found(grid: int) -> None:
    for draw in (soft, region):
        counts = found(cells(draw, grid, inverted=True))
        assert sum(counts.values()) >= 0.85 * COUNT
        assert set(counts) <= {"inverted", "bright border"}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("margin", [1, 3, 8])
def test_a_frame_and_a_nearly_full_rectangle(grid: int, margin: int) -> None:
    rectangle = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(rectangle).rectangle((margin, margin, SIZE - 1 - margin, SIZE - 1), fill=255)
    frame = Image.eval(rectangle, lambda value: 255 - value)
    ImageDraw.Draw(frame).rectangle((0, SIZE - margin, SIZE, SIZE), fill=255)
    assert found(on_grid(rectangle, (grid, grid), "m")[None]) == {"full rectangle": 1}
    assert found(on_grid(frame, (grid, grid), "m")[None]) == {"bright border": 1}


def test_a_grid_need_not_be_square() -> None:
    maps = [on_grid(Image.fromarray(np.pad(np.full((98, 98), 255, np.uint8), 7)), (8, 11), "m"), np.eye(8, 11)]
    assert found(np.stack(maps)) == {"full rectangle": 1}


def test_a_map_of_many_images() -> None:
    maps = np.random.default_rng(0).random((40, 7, 7), dtype=np.float32)
    assert not repeated(maps).any()
    maps[[2, 5, 7]] = maps[1]
    assert not repeated(np.delete(maps, 7, axis=0)).any()  # three
    assert np.flatnonzero(repeated(maps)).tolist() == [1, 2, 5, 7]
    assert not repeated(np.concatenate([maps, maps[8:9]])).any()  # less than a tenth
    assert repeated(np.zeros((0, 7, 7))).tolist() == []
    assert not repeated(np.zeros((40, 5, 5))).any()


def test_a_map_that_shows_its_image() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    smooth = image.filter(ImageFilter.GaussianBlur(6))
    own = on_grid(smooth.convert("L"), (7, 7), "m")
    assert shows(own, smooth)
    assert not shows(1 - own, smooth)
    assert not shows(own[::-1], smooth)
    assert not shows(own, Image.new("RGB", (64, 64)))  # of one colour: nothing to compare
