"""Corruptions of images on their way to a detector: compression, blur, a smaller copy, noise, less contrast.

Each is applied to the image as the network gets it, decoded and resized to S x S, so that a strength means the same
for every image. Applied to the file, it would be weaker in larger images, and real and synthetic images seldom have the
same size: the corruption would tell them apart. Pixels are those of the network's input, so figures can be compared
between networks of the same S only.
"""

import hashlib
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from saliency_entropy.errors import UserError

# Name -> four strengths, the mildest first. From:
# jpeg: the range of Wang et al., CNN-generated images are surprisingly easy to spot ... for now, CVPR 2020 (30 to 100);
# blur: their range, too (0 to 3 pixels);
# resize: ImageNet-C (Hendrycks and Dietterich, ICLR 2019), severities 1 to 4 of "pixelate";
# noise: DeeperForensics-1.0 (Jiang et al., CVPR 2020), levels 1 to 4: the roots of its variances .001, .002, .005, .01;
# contrast: DeeperForensics-1.0, levels 1 to 4.
STRENGTHS = {
    "jpeg": (90, 70, 50, 30),
    "blur": (0.5, 1, 2, 3),
    "resize": (0.6, 0.5, 0.4, 0.3),
    "noise": (8, 11, 18, 26),
    "contrast": (0.85, 0.725, 0.6, 0.475),
}
NONE = "none"  # instead of a corruption: the image as it is


class Variant(NamedTuple):
    """An image as it is (:data:`NONE`, strength 0), or corrupted."""

    corruption: str
    strength: float


def variants(corruptions: Sequence[str]) -> list[Variant]:
    """The image as it is, then every strength of these corruptions, in the order of :data:`STRENGTHS`.

    Args:
        corruptions: names, or ``all`` alone.

    Raises:
        UserError: a name is not that of a corruption, or no corruption is named.
    """
    unknown = [name for name in corruptions if name not in STRENGTHS]
    if list(corruptions) == ["all"]:
        corruptions = list(STRENGTHS)
    elif unknown or not corruptions:
        what = f"names {unknown[0]!r}" if unknown else "names none"
        raise UserError(f"corruptions {what}; choose from {', '.join(STRENGTHS)}, or all")
    corrupted = [Variant(name, value) for name in STRENGTHS if name in corruptions for value in STRENGTHS[name]]
    return [Variant(NONE, 0), *corrupted]


def corrupted(image: np.ndarray, variant: Variant, path: str) -> np.ndarray:
    """One variant of an image.

    Args:
        image: ``(S, S, 3)`` uint8, RGB; left as it is.
        variant: the corruption and its strength.
        path: the image's path in the manifest, which seeds its noise: the same in every run and process.

    Returns:
        ``(S, S, 3)`` uint8.
    """
    name, strength = variant
    if name == NONE:
        return image
    if name == "noise":
        return noise(image, strength, int.from_bytes(hashlib.sha256(path.encode()).digest()[:16]))
    return {"jpeg": jpeg, "blur": blur, "resize": resize, "contrast": contrast}[name](image, strength)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Compressed and decoded; ``quality`` 1 to 100 as libjpeg counts it, chroma at half the resolution (4:2:0)."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file, formats=("JPEG",)) as decoded:
        return np.array(decoded)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolved with a Gaussian of standard deviation ``sigma`` in pixels; the image is mirrored beyond its edges."""
    return _as_bytes(gaussian_filter(image.astype(np.float32), (sigma, sigma, 0)))


def resize(image: np.ndarray, factor: float) -> np.ndarray:
    """Scaled to ``factor`` of its side and back, bilinear and antialiased, as images are for the network."""
    height, width = image.shape[:2]
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    whole = Image.fromarray(image)
    return np.array(whole.resize(small, Image.Resampling.BILINEAR).resize(whole.size, Image.Resampling.BILINEAR))


def noise(image: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """With Gaussian noise of standard deviation ``sigma`` in grey levels of 255, drawn for each pixel and channel.

    The same seed draws the same noise, whatever its strength.
    """
    drawn = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    return _as_bytes(image + np.float32(sigma) * drawn)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Deviations from the image's mean colour, scaled by ``factor`` (ImageNet-C's definition)."""
    mean = image.mean(axis=(0, 1), dtype=np.float64)
    return _as_bytes(mean + factor * (image - mean))


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)
