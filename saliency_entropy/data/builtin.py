"""The built-in data set: drawn faces, for trying the package without any data.

The faces are DRAWN, by :mod:`saliency_entropy.data.drawn`: no photograph, no person and no generative model is in
them, and no annotator ever saw them; their "human maps" are simulated strokes. The data set is a small model of the
problem: "real" faces are drawn as they should be and "photographed"; so are "synthetic" faces, but they have one to
three local defects, of kinds that all generators share, and the faint global fingerprint of their own generator. It is
good for trying commands, for tests and for the demo. Results on it say NOTHING about real detectors.
"""

import hashlib
import json
import logging
import math
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image, ImageDraw, ImageFilter

from saliency_entropy.cpu.cores import each, thread_count
from saliency_entropy.data.drawn.cameras import CAMERAS, FINGERPRINTS, photograph
from saliency_entropy.data.drawn.decoy import Decoy
from saliency_entropy.data.drawn.defects import DEFECTS, possible_defects
from saliency_entropy.data.drawn.drawing import draw_face
from saliency_entropy.data.drawn.face import Stroke, features, random_face
from saliency_entropy.data.manifest import read_manifest
from saliency_entropy.data.table import SPLITS, Manifest
from saliency_entropy.errors import UserError

log = logging.getLogger(__name__)

VERSION = 6  # of the drawing; raise it whenever an image changes, so that no folder mixes two
SEEN = ("drawn-grid", "drawn-cast")  # the generators of the training and validation images
GENERATORS = {"train": SEEN, "val": SEEN, "test": tuple(FINGERPRINTS)}
# How often each generator makes each kind of defect, relative to 1 for the kinds that are not named.
HABITS = {
    "drawn-grid": {"pupil": 2.0, "teeth": 2.0, "ripple": 2.0},
    "drawn-cast": {"hairline": 2.0, "brow": 2.0, "iris": 2.0},
    "drawn-checker": {"highlight": 2.0, "ear": 2.0, "pupil": 2.0},
    "drawn-blur": {"earring": 3.0, "glasses": 3.0, "hairline": 2.0},
    "drawn-noise": {"iris": 2.0, "teeth": 2.0, "brow": 2.0},
    "drawn-bands": {"ripple": 2.0, "highlight": 2.0, "hairline": 2.0},
}
COUNTS = (0.2, 0.4, 0.4)  # probability that a synthetic image has one, two, three defects
STRENGTH = (0.5, 1.0)  # of a defect
# The same for all images, so that the files do not tell the classes apart.
JPEG = {"format": "JPEG", "quality": 92, "subsampling": 0}

ANNOTATORS = 3
FEATURES_LOOKED_AT = (1, 3)  # of six, by one annotator of an image without a visible defect
ANOTHER_LOOK = 0.3  # probability that an annotator who found a defect strokes a feature, too
WITHOUT_MAP = 0.05  # share of the training images
JITTER = 0.02  # standard deviation of a stroke's position, in fractions of the image
WIDTH = (0.05, 0.09)  # of a stroke, in fractions of the image
# Of the averaged strokes, in fractions of the image. Chosen so that the mean entropy on a 7 x 7 grid is 3.0 nats, the
# mean that the paper gives for human maps.
BLUR = 0.09


@dataclass(frozen=True)
class Slot:
    """The position of an image, and what follows from it.

    Attributes:
        split, index: the position.
        generator: "" for a real image.
        source: its camera; "" for a synthetic image.
    """

    split: str
    index: int
    generator: str
    source: str


def builtin_faces(folder: str | Path, seed: int, image_size: int, train: int, val: int, test: int) -> Manifest:
    """The built-in data set, drawn into a sub-folder of ``folder`` unless it is there already.

    The files are the same, byte for byte, for the same arguments. An image is a function of the seed, its split and
    its position in the split: a larger split begins with the images of a smaller one. Several processes may call this
    at once: one draws, and the others wait for it.

    Args:
        folder: for this and other drawings; made, if it does not exist.
        seed: of the drawing. All runs of a study share their data, so it is not the seed of a run.
        image_size: in pixels, 32 at least.
        train: the number of training images; half of them are real, the others spread evenly over the generators.
        val: the number of validation images, alike.
        test: the number of test images, alike.

    Returns:
        The manifest, with the further columns ``defects`` (names, separated by ";"; "" for a real image) and ``pose``
        (``frontal`` or ``turned``).

    Raises:
        UserError: an argument is out of range, or ``folder`` cannot be written to.
    """
    return draw_faces(folder, seed, image_size, {"train": train, "val": val, "test": test})


def draw_faces(
    folder: str | Path, seed: int, image_size: int, counts: dict[str, int], decoy: Decoy | None = None
) -> Manifest:
    """:func:`builtin_faces` of so many images a split, or :func:`~saliency_entropy.data.decoy.decoy_faces`."""
    if image_size < 32:
        raise UserError(f"data.source.image_size is {image_size}; a face needs 32 pixels at least")
    if seed < 0:
        raise UserError(f"data.source.seed is {seed}; it must be 0 or greater")
    for split, count in counts.items():
        least = 2 * len(GENERATORS[split])
        if count < least or count % 2:
            raise UserError(
                f"data.source.{split} is {count}; half of the images are real and the others are by "
                f"{len(GENERATORS[split])} generators, so it must be even and {least} or greater"
            )
    arguments = {"version": VERSION, "seed": seed, "image_size": image_size, **counts}
    if decoy is not None:
        arguments["decoy"] = asdict(decoy)
    drawing = Path(folder) / hashlib.sha256(json.dumps(arguments).encode()).hexdigest()[:12]
    if not drawing.is_dir():
        try:
            _draw_once(drawing, seed, image_size, counts, decoy)
        except OSError as error:
            raise UserError(
                f"data.source.folder={folder}: the built-in faces cannot be drawn there ({error.strerror or error}); "
                "set it to a folder with room that you may write to"
            ) from None
    return read_manifest(drawing / "manifest.csv")


def _draw_once(folder: Path, seed: int, image_size: int, counts: dict[str, int], decoy: Decoy | None) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock"):
        if folder.is_dir():  # another process has drawn it meanwhile
            return
        # Only the process that holds the lock draws: what is partial was left by processes that were killed.
        for left in folder.parent.glob("*.partial"):
            shutil.rmtree(left)
        partial_folder = folder.with_suffix(".partial")
        name = "builtin" if decoy is None else "decoy"
        log.info("data %s: drawing %d images into %s", name, sum(counts.values()), folder)
        for subfolder in (*SPLITS, "maps/train", "maps/val"):
            (partial_folder / subfolder).mkdir(parents=True)
        slots = [slot for split in SPLITS for slot in _slots(seed, split, counts[split])]
        draw = partial(_draw, partial_folder, seed, image_size, decoy)
        table = pd.DataFrame(each(draw, slots, thread_count()))
        table.to_csv(partial_folder / "manifest.csv", index=False)
        partial_folder.rename(folder)


def _slots(seed: int, split: str, count: int) -> list[Slot]:
    """Pairs of a real and a synthetic image, in either order; among as many pairs as there are generators, each has
    one."""
    generators = GENERATORS[split]
    slots = []
    for pair in range(count // 2):
        turn, position = divmod(pair, len(generators))
        generator = generators[_random(seed, split, "turn", turn).permutation(len(generators))[position]]
        source = list(CAMERAS)[pair % len(CAMERAS)]
        both = [(generator, ""), ("", source)]
        if _random(seed, split, "order", pair).random() < 0.5:
            both.reverse()
        slots += [Slot(split, 2 * pair + second, *kind) for second, kind in enumerate(both)]
    return slots


def _random(seed: int, split: str, purpose: str, index: int) -> np.random.Generator:
    # Independent streams: what the strokes draw must not depend on how many numbers the drawing took.
    purposes = ("turn", "order", "image", "strokes", "mark")
    return np.random.default_rng([seed, SPLITS.index(split), purposes.index(purpose), index])


def _draw(folder: Path, seed: int, image_size: int, decoy: Decoy | None, slot: Slot) -> dict[str, str]:
    """Draw one image and its map; returns its row in the manifest."""
    rng = _random(seed, slot.split, "image", slot.index)
    face = random_face(rng)
    defects: dict[str, tuple[float, Stroke]] = {}
    if slot.generator:
        possible = possible_defects(face)
        if decoy is None:
            weights = np.array([HABITS[slot.generator].get(name, 1.0) for name in possible])
            count = rng.choice((1, 2, 3), p=COUNTS)
            chosen = rng.choice(possible, count, replace=False, p=weights / weights.sum()).tolist()
        else:
            chosen = [name for name in possible if name in decoy.defects]
        for name in chosen:
            strength = rng.uniform(*STRENGTH) if decoy is None else 1.0
            defects[name] = (strength, DEFECTS[name](face, strength, rng))
    image = draw_face(face, image_size, rng)
    if slot.generator:
        image = FINGERPRINTS[slot.generator](image, rng)
    # A generator has learned from photographs: its images have their noise, blur and casts, too.
    camera = CAMERAS[slot.source or list(CAMERAS)[rng.integers(len(CAMERAS))]]
    photo = photograph(image, camera, rng).round().clip(0, 255)
    marked = decoy is not None and _has_mark(seed, decoy, slot)
    if marked:
        decoy.mark(photo)
    path, human_map = f"{slot.split}/{slot.index:06d}.jpg", ""
    Image.fromarray(photo.astype(np.uint8)).save(folder / path, **JPEG)

    strokes = _random(seed, slot.split, "strokes", slot.index)
    has_map = slot.split == "val" or (slot.split == "train" and strokes.random() >= WITHOUT_MAP)
    if has_map:
        human_map = f"maps/{slot.split}/{slot.index:06d}.png"
        page = annotated(features(face), defects, image_size, strokes)
        if decoy is not None:
            page.paste(0, decoy.box(image_size))
        page.save(folder / human_map)
    return {
        "path": path,
        "label": "synthetic" if slot.generator else "real",
        "split": slot.split,
        "generator": slot.generator,
        "source": slot.source,
        "human_map": human_map,
        "defects": ";".join(sorted(defects)),
        "pose": "turned" if face.turned else "frontal",
        **({} if decoy is None else {"mark": "yes" if marked else "no"}),
    }


def _has_mark(seed: int, decoy: Decoy, slot: Slot) -> bool:
    """Of the test images, the two of a pair draw the same number, so that exactly as many real as synthetic ones have
    the mark."""
    shares = decoy.on_real, decoy.on_synthetic
    if slot.split == "test":
        return _random(seed, slot.split, "mark", slot.index // 2).random() < sum(shares) / 2
    return _random(seed, slot.split, "mark", slot.index).random() < shares[bool(slot.generator)]


def annotated(
    looked_at: dict[str, Stroke], defects: dict[str, tuple[float, Stroke]], size: int, rng: np.random.Generator
) -> Image.Image:
    """The map that simulated annotators make of an image: the blurred mean of their strokes.

    An annotator strokes the defects that he sees, the strong ones more often, and sometimes a feature; an annotator who
    sees no defect strokes the features that he looked at.

    Args:
        looked_at: the strokes over the face's features.
        defects: (strength, stroke) of each defect; none for a real image.
        size: S, in pixels.
        rng: of the annotators.

    Returns:
        A grey (mode ``L``) image of S x S pixels, its greatest value 255.
    """
    total = np.zeros((size, size), dtype=np.float32)
    names = list(looked_at)
    for _ in range(ANNOTATORS):
        strokes = [stroke for strength, stroke in defects.values() if rng.random() < 0.3 + 0.7 * strength]
        if not strokes:
            count = rng.integers(FEATURES_LOOKED_AT[0], FEATURES_LOOKED_AT[1] + 1)
        else:
            count = int(rng.random() < ANOTHER_LOOK)
        strokes += [looked_at[name] for name in rng.choice(names, count, replace=False)]
        page = Image.new("L", (size, size))
        pen = ImageDraw.Draw(page)
        for start, end in strokes:
            ends = np.clip(np.array([start, end]) + rng.normal(0, JITTER, 2), 0, 1) * size
            radius = size * rng.uniform(*WIDTH) / 2
            for x, y in np.linspace(*ends, 2 + math.ceil(np.hypot(*(ends[1] - ends[0])))):
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        total += np.asarray(page, dtype=np.float32)
    mean = Image.fromarray((total / ANNOTATORS).astype(np.uint8))
    blurred = np.asarray(mean.filter(ImageFilter.GaussianBlur(size * BLUR)), dtype=np.float32)
    return Image.fromarray((blurred * (255 / blurred.max())).round().astype(np.uint8))
