"""The corruptions against NumPy, SciPy and libjpeg, each used another way."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from saliency_entropy.errors import UserError
from saliency_entropy.scores.corruptions import (
    NONE,
    STRENGTHS,
    Variant,
    blur,
    contrast,
    corrupted,
    jpeg,
    noise,
    resize,
    variants,
)

EVERY = [variant for variant in variants(["all"]) if variant.corruption != NONE]


@pytest.fixture
def image() -> np.ndarray:
    """A ramp of colours with noise, well within 0 to 255."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    ramp = np.stack([60 + 2 * x, 60 + 2 * y, 100 + x + y], axis=2)
    return (ramp + random.integers(-15, 16, ramp.shape)).astype(np.uint8)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


@pytest.mark.parametrize("variant", EVERY, ids=str)
def test_every_variant_is_such_an_image_and_repeats(image: np.ndarray, variant: Variant) -> None:
    before = image.copy()
    first = corrupted(image, variant, "a/1.png")
    assert (first.shape, first.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(corrupted(image, variant, "a/1.png"), first)
    np.testing.assert_array_equal(image, before)
    assert difference(first, image) > 0.5


@pytest.mark.parametrize("name", STRENGTHS)
def test_strengths_rise(image: np.ndarray, name: str) -> None:
    changes = [difference(corrupted(image, Variant(name, strength), "x"), image) for strength in STRENGTHS[name]]
    assert len(changes) == 4
    assert changes == sorted(set(changes))


def test_jpeg_is_of_this_quality(image: np.ndarray) -> None:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=50)  # Pillow's own subsampling is 4:2:0
    np.testing.assert_array_equal(jpeg(image, 50), np.array(Image.open(file)))
    # Of quality 50, libjpeg's table of luminance is that of the standard: its first step is 16.
    assert Image.open(file).quantization[0][0] == 16


def test_blur_of_a_point_is_the_gaussian() -> None:
    point = np.zeros((33, 33, 3), dtype=np.uint8)
    point[16, 16, 1] = 255
    y, x = np.mgrid[-16:17, -16:17]
    gaussian = np.exp(-(x**2 + y**2) / (2 * 1.0**2))
    expected = np.round(255 * gaussian / gaussian.sum())
    found = blur(point, 1.0)
    # SciPy cuts the kernel at four standard deviations.
    assert np.abs(found[:, :, 1].astype(float) - expected).max() <= 1
    assert found[16, 16, 1] == 41  # 255 / (2 pi) = 40.6
    assert not found[:, :, [0, 2]].any()  # no channel runs into another


def test_resize_loses_what_a_smaller_copy_cannot_hold() -> None:
    y, x = np.mgrid[:64, :64]
    checks = np.repeat((255 * ((x + y) % 2))[:, :, None], 3, axis=2).astype(np.uint8)
    assert np.abs(resize(checks, 0.5)[8:-8, 8:-8].astype(float) - 127.5).max() < 2
    ramp = np.repeat((4 * x)[:, :, None], 3, axis=2).astype(np.uint8)
    assert np.abs(resize(ramp, 0.5)[8:-8, 8:-8].astype(float) - ramp[8:-8, 8:-8]).max() <= 1
    assert resize(checks[:5, :5], 0.3).shape == (5, 5, 3)


def test_noise_is_of_this_strength_and_clipped() -> None:
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    drawn = noise(grey, 11, 0).astype(float) - 128
    # Rounding adds a variance of 1 / 12; the standard error of either figure is below 0.04.
    assert drawn.mean() == pytest.approx(0, abs=0.15)
    assert drawn.std() == pytest.approx(np.sqrt(121 + 1 / 12), abs=0.15)
    assert np.corrcoef(drawn[:, :, 0].ravel(), drawn[:, :, 1].ravel())[0, 1] == pytest.approx(0, abs=0.03)
    white = noise(np.full((200, 200, 3), 255, dtype=np.uint8), 11, 0)
    assert (white == 255).mean() == pytest.approx(0.5, abs=0.03)
    assert white.min() > 150  # nothing wraps to black


def test_noise_is_the_images_own() -> None:
    grey = np.full((64, 64, 3), 128, dtype=np.uint8)
    one, other = (corrupted(grey, Variant("noise", 8), path).astype(float) - 128 for path in ("a.png", "b.png"))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] == pytest.approx(0, abs=0.05)
    stronger = corrupted(grey, Variant("noise", 26), "a.png").astype(float) - 128
    assert np.corrcoef(one.ravel(), stronger.ravel())[0, 1] > 0.99


def test_noise_is_the_same_in_another_process() -> None:
    code = (
        "import numpy as np, hashlib; from saliency_entropy.scores.corruptions import *; "
        "image = corrupted(np.full((16, 16, 3), 128, np.uint8), Variant('noise', 8), 'a.png'); "
        "print(hashlib.sha256(image.tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }  # fmt: skip
    assert len(digests) == 1


def test_contrast_is_about_the_mean_colour() -> None:
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    image[:, :, 0] = [[0, 200], [0, 200]]
    image[:, :, 2] = 77
    found = contrast(image, 0.6)
    assert found[:, :, 0].tolist() == [[40, 160], [40, 160]]
    assert (found[:, :, 1] == 0).all()
    assert (found[:, :, 2] == 77).all()


def test_variants() -> None:
    assert variants(["blur", "jpeg"]) == [
        ("none", 0), ("jpeg", 90), ("jpeg", 70), ("jpeg", 50), ("jpeg", 30),
        ("blur", 0.5), ("blur", 1), ("blur", 2), ("blur", 3),
    ]  # fmt: skip
    assert len(variants(["all"])) == 21
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    assert corrupted(image, Variant(NONE, 0), "x") is image


@pytest.mark.parametrize(("names", "message"), [
    (["jpg"], "corruptions names 'jpg'; choose from jpeg, blur, resize, noise, contrast, or all"),
    (["all", "jpeg"], "corruptions names 'all'; choose from"),
    ([], "corruptions names none; choose from"),
])  # fmt: skip
def test_mistakes(names: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        variants(names)
    assert str(caught.value).startswith(message)
