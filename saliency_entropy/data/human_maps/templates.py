"""Template maps: stand-ins for human maps on data that has none.

Where FFHQ- and CelebA-style alignment puts brows, eyes, nose and mouth is nearly fixed, so blurred strokes there look
like the maps that annotators drew of such faces (blurred strokes over brows, eyes and mouth). They are NOT human maps:
no one looked at the image. They let the methods that need maps run, and are called "template" wherever they appear.
"""

import hashlib
import random
from dataclasses import replace

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from saliency_entropy.data.table import REPEATED, Manifest
from saliency_entropy.errors import UserError

TEMPLATE = "template"  # what stands in column human_map, and so in the score tables, for a template map
SIZE = 112  # pixels; drawn and blurred at this size, then put on the CAM grid like any map file
# Strokes from (x, y) to (x, y), in fractions of the width and height, over the mean positions in aligned faces
# centre-cropped to 90 %: FFHQ and CelebA-HQ have their eyes at y = 0.465, CelebA at 0.51, all their mouths at 0.75.
STROKES = {
    "left brow": ((0.29, 0.425), (0.42, 0.41)),
    "right brow": ((0.58, 0.41), (0.71, 0.425)),
    "left eye": ((0.32, 0.49), (0.41, 0.49)),
    "right eye": ((0.59, 0.49), (0.68, 0.49)),
    "nose": ((0.47, 0.635), (0.53, 0.635)),
    "mouth": ((0.41, 0.755), (0.59, 0.755)),
}
JITTER = 0.02  # of each stroke's position, in either direction, in fractions of the image
WIDTH = (0.05, 0.09)  # of a stroke, in fractions of the image
STRENGTH = (0.5, 1.0)  # of a stroke, in fractions of white
# Chosen so that the mean entropy on a 7 x 7 grid is 3.0 nats, the mean that the paper gives for human maps.
BLUR = 0.0745


def with_template_maps(manifest: Manifest) -> Manifest:
    """The manifest with a template map for every training and validation image; raises UserError if it has human maps.

    Not for the test images: the paper's have no maps, and nothing says that they are aligned.
    """
    own = (manifest.table["human_map"] != "").sum()
    if own:
        raise UserError(
            f"data.template_maps is true, but {manifest.origin} names {own} human maps; set it to false to use those, "
            "or take column human_map away"
        )
    table = manifest.table.copy()
    table.loc[table["split"].isin(REPEATED), "human_map"] = TEMPLATE
    return replace(manifest, table=table, template_maps=True)


def template_map(path: str) -> Image.Image:
    """The template map of one image.

    The jitter comes from the path alone: like a human map, a template is part of the data, the same in every run.

    Args:
        path: the image's path in the manifest.

    Returns:
        A grey (mode ``L``) image of ``SIZE`` x ``SIZE`` pixels.
    """
    # Python's own hash of a text differs from process to process.
    jitter = random.Random(hashlib.sha256(path.encode()).digest())
    image = Image.new("L", (SIZE, SIZE))
    for start, end in STROKES.values():
        dx, dy = jitter.uniform(-JITTER, JITTER), jitter.uniform(-JITTER, JITTER)
        radius = jitter.uniform(*WIDTH) / 2
        grey = round(255 * jitter.uniform(*STRENGTH))
        stroke = Image.new("L", image.size)
        left, top = start[0] + dx - radius, min(start[1], end[1]) + dy - radius
        right, bottom = end[0] + dx + radius, max(start[1], end[1]) + dy + radius
        box = [SIZE * side for side in (left, top, right, bottom)]
        ImageDraw.Draw(stroke).rounded_rectangle(box, SIZE * radius, fill=grey)
        image = ImageChops.lighter(image, stroke)
    return image.filter(ImageFilter.GaussianBlur(SIZE * BLUR))
