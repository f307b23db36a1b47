"""Human maps on the CAM grid: numbers worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_entropy.data.human_maps import load_human_map
from saliency_entropy.data.images import check_pixels
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


def test_a_coloured_map_goes_through_grey(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    pixels[0, 1], pixels[1, 0], pixels[1, 1] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    # ITU-R 601: 0.299, 0.587, 0.114 of 255 are 76, 150, 29.
    expected = np.array([[0, 76], [150, 29]], dtype=np.float32) / 150
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
