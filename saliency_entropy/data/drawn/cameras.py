"""What changes a whole drawing a little: the camera that "photographs" it, the fingerprint of a made-up generator.

Images are ``(S, S, 3)`` float32 before and after.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """How one camera differs from another. Each image draws its own blur, cast, exposure and noise around these.

    Attributes:
        cast: mean gain of red, green and blue.
        noise: mean standard deviation, grey levels.
    """

    cast: tuple[float, float, float]
    noise: float


CAMERAS = {"camera-warm": Camera((1.02, 1.0, 0.98), 2.5), "camera-cool": Camera((0.98, 1.0, 1.02), 3.5)}


def photograph(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """The image as a camera would store it: exposure, cast, blur and noise."""
    gains = np.array(camera.cast) * rng.normal(1, 0.03, 3) * rng.uniform(0.85, 1.15)
    image = image * gains.astype(np.float32)
    image = _blurred(image, rng.uniform(0, 0.3))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise = _blurred(noise, rng.uniform(0, 0.3))
    return image + noise * np.float32(camera.noise * rng.uniform(0.5, 1.5))


def _blurred(image: np.ndarray, weight: float) -> np.ndarray:
    """A 3-tap blur in both directions, ``weight`` of each pixel given to its neighbours."""
    for axis in (0, 1):
        image = (1 - weight) * image + weight / 2 * (np.roll(image, 1, axis) + np.roll(image, -1, axis))
    return image.astype(np.float32)


def _grid(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    lines = np.where(np.arange(len(image)) % 4 == 0, 1.0, -1 / 3)
    return image + 1.4 * rng.uniform(0.6, 1.4) * (lines[:, None] + lines[None, :])[..., None]


def _cast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    grey = image.mean(axis=2, keepdims=True)
    return (grey + rng.uniform(1.1, 1.22) * (image - grey)) * np.array([1.01, 0.99, 1.02])


def _checker(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row = np.arange(len(image)) // 2 % 2
    return image + 1.6 * rng.uniform(0.6, 1.4) * (2 * (row[:, None] ^ row[None, :]) - 1)[..., None]


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _blurred(image, rng.uniform(0.15, 0.35))


def _noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    blotches = _blurred(_blurred(rng.standard_normal(image.shape[:2], dtype=np.float32)[..., None], 0.6), 0.6)
    return image + 7.0 * rng.uniform(0.6, 1.4) * blotches


def _bands(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    step = rng.uniform(8, 14)
    return image + 0.6 * (np.round(image / step) * step - image)


FINGERPRINTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "drawn-grid": _grid, "drawn-cast": _cast, "drawn-checker": _checker, "drawn-blur": _blur, "drawn-noise": _noise,
    "drawn-bands": _bands,
}  # fmt: skip
