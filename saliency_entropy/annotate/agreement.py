"""How far two annotators agree, on the answers and on the maps."""

from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import cohen_kappa_score

from saliency_entropy.annotate.drawing import Drawing
from saliency_entropy.data.table import LABELS

COLUMNS = ("first", "second", "images", "same_answer", "kappa", "maps", "iou")


def agreement(drawings: Mapping[str, Mapping[str, Drawing]], maps: Mapping[str, Mapping[str, Path]]) -> pd.DataFrame:
    """A row for each pair of annotators.

    Args:
        drawings: annotator -> image -> drawing.
        maps: image -> annotator -> file of the map.

    Returns:
        ``first`` and ``second``, the annotators; ``images`` that both have done, ``same_answer``, the share of these
        with the same answer, and ``kappa``, Cohen's (NaN where chance alone would agree, as with one answer only);
        ``maps``, the number of images on which both painted, and ``iou``, the mean of intersection over union of
        their maps there.
    """
    rows = []
    for first, second in combinations(sorted(drawings), 2):
        own, other = drawings[first], drawings[second]
        both = [image for image in own if image in other and own[image].status == other[image].status == "done"]
        answers = [[of[image].answer for image in both] for of in (own, other)]
        same = float(np.mean([a == b for a, b in zip(*answers, strict=True)])) if both else np.nan
        constant = len({*answers[0], *answers[1]}) < 2
        kappa = np.nan if constant else cohen_kappa_score(*answers, labels=list(LABELS))
        pairs = [
            (maps[image][first], maps[image][second]) for image in both if {first, second} <= {*maps.get(image, ())}
        ]
        ious = [_iou(*pair, *(file.stat().st_mtime_ns for file in pair)) for pair in pairs]
        iou = float(np.mean(ious)) if ious else np.nan
        rows.append((first, second, len(both), same, kappa, len(ious), iou))
    return pd.DataFrame(rows, columns=list(COLUMNS))


@lru_cache(maxsize=1 << 20)
def _iou(first: Path, second: Path, *changed: int) -> float:
    """Intersection over union of two maps of one size; computed anew when a file was ``changed``."""
    masks = []
    for file in (first, second):
        with Image.open(file, formats=["PNG"]) as image:
            masks.append(np.asarray(image) >= 128)
    return float((masks[0] & masks[1]).sum() / max(1, (masks[0] | masks[1]).sum()))
