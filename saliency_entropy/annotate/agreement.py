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

COLUMNS = ("first", "second", "images", "same_answer", "kappa", "maps", "iou")


def agreement(drawings: Mapping[str, Mapping[str, Drawing]], maps: Mapping[str, Mapping[str, Path]]) -> pd.DataFrame:
    """A row for each pair of annotators.

    Args:
        drawings: annotator -> image -> drawing.
        maps: image -> annotator -> file of the map.

    Returns:
        ``first`` and ``second``, the annotators; ``images``, the number that both have done; ``same_answer``, the share
        of these with the same answer; ``kappa``, Cohen's, NaN where only one answer was given; ``maps``, the number of
        images that both painted on; ``iou``, the mean intersection over union of their maps.
    """
    rows = []
    for pair in combinations(sorted(drawings), 2):
        own, other = (drawings[annotator] for annotator in pair)
        both = [image for image in own if image in other and own[image].status == other[image].status == "done"]
        answers = np.array([[own[image].answer, other[image].answer] for image in both]).reshape(-1, 2)
        same = (answers[:, 0] == answers[:, 1]).mean() if both else np.nan
        kappa = cohen_kappa_score(*answers.T) if len({*answers.flat}) == 2 else np.nan
        files = [[maps[image][name] for name in pair] for image in both if {*pair} <= {*maps.get(image, ())}]
        ious = [_iou(*two, *(file.stat().st_mtime_ns for file in two)) for two in files]
        rows.append((*pair, len(both), same, kappa, len(ious), np.mean(ious) if ious else np.nan))
    return pd.DataFrame(rows, columns=list(COLUMNS))


@lru_cache(maxsize=1 << 20)
def _iou(first: Path, second: Path, *changed: int) -> float:
    """Intersection over union of two maps of one size; kept until a file is ``changed``."""
    one, two = (np.asarray(Image.open(file, formats=["PNG"])) >= 128 for file in (first, second))
    return float((one & two).sum() / max(1, (one | two).sum()))
