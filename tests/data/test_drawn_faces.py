"""Drawn faces: defects change one place only, and that is where they say; fingerprints are faint and everywhere."""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import pytest

from saliency_entropy.data.drawn.cameras import CAMERAS, FINGERPRINTS, photograph
from saliency_entropy.data.drawn.defects import DEFECTS, possible_defects
from saliency_entropy.data.drawn.drawing import draw_face
from saliency_entropy.data.drawn.face import Face, Stroke, features, random_face

SIZE = 128
STRENGTHS = np.linspace(0.5, 1.0, 8)


def faces(count: int) -> Iterator[Face]:
    for seed in range(count):
        yield random_face(np.random.default_rng(seed))


def drawn(face: Face, seed: int = 0) -> np.ndarray:
    return draw_face(face, SIZE, np.random.default_rng(seed)).clip(0, 255)


def distance(stroke: Stroke) -> np.ndarray:
    """(S, S), of each pixel from a stroke, in fractions of the image."""
    points = np.linspace(stroke.start, stroke.end, 20)
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    return np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1]).min(axis=2)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_seen_where_it_says_and_nowhere_else(name: str) -> None:
    suited = [face for face in faces(200) if name in possible_defects(face)][: len(STRENGTHS)]
    assert len(suited) == len(STRENGTHS)
    visible = 0
    for seed, (face, strength) in enumerate(zip(suited, STRENGTHS, strict=True)):
        changed = deepcopy(face)
        stroke = DEFECTS[name](changed, strength, np.random.default_rng(seed))
        difference = np.abs(drawn(changed) - drawn(face)).mean(axis=2)
        # Shading is smooth and follows the face's parts, so a defect moves it by a grey level or two around.
        assert difference[distance(stroke) > 0.17].max(initial=0) < 3
        visible += (difference > 12).sum() >= 6  # pixels
    assert visible >= len(STRENGTHS) - 2  # dark eyes hide some


def test_stronger_defects_change_more() -> None:
    sums = {0.2: 0.0, 1.0: 0.0}
    for seed, face in enumerate(faces(40)):
        for strength in sums:
            changed = deepcopy(face)
            name = possible_defects(face)[seed % 3]
            DEFECTS[name](changed, strength, np.random.default_rng(seed))
            sums[strength] += np.abs(drawn(changed) - drawn(face)).sum()
    assert sums[1.0] > 1.5 * sums[0.2]


def test_defects_need_their_place() -> None:
    found = set()
    for face in faces(100):
        possible = set(possible_defects(face))
        found |= possible
        assert {"pupil", "iris", "highlight", "brow", "ripple"} <= possible
        assert ("teeth" in possible) == (face.mouth.opening > 0)
        assert ("hairline" in possible) == (face.hair is not None)
        assert ("glasses" in possible) == (face.glasses is not None)
        if face.turned or (face.hair is not None and not face.hair.short):
            assert not {"ear", "earring"} & possible
    assert found == set(DEFECTS)


def test_features_are_where_faces_have_them() -> None:
    for face in faces(50):
        middle = {name: np.mean(stroke, axis=0) for name, stroke in features(face).items()}
        assert middle["left eye"][0] + 0.1 < middle["right eye"][0]
        for side in ("left", "right"):
            assert middle[f"{side} brow"][1] < middle[f"{side} eye"][1] < middle["nose"][1] < middle["mouth"][1]
        assert all((point > 0.1).all() and (point < 0.9).all() for point in middle.values())


def test_eyes_are_drawn_at_their_place() -> None:
    """The white of the eyes and the dark of the pupils make the strongest contrast of a bare face there."""
    for face in faces(10):
        face.glasses, face.hair, face.freckles = None, None, 0
        image = drawn(face).mean(axis=2)
        for side in ("left", "right"):
            near = image[distance(features(face)[f"{side} eye"]) < 0.03]
            cheek = image[distance(features(face)["nose"]) < 0.01]
            assert near.std() > 2 * cheek.std()


def test_faces_vary_and_are_repeatable() -> None:
    images = [drawn(face) for face in faces(10)]
    again = [drawn(face) for face in faces(10)]
    for number, image in enumerate(images):
        assert image.shape == (SIZE, SIZE, 3)
        assert image.dtype == np.float32
        assert np.array_equal(image, again[number])
        assert all(np.abs(image - other).mean() > 10 for other in images[number + 1 :])


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fingerprints_are_faint_and_everywhere(name: str) -> None:
    for seed, face in enumerate(faces(5)):
        image = drawn(face)
        # Noise, as in a photograph: a blur of a flat wall changes nothing.
        image = photograph(image, CAMERAS["camera-warm"], np.random.default_rng(seed))
        change = np.abs(FINGERPRINTS[name](image, np.random.default_rng(seed)) - image)
        quarters = [half for rows in np.split(change, 2) for half in np.split(rows, 2, axis=1)]
        assert all(0.1 < quarter.mean() < 8 for quarter in quarters)


@pytest.mark.parametrize(("name", "period"), [("drawn-grid", 4), ("drawn-checker", 4)])
def test_periodic_fingerprints(name: str, period: int) -> None:
    flat = np.full((SIZE, SIZE, 3), 100, dtype=np.float32)
    change = FINGERPRINTS[name](flat, np.random.default_rng(0)) - flat
    assert np.array_equal(change[period:], change[:-period])
    assert not np.array_equal(change[period // 2 :], change[: -period // 2])
    assert abs(change.mean()) < 1e-4


def test_cameras_differ_in_their_cast() -> None:
    grey = np.full((SIZE, SIZE, 3), 120, dtype=np.float32)
    mean = {
        name: np.mean([photograph(grey, camera, np.random.default_rng(seed)) for seed in range(60)], axis=(0, 1, 2))
        for name, camera in CAMERAS.items()
    }
    assert mean["camera-warm"][0] > mean["camera-cool"][0]
    assert mean["camera-warm"][2] < mean["camera-cool"][2]
