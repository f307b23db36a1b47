"""What makes ``best.ckpt`` complete: the threshold and temperature that validation fixed, and where the weights come
from. The file of an earlier version lacks these plain values; they are then read from its run's folder."""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from saliency_entropy.errors import UserError, in_one_line, refuse_pipe
from saliency_entropy.run.checkpoint import best_checkpoint, file_digest, read_checkpoint, refuse_endless
from saliency_entropy.run.whole_files import write_atomically

KEY, FORMAT = "model", 1
MOST_VALUES, MOST_ROWS = 10_000, 50_000_000  # in the description of a run, and in its validation scores
RULE = "the threshold at which the run errs as often on real as on synthetic validation images (equal error rate)"
DRAWN_DATA = {"builtin", "decoy"}  # of conf/data, faces that a program draws
# Of result.json, what is true of the file wherever it lies; not, for instance, how long its training took.
NOT_OF_THE_MODEL = ("checkpoint", "wall_seconds", "finished")


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class ModelCard:
    """What a detector's file says of it. Logits are compared by their difference, "synthetic" minus "real".

    Attributes:
        threshold: the difference from which on an image is called synthetic, see :data:`RULE`; None without one.
        temperature: what the difference is divided by before the sigmoid (Guo et al., 2017); None without one.
        problem: why the threshold or the temperature is missing; empty otherwise.
        validation_images: how many images they were fixed on.
        run: of ``result.json``: method, data, generators in training, figures, versions, commit.
    """

    threshold: float | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None
    problem: str = "it comes without validation scores"
    validation_images: int = 0
    run: dict[str, Any] | None = None

    @property
    def caveat(self) -> str:
        """What must be known before any verdict; empty if it is nothing."""
        drawn = (self.run or {}).get("data") in DRAWN_DATA
        return "trained on faces drawn by a program: what it says of photographs means nothing" if drawn else ""

    def calibrated(self, difference: float) -> float | None:
        """The calibrated probability of "synthetic" in [0, 1]; None without a temperature."""
        return None if self.temperature is None else _sigmoid(difference / self.temperature)

    def decision(self, difference: float) -> str | None:
        """``real`` or ``synthetic``; None without a threshold, or if the difference is not a number."""
        known = self.threshold is not None and not math.isnan(difference)
        return ("synthetic" if difference >= self.threshold else "real") if known else None

    def probability_threshold(self, calibrated: bool) -> float | None:
        """The threshold as a calibrated probability or, without a temperature, as a softmax score; None without one."""
        return None if self.threshold is None else _sigmoid(self.threshold / ((calibrated and self.temperature) or 1))


def complete_best(folder: Path, result: Mapping[str, Any], val_scores: pd.DataFrame) -> None:
    """Write a run's :class:`ModelCard` into its ``best.ckpt``, whose weights do not change; see :func:`model_card`. The
    same run leaves the same file, however often it was interrupted. If this raises OSError, the file is as it was."""
    best, data = best_checkpoint(folder), io.BytesIO()
    content = read_checkpoint(best, "give the same command again")
    card = {"format": FORMAT} | asdict(model_card(result, val_scores))
    # By way of JSON, since pickle writes a string that stands twice in another way if both are one object.
    torch.save(content | {KEY: json.loads(json.dumps(card))}, data)
    write_atomically(best, data.getbuffer())


def model_card(result: Mapping[str, Any], val_scores: pd.DataFrame) -> ModelCard:
    """The card of a run, by the content of ``result.json`` and the score table of its validation images."""
    # Not at the top: scikit-learn takes as long to import as the rest of a detector.
    from saliency_entropy.calibration.operating_points import roc, score_problem
    from saliency_entropy.calibration.temperature import fitted_temperature

    logits = val_scores[["logit_real", "logit_synthetic"]].to_numpy(dtype=np.float64)
    differences, synthetic = logits[:, 1] - logits[:, 0], (val_scores["label"] == "synthetic").to_numpy()
    run = {key: value for key, value in result.items() if key not in NOT_OF_THE_MODEL}
    problem = score_problem(differences, synthetic)
    if problem:
        return ModelCard(None, None, f"of its validation images, {problem}", len(val_scores), run)
    threshold = roc(differences, synthetic).equal_error_threshold
    temperature = fitted_temperature(differences, synthetic)
    if math.isnan(temperature):
        return ModelCard(threshold, None, "no temperature fits its validation scores best", len(val_scores), run)
    return ModelCard(threshold, temperature, "", len(val_scores), run)


def read_model_card(path: Path, checkpoint: Mapping[str, Any]) -> ModelCard:
    """The card in the content of the checkpoint at ``path``; of an earlier version's, that of its run's folder. Raises
    UserError if the card is damaged."""
    card = checkpoint.get(KEY)
    if card is None:
        return _card_of_run(path)
    refuse_endless(path, "run", card, MOST_VALUES)
    try:
        return ModelCard(**{key: card[key] for key in card if key != "format"})
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path} describes its run in a way that cannot be used ({in_one_line(error)}); give the best.ckpt of a run"
        ) from None


def refuse_newer(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Raises UserError for the checkpoint of a version of this package whose files this one does not know."""
    card = checkpoint.get(KEY)
    if isinstance(card, dict) and card.get("format") != FORMAT:
        raise UserError(f"{path} is of a newer version of saliency-entropy than this one; install that version")


def _card_of_run(path: Path) -> ModelCard:
    folder = path.absolute().parents[1]
    result_file, scores = folder / "result.json", folder / "scores" / "val.parquet"
    if path.name != "best.ckpt" or not result_file.exists() or not scores.exists():
        return ModelCard()
    try:
        refuse_pipe(result_file)
        refuse_pipe(scores)
        result = json.loads(result_file.read_bytes())
        # Weights that were copied there have nothing to do with the scores beside them.
        if result.get("checkpoint", file_digest(path)) != file_digest(path):
            return ModelCard()
        if pq.read_metadata(scores).num_rows > MOST_ROWS:
            raise ValueError(f"{scores} has too many rows")
        return model_card(result, pd.read_parquet(scores, columns=["label", "logit_real", "logit_synthetic"]))
    except Exception as error:  # a damaged Parquet file makes pyarrow raise almost anything
        return ModelCard(problem=f"the files of its run cannot be read ({in_one_line(error)})")


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
