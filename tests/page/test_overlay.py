"""The map over the image: its numbers, its size, its orientation."""

import numpy as np
import pytest
from matplotlib import colormaps

from saliency_entropy.page.overlay import cam_overlay

LOW, HIGH = (np.array(colormaps["plasma"](value)[:3]) * 255 for value in (0, 255))


def test_a_constant_map_mixes_one_colour_into_the_image():
    image = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    for value, colour in ((0, LOW), (1, HIGH)):
        picture = np.asarray(cam_overlay(image, np.full((2, 3), value, dtype=np.float32), strength=0.25))
        np.testing.assert_array_equal(picture, (0.75 * image + 0.25 * colour).round())


def test_the_size_is_the_images_and_rows_stay_rows():
    cam = np.zeros((2, 4), dtype=np.float32)
    cam[0, 3] = 1  # above right
    picture = cam_overlay(np.zeros((40, 80, 3), dtype=np.uint8), cam, strength=1)
    assert picture.size == (80, 40)
    assert picture.mode == "RGB"
    pixels = np.asarray(picture)
    np.testing.assert_array_equal(pixels[0, -1], HIGH.round())
    for row, column in ((0, 0), (-1, 0), (-1, -1)):
        np.testing.assert_array_equal(pixels[row, column], LOW.round())


def test_enlarging_is_bilinear():
    # Cells 0 and 1 side by side, enlarged from 2 to 4 columns: centres at 1/4 and 3/4 of the way between them.
    picture = np.asarray(cam_overlay(np.zeros((1, 4, 3), dtype=np.uint8), np.array([[0.0, 1.0]]), strength=1))
    for column, value in enumerate((0, 64, 191, 255)):
        np.testing.assert_array_equal(picture[0, column], (np.array(colormaps["plasma"](value)[:3]) * 255).round())


@pytest.mark.parametrize("strength", [0, 1])
def test_the_strength_goes_from_the_image_to_the_map(strength):
    image = np.full((3, 3, 3), 200, dtype=np.uint8)
    expected = HIGH.round() if strength else image[0, 0]
    np.testing.assert_array_equal(np.asarray(cam_overlay(image, np.ones((1, 1)), strength))[1, 1], expected)


def test_values_beyond_the_range_do_not_wrap_around():
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(cam_overlay(image, np.full((1, 1), 1.01), 1))[0, 0], HIGH.round())
    np.testing.assert_array_equal(np.asarray(cam_overlay(image, np.full((1, 1), -0.01), 1))[0, 0], LOW.round())
