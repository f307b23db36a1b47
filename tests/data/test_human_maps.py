"""Human maps on the CAM grid: numbers worked out by hand."""

import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import ive

from saliency_entropy.data.human_maps.loading import MAP_EXTENSIONS, keep_fraction, load_human_map, merged_map
from saliency_entropy.data.images import check_pixels, load_image
from saliency_entropy.errors import UserError


def saved(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_map_is_resized_in_uint8_then_scaled_by_hand(tmp_path: Path) -> None:
    # Columns 0, 100, 201, 255 to two cells, weights 3/7, 3/7, 1/7: 300/7 + 201/7 = 71.57 -> 72 and
    # (100 + 603 + 765)/7 = 209.71 -> 210; on rows 1 to 4 constant. So min 72 and max 210, rounded before the scaling.
    rows = np.array([[0, 100, 201, 255]] * 2 + [[255] * 4] * 2, dtype=np.uint8)
    # Rows: target 0 takes 6/7 of the upper pair and 1/7 of the lower: 72 and 210 -> (6*72 + 255)/7 = 98.14,
    # (6*210 + 255)/7 = 216.43; target 1: (72 + 6*255)/7 = 228.86, (210 + 6*255)/7 = 248.57.
    loaded = load_human_map([saved(tmp_path / "m.png", rows)], (2, 2))
    cells = np.array([[98, 216], [229, 249]], dtype=np.float32)
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded, (cells - 98) / (249 - 98), rtol=1e-6)


def test_map_grid_is_rows_by_columns(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6))
    loaded = load_human_map([path], (2, 3))
    assert loaded.shape == (2, 3)
    assert (loaded.min(), loaded.max()) == (0.0, 1.0)
    assert loaded[0, 0] == 0
    assert loaded[1, 2] == 1


def test_a_map_of_one_hue_goes_through_grey(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    pixels[0, 1], pixels[1, 0], pixels[1, 1] = (255, 0, 0), (130, 0, 0), (50, 0, 0)
    # ITU-R 601: 0.299 of these are 76, 39, 15; of 76, in 255 levels, 255, 131 and 50.
    expected = np.array([[0, 255], [131, 50]], dtype=np.float32) / 255
    np.testing.assert_allclose(load_human_map([saved(tmp_path / "m.png", pixels)], (2, 2)), expected, rtol=1e-6)


def test_a_constant_map(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", np.full((8, 8), 7, dtype=np.uint8))
    with pytest.raises(UserError, match=r"m\.png is a constant map \(every pixel is 7\); remove it from column"):
        load_human_map([path], (2, 2))
    check_pixels(path)  # as an image it is one


def test_a_map_that_is_constant_on_the_grid(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64), dtype=np.uint8)
    pixels[5, 5] = 1
    with pytest.raises(UserError, match=r"constant map on the CAM grid of 2 x 3 cells \(each is 0\)"):
        load_human_map([saved(tmp_path / "m.png", pixels)], (2, 3))


def grey(path: Path, rows: list[list[int]]) -> Path:
    return saved(path, np.array(rows, dtype=np.uint8))


def strokes(path: Path, alpha: list[list[int]], colour: tuple[int, int, int] = (200, 30, 0)) -> Path:
    """A stroke layer: one colour, its opacity as given."""
    pixels = np.zeros((len(alpha), len(alpha[0]), 4), dtype=np.uint8)
    pixels[..., :3], pixels[..., 3] = colour, alpha
    return saved(path, pixels)


def svg(path: Path, body: str) -> Path:
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">{body}</svg>')
    return path


def merged(*files: Path, **options: float) -> list[list[int]]:
    image = merged_map(files, **options)
    assert image.mode == "L"
    return np.asarray(image).tolist()


def test_one_layer_from_0_to_255_is_the_map_as_it_is(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (9, 7)).tolist()
    assert merged(grey(tmp_path / "m.png", rows)) == rows


@pytest.mark.parametrize("top", [1, 2, 100, 254, 255])
def test_the_range_of_a_mask_does_not_matter(tmp_path: Path, top: int) -> None:
    # A disc of 9 x 9 on 56 x 56 pixels covers a part of many cells only, which 0/1 would round to 0.
    y, x = np.mgrid[:56, :56]
    mask = (x - 20) ** 2 + (y - 24) ** 2 < 81
    other = saved(tmp_path / "other.png", np.roll(mask, 17, 1).astype(np.uint8) * 255)
    whole = saved(tmp_path / "whole.png", mask.astype(np.uint8) * 255)
    given = saved(tmp_path / "given.png", mask.astype(np.uint8) * top)
    assert (load_human_map([given], (7, 7)) == load_human_map([whole], (7, 7))).all()
    # Of two annotators, each counts alike, and the resize to the other's size loses nothing either.
    large = saved(tmp_path / "large.png", np.kron(np.roll(mask, 17, 1), np.ones((2, 2))).astype(np.uint8) * 255)
    for second in (other, large):
        assert merged(given, second) == merged(whole, second)
    bits = tmp_path / "bits.png"
    Image.fromarray(mask).save(bits)
    assert Image.open(bits).mode == "1"
    assert merged(bits) == merged(whole)


def test_faint_layers_are_scaled_to_their_own_range(tmp_path: Path) -> None:
    # 10 to 90: (30 - 10) * 255 / 80 = 63.75; 128 of 255 by 40 of 128: 79.7.
    assert merged(grey(tmp_path / "soft.png", [[10, 30, 90]])) == [[0, 64, 255]]
    assert merged(strokes(tmp_path / "faint.png", [[0, 40, 128]])) == [[0, 80, 255]]
    faint = svg(tmp_path / "faint.svg", '<path d="M0 4h4" stroke="red" stroke-width="2" stroke-opacity="0.3"/>')
    assert merged_map([faint]).getextrema() == (0, 255)


def test_two_layers_are_averaged_halves_up(tmp_path: Path) -> None:
    a = grey(tmp_path / "a.png", [[0, 1, 2, 255]])
    b = grey(tmp_path / "b.png", [[0, 2, 5, 254]])
    # 0, 1.5, 3.5, 254.5.
    assert merged(a, b) == [[0, 2, 4, 255]]


def test_three_layers_are_averaged_to_the_nearest(tmp_path: Path) -> None:
    files = [grey(tmp_path / f"{index}.png", [[0, *row]]) for index, row in
             enumerate([(1, 11, 255), (0, 0, 0), (0, 0, 255)])]  # fmt: skip
    # 1/3, 11/3 and 170.
    assert merged(*files) == [[0, 0, 4, 170]]


def test_a_layer_that_marks_nothing_counts_as_zeros(tmp_path: Path) -> None:
    drawn = grey(tmp_path / "a.png", [[0, 255, 100]])
    black = grey(tmp_path / "b.png", [[0, 0, 0]])
    white = grey(tmp_path / "c.png", [[255, 255, 255]])
    empty = strokes(tmp_path / "d.png", [[0, 0, 0]])
    assert merged(drawn, black) == merged(drawn, white) == merged(empty, drawn) == [[0, 128, 50]]
    assert merged(drawn, black, white, empty) == [[0, 64, 25]]


def test_layers_meet_at_the_size_of_the_largest(tmp_path: Path) -> None:
    small = grey(tmp_path / "a.png", [[0, 255]])
    large = grey(tmp_path / "b.png", [[0, 0, 0, 255], [0, 0, 0, 255]])
    # Bilinear, 2 to 4 columns: 0, 0.25, 0.75, 1 of 255 are 0, 64, 191, 255. Halves of these, and of + 255.
    assert merged(small, large) == [[0, 32, 96, 255]] * 2
    assert merged(large, small) == [[0, 32, 96, 255]] * 2


def test_of_layers_as_large_the_first_decides(tmp_path: Path) -> None:
    wide = grey(tmp_path / "a.png", [[0, 10, 20, 30]])
    tall = grey(tmp_path / "b.png", [[0], [10], [20], [30]])
    assert merged_map([wide, tall]).size == (4, 1)
    assert merged_map([tall, wide]).size == (1, 4)


def test_a_merged_map_that_is_constant_names_all_its_files(tmp_path: Path) -> None:
    a = grey(tmp_path / "a.png", [[0, 255], [255, 255]])
    b = grey(tmp_path / "b.png", [[255, 0], [0, 0]])
    # 127.5 everywhere.
    with pytest.raises(UserError, match=r"a\.png; .*b\.png is a constant map \(every pixel is 128\); remove it from"):
        merged(a, b)


def test_no_annotator_marked_anything(tmp_path: Path) -> None:
    files = [strokes(tmp_path / "a.png", [[0, 0]]), grey(tmp_path / "b.png", [[9, 9]])]
    with pytest.raises(UserError, match=r"a\.png; .*b\.png is a constant map \(every pixel is 0\)"):
        merged(*files)
    with pytest.raises(UserError, match=r"a\.png is a constant map \(every pixel is 0\)"):
        merged(files[0])


def test_a_cell_of_separators_only() -> None:
    with pytest.raises(UserError, match="column human_map names no file"):
        load_human_map([], (2, 2))


ALPHA = [[0, 0, 0, 0], [128, 128, 128, 255], [0, 0, 0, 0]]


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (12, 240, 7)])
def test_of_a_stroke_layer_the_opacity_is_the_map(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    assert merged(strokes(tmp_path / "m.png", ALPHA, colour)) == ALPHA
    # On a grid of its own size: 128 of 255.
    cells = load_human_map([tmp_path / "m.png"], (3, 4))
    np.testing.assert_allclose(cells[1], [128 / 255] * 3 + [1], rtol=1e-6)


def test_of_a_lossless_webp_and_a_grey_layer_too(tmp_path: Path) -> None:
    layer = Image.open(strokes(tmp_path / "m.png", ALPHA))
    layer.save(tmp_path / "m.webp", lossless=True)
    layer.convert("LA").save(tmp_path / "la.png")
    assert merged(tmp_path / "m.webp") == merged(tmp_path / "la.png") == ALPHA


def test_of_a_palette_with_transparency_too(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 255, 255, 255, 0, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "m.png", transparency=bytes([0, 128, 255]))
    assert merged(tmp_path / "m.png") == [[0, 128, 255]]


def test_a_bitmap_of_32_bits(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 4), dtype=np.uint8)
    pixels[0] = [(0, 0, 0, 0), (255, 255, 255, 0), (51, 51, 51, 0)]
    for opacity in (0, 255):  # no opacity: a byte that fills up
        pixels[..., 3] = opacity
        assert merged(saved(tmp_path / "m.bmp", pixels)) == [[0, 255, 51], [0, 0, 0]]
    pixels[0, 1, 3] = 7
    with pytest.raises(UserError, match=r"m\.bmp is a BMP with an opacity that programs read in .* ways; save it"):
        merged(saved(tmp_path / "m.bmp", pixels))
    Image.fromarray(pixels[..., 0]).save(tmp_path / "m.bmp")
    assert merged(tmp_path / "m.bmp") == [[0, 255, 51], [0, 0, 0]]


def test_a_bitmap_that_is_shorter_than_the_usual_header(tmp_path: Path) -> None:
    header = struct.pack("<2sIHHIIHHHH", b"BM", 30, 0, 0, 26, 12, 1, 1, 1, 24)  # as OS/2 wrote it, of one pixel
    (tmp_path / "m.bmp").write_bytes(header + bytes(4))
    with pytest.raises(UserError, match=r"m\.bmp is a constant map"):
        merged(tmp_path / "m.bmp")


def test_a_layer_that_is_opaque_throughout_is_its_grey_values(tmp_path: Path) -> None:
    pixels = np.full((1, 3, 4), 255, dtype=np.uint8)
    pixels[0, :, :3] = [(90, 90, 90), (200, 200, 200), (0, 0, 0)]
    path = saved(tmp_path / "m.png", pixels)
    # 90 of 200, in 255 levels: 114.75.
    assert merged(path) == [[115, 255, 0]]
    pixels[..., 3] = 128
    assert merged(saved(path, pixels)) == [[115, 255, 0]]


def heat(levels: np.ndarray, name: str, cold: int = 0) -> np.ndarray:
    """``(h, w, 4)`` pixels of a colour map, transparent where the level is below ``cold``."""
    colours = colormaps[name](levels, bytes=True)
    colours[..., 3] = np.where(levels < cold, 0, 255)
    return colours


# A Gaussian blob: 255 in its middle, 0 in the corners.
BLOB = np.outer(*2 * [np.exp(-(((np.arange(64) - 31.5) / 14) ** 2) / 2)])
BLOB = (255 * (BLOB - BLOB.min()) / np.ptp(BLOB)).round().astype(np.uint8)


@pytest.mark.parametrize("cold", [0, 20])
@pytest.mark.parametrize("name", ["jet", "turbo", "viridis", "hot", "plasma"])
def test_a_heat_map_is_refused_or_decoded_by_the_colour_map_that_is_named(tmp_path: Path, name: str, cold: int) -> None:
    path = saved(tmp_path / "m.png", heat(BLOB, name, cold))
    with pytest.raises(UserError, match=r"m\.png is in colour; save the map in grey or, .*: \+data\..*\.colormap=jet"):
        merged(path)
    # Levels of equal colours (the ends of hot are 0 and 255 of a channel, each for several) differ by a few.
    expected = np.where(cold > BLOB, 0, BLOB).astype(int)
    assert np.abs(np.array(merged(path, colormap=name)) - expected).max() <= 2
    Image.fromarray(heat(BLOB, name)[..., :3]).save(tmp_path / "m.jpg", quality=90)
    assert np.abs(np.array(merged(tmp_path / "m.jpg", colormap=name)) - BLOB.astype(int)).mean() < 2


def test_colours_of_another_colour_map_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", heat(BLOB, "jet"))
    with pytest.raises(UserError, match=r"m\.png is in colour, but not in the colours of viridis \(they are \d+ of"):
        merged(path, colormap="viridis")
    for wrong in ("jett", 3):
        with pytest.raises(UserError, match=rf"data\.human_maps\.colormap is {wrong!r}; name one of matplotlib's"):
            merged(path, colormap=wrong)


def test_grey_files_among_heat_maps_are_read_as_ever(tmp_path: Path) -> None:
    rgb = saved(tmp_path / "m.png", np.repeat(BLOB[..., None], 3, axis=-1))
    assert merged(rgb) == merged(rgb, colormap="jet") == BLOB.tolist()
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :2] = 255, 0, 0, 128
    assert np.array(merged(saved(rgb, pixels))).sum() == 4 * 255


def test_strokes_in_several_colours_are_their_opacity(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[8:16], pixels[:, 30:40], pixels[50:60] = (255, 0, 0, 255), (0, 200, 0, 255), (40, 40, 255, 200)
    np.testing.assert_array_equal(merged(saved(tmp_path / "m.png", pixels)), pixels[..., 3])


@pytest.mark.parametrize(
    ("ground", "mark"), [((0, 0, 0), (255, 0, 0)), ((0, 0, 0), (255, 255, 0)), ((30, 30, 30), (255, 0, 0))]
)
def test_a_mask_of_one_hue_survives_jpeg(tmp_path: Path, ground: tuple[int, ...], mark: tuple[int, ...]) -> None:
    marked = np.kron(BLOB, np.ones((3, 3)))[..., None] > 128
    Image.fromarray(np.where(marked, mark, ground).astype(np.uint8)).save(tmp_path / "m.jpg", quality=75)
    grey = np.array(merged(tmp_path / "m.jpg"))
    assert ((grey > 128) == marked[..., 0]).mean() > 0.98


def test_grey_levels_under_a_hard_mask_are_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    Image.fromarray(np.array([[0, 90, 200]], dtype=np.uint8)).save(path, transparency=0)
    with pytest.raises(UserError, match=r"m\.png has both grey levels and transparent pixels.*save it without transp"):
        merged(path)
    # A hard brush of one grey is no such thing.
    assert merged(strokes(path, [[0, 255, 255]], (90, 90, 90))) == [[0, 255, 255]]


def test_strokes_in_svg_merge_with_images(tmp_path: Path) -> None:
    right = svg(tmp_path / "a.svg", '<rect x="4" width="4" height="8"/>')
    lower = grey(tmp_path / "b.png", [[0, 0], [255, 255]])
    np.testing.assert_array_equal(load_human_map([right], (2, 2)), [[0, 1], [0, 1]])
    # Quadrants far from the borders between them: halves of 0, 255, 255 and 510.
    image = merged_map([right, lower])
    assert [image.getpixel(at) for at in [(9, 9), (500, 9), (9, 500), (500, 500)]] == [0, 128, 128, 255]


def test_extensions_are_those_of_images_and_svg(tmp_path: Path) -> None:
    assert {".png", ".jpg", ".webp", ".bmp", ".svg"} < set(MAP_EXTENSIONS)
    path = svg(tmp_path / "m.PNG", "<rect/>")
    with pytest.raises(UserError, match=r"m\.PNG is not an image in a known format"):
        merged(path)
    with pytest.raises(UserError, match=r"m\.svgz is a compressed SVG; unpack it"):
        merged(path.rename(tmp_path / "m.svgz"))


@pytest.mark.parametrize("map_size", [(50, 25), (50, 50), (200, 100), (31, 77)])
def test_a_map_is_squashed_like_its_image(tmp_path: Path, map_size: tuple[int, int]) -> None:
    def spot(path: Path, size: tuple[int, int]) -> Path:
        """Bright from 0.7 to 0.8 of the width and 0.2 to 0.3 of the height."""
        x, y = ((np.arange(side) + 0.5) / side for side in size)
        bright = ((y > 0.2) & (y < 0.3))[:, None] & ((x > 0.7) & (x < 0.8))
        return saved(path, np.where(bright, 255, 0).astype(np.uint8))

    image = load_image(spot(tmp_path / "image.png", (200, 100)), 7)[..., 0]
    cells = load_human_map([spot(tmp_path / "map.png", map_size)], (7, 7))
    # 0.75 x 7 = 5.25 and 0.25 x 7 = 1.75: the sixth column of the second row.
    assert np.unravel_index(image.argmax(), image.shape) == np.unravel_index(cells.argmax(), cells.shape) == (1, 5)


@pytest.mark.parametrize("size", [(90, 60), (61, 97)])
def test_blur_is_a_gaussian_in_fractions_of_the_longer_side(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = np.zeros(size[::-1], dtype=np.uint8)
    pixels[20:24, 10:50] = 100
    pixels[:3, :3] = 255
    blurred = merged_map([saved(tmp_path / "m.png", pixels)], blur=0.1)
    assert blurred.size == size
    expected = gaussian_filter(pixels.astype(np.float64), 0.1 * max(size), truncate=8)
    np.testing.assert_allclose(np.asarray(blurred), expected * (255 / expected.max()), atol=1.2)


def test_blur_of_a_thin_stroke_keeps_its_shades(tmp_path: Path) -> None:
    # One column of 201: its greatest value under a Gaussian of 20 pixels is 255 / (20 sqrt(2 pi)) = 5.1.
    pixels = np.zeros((201, 201), dtype=np.uint8)
    pixels[:, 100] = 255
    row = np.asarray(merged_map([saved(tmp_path / "m.png", pixels)], blur=20.1 / 201))[100].astype(float)
    expected = 255 * np.exp(-0.5 * ((np.arange(201) - 100) / 20.1) ** 2)
    np.testing.assert_allclose(row, expected, atol=0.6)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 0.6])
def test_blur_of_about_a_pixel_is_the_discrete_gaussian(tmp_path: Path, sigma: float) -> None:
    path = grey(tmp_path / "m.png", [[0] * 10 + [255] + [0] * 10])
    # Modified Bessel functions of the order of the distance, at sigma squared.
    expected = 255 * ive(np.abs(np.arange(21) - 10), sigma**2) / ive(0, sigma**2)
    np.testing.assert_allclose(merged(path, blur=sigma / 21)[0], expected, atol=0.51)


def test_binarise_is_a_fraction_of_the_maximum(tmp_path: Path) -> None:
    path = grey(tmp_path / "m.png", [[0, 99, 100, 101, 200]])
    assert merged(path, binarise=0.5) == [[0, 0, 255, 255, 255]]
    assert merged(path, binarise=0.99) == [[0, 0, 0, 0, 255]]
    np.testing.assert_array_equal(load_human_map([path], (1, 5), binarise=0.5), [[0, 0, 1, 1, 1]])


def test_binarise_comes_after_the_merge_and_the_blur(tmp_path: Path) -> None:
    a, b = grey(tmp_path / "a.png", [[0, 200, 200]]), grey(tmp_path / "b.png", [[0, 0, 200]])
    assert merged(a, b, binarise=0.6) == [[0, 0, 255]]
    pixels = np.zeros((1, 101), dtype=np.uint8)
    pixels[0, 50] = 1
    # A Gaussian of 10 pixels falls to a half at 10 sqrt(2 ln 2) = 11.77.
    (row,) = merged(saved(tmp_path / "c.png", pixels), blur=10 / 101, binarise=0.5)
    assert row == [255 if abs(x - 50) <= 11 else 0 for x in range(101)]


def test_a_map_that_binarise_or_blur_leaves_constant(tmp_path: Path) -> None:
    # A Gaussian of one pixel leaves exp(-1) of the difference: 80 and 174.
    path = grey(tmp_path / "m.png", [[0, 255]])
    with pytest.raises(
        UserError, match=r"m\.png is a constant map \(every pixel is 255\); raise .*binarise, which is 0\.4"
    ):
        merged(path, blur=0.5, binarise=0.4)
    with pytest.raises(UserError, match=r"m\.png is a constant map .*; lower data\.human_maps\.blur, which is 0\.5"):
        merged(grey(tmp_path / "m.png", [[0] + [255, 0] * 20]), blur=0.5)


@pytest.mark.parametrize("blur", [-0.1, 0.51, float("nan"), "wide", True, None])
def test_blur_out_of_range(tmp_path: Path, blur: object) -> None:
    with pytest.raises(UserError, match=r"data\.human_maps\.blur is .*; give a number from 0 to 0\.5"):
        merged(grey(tmp_path / "m.png", [[0, 9]]), blur=blur)


@pytest.mark.parametrize("binarise", [0, 1, -0.5, float("nan"), "half", True])
def test_binarise_out_of_range(tmp_path: Path, binarise: object) -> None:
    with pytest.raises(UserError, match=r"data\.human_maps\.binarise is .*; give a number between 0 and 1 .*, or null"):
        merged(grey(tmp_path / "m.png", [[0, 9]]), binarise=binarise)


def annotated(real: int, synthetic: int) -> pd.DataFrame:
    """Training images with maps, as many without, and a validation and a test image with one."""
    labels = ["real"] * real + ["synthetic"] * synthetic
    train = pd.DataFrame({"path": [f"{i}.png" for i in range(len(labels))], "label": labels, "split": "train"})
    others = pd.DataFrame({"path": ["v.png", "t.png"], "label": "real", "split": ["val", "test"]})
    bare = train.assign(path="bare/" + train["path"], human_map="")
    return pd.concat([bare, pd.concat([train, others]).assign(human_map="m.png")], ignore_index=True)


def kept(table: pd.DataFrame) -> set[str]:
    return set(table["path"][(table["split"] == "train") & (table["human_map"] != "")])


@pytest.mark.parametrize(
    ("real", "synthetic", "fraction", "count"),
    [(9, 9, 0.5, 9), (9, 9, 0, 0), (9, 9, 1, 18), (7, 4, 0.5, 6), (7, 4, 0.4, 4), (30, 3, 0.1, 3), (5, 0, 0.3, 2)],
)
def test_the_nearest_number_of_maps_is_kept_of_both_labels_alike(
    real: int, synthetic: int, fraction: float, count: int
) -> None:
    table = annotated(real, synthetic)
    before = table.copy()
    thinned = keep_fraction(table, fraction, seed=3)
    pd.testing.assert_frame_equal(table, before)
    paths = kept(thinned)
    assert len(paths) == count
    of_real = sum(int(path.removesuffix(".png")) < real for path in paths)
    assert abs(of_real - fraction * real) < 1
    assert abs(count - of_real - fraction * synthetic) < 1
    # Nothing else changes.
    pd.testing.assert_frame_equal(thinned.drop(columns="human_map"), table.drop(columns="human_map"))
    assert list(thinned["human_map"][table["split"] != "train"]) == ["m.png"] * 2
    assert (thinned["human_map"][table["human_map"] == ""] == "").all()


def test_a_smaller_fraction_keeps_some_of_a_larger_one() -> None:
    table = annotated(23, 14)
    sets = [kept(keep_fraction(table, fraction, seed=1)) for fraction in np.linspace(0, 1, 38)]
    assert [len(paths) for paths in sets] == list(range(38))
    assert all(small < large for small, large in pairwise(sets))


@pytest.mark.parametrize("fraction", [0.25, 0.125])  # 10 and 5 of 40: the last may be of either label
def test_the_order_of_the_rows_changes_nothing(fraction: float) -> None:
    table = annotated(20, 20)
    shuffled = table.sample(frac=1, random_state=0)
    expected = kept(keep_fraction(table, fraction, seed=5))
    assert kept(keep_fraction(shuffled, fraction, seed=5)) == expected
    assert kept(keep_fraction(shuffled.reset_index(drop=True), fraction, seed=5)) == expected


def test_every_map_is_as_likely_to_be_kept() -> None:
    table = annotated(12, 8)
    counts = pd.Series(0, index=sorted(kept(table)))
    for seed in range(200):
        counts[sorted(kept(keep_fraction(table, 0.25, seed)))] += 1
    # Binomial, 200 draws at 1/4: 50, standard deviation 6.1.
    assert counts.min() > 50 - 4 * 6.2
    assert counts.max() < 50 + 4 * 6.2


def test_a_table_without_maps_stays_as_it_is() -> None:
    table = annotated(2, 2).assign(human_map="")
    pd.testing.assert_frame_equal(keep_fraction(table, 0.5, seed=0), table)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), "all", None, True])
def test_fraction_out_of_range(fraction: object) -> None:
    with pytest.raises(UserError, match=r"data\.human_maps\.fraction is .*; give a number from 0 to 1"):
        keep_fraction(annotated(2, 2), fraction, seed=0)
