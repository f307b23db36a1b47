"""The two scores that images are ranked by."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# Score -> its name for readers. The margin is what cross-entropy trains; the mean of both logits, which moves logit 1
# alone, nobody does.
RANKINGS = {"logit": "logit 1", "margin": "margin"}
SUFFIXES = {"logit": "", "margin": "_margin"}  # of the names of figures by a score


def ranking_scores(table: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The scores :data:`RANKINGS` of a score table, each ``(N,)`` and larger for synthetic: the logit of "synthetic",
    without a softmax (the paper's), and the margin, that logit minus the one of "real"."""
    real, synthetic = (np.asarray(table[name]) for name in ("logit_real", "logit_synthetic"))
    # In float64: rounding would make ties of different margins.
    return {"logit": synthetic, "margin": synthetic.astype(np.float64) - real}
