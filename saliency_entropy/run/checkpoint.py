"""Reading checkpoint files that may be damaged, or from somebody else."""

import hashlib
import logging
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from saliency_entropy.errors import UserError

log = logging.getLogger(__name__)

RESUME = "resume.ckpt"
BEFORE = "resume-before.ckpt"  # the one that resume.ckpt took the place of


def best_checkpoint(folder: Path) -> Path:
    """Where a run keeps the weights that it is scored with."""
    return folder / "checkpoints" / "best.ckpt"


def best_epoch(folder: Path) -> int:
    """Of those in ``metrics.csv``, the one of the highest validation accuracy; the last of equals, as
    :class:`~saliency_entropy.run.callbacks.BestCheckpoint` has it."""
    epochs = pd.read_csv(folder / "metrics.csv")
    return int(epochs[epochs["val/accuracy"] == epochs["val/accuracy"].max()].iloc[-1]["epoch"])


def checkpoint_to_resume(folder: Path, first: bool = True) -> Path | None:
    """Where a run goes on from; None if it has not ended an epoch.

    A ``resume.ckpt`` that is damaged is replaced by the one before it. The epoch between the two is done again, to
    the same result.

    Args:
        folder: of the run.
        first: whether this is the first of the processes that train it, which looks for damage. The others load the
            file when they have met the first in Lightning, which is after that.

    Raises:
        UserError: neither can be used.
    """
    newest, before = (folder / "checkpoints" / name for name in (RESUME, BEFORE))
    remedy = f"delete {newest.parent}, and the run begins anew"
    if not newest.exists():
        return None
    if not first:
        return newest
    try:
        _read_resume(newest, remedy)
        return newest
    except UserError as damaged:
        try:
            _read_resume(before, remedy)
        except UserError:
            raise damaged from None
        log.warning("%s: going on from the checkpoint before it", str(damaged).removesuffix(f"; {remedy}"))
    before.replace(newest)
    return newest


def _read_resume(path: Path, remedy: str) -> dict[str, Any]:
    content = read_checkpoint(path, remedy)
    if "pytorch-lightning_version" not in content:
        raise UserError(f"{path} is not the checkpoint of a run; {remedy}")
    return content


def read_best(folder: Path) -> dict[str, Any]:
    """What is in a run's ``best.ckpt``. Where it is damaged, and the last epoch or the one before was the best, it is
    made again.

    Raises:
        UserError: it cannot be read and cannot be made again.
    """
    best = best_checkpoint(folder)
    remedy = f"delete {best.parent}, and the run begins anew"
    try:
        return read_checkpoint(best, remedy)
    except UserError as damaged:
        for name in (RESUME, BEFORE):
            try:
                content = _read_resume(best.with_name(name), remedy)
            except UserError:
                continue
            if content["epoch"] == best_epoch(folder):
                log.warning("%s: made again from %s, of the same epoch", str(damaged).removesuffix(f"; {remedy}"), name)
                # Here, since a detector, which reads checkpoints too, does without Hydra's configurations.
                from saliency_entropy.run.folder import write_atomically

                write_atomically(best, best.with_name(name).read_bytes())
                return content
        raise


def file_digest(path: Path) -> str:
    """16 hex digits of what is in a file. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_checkpoint(path: Path, remedy: str) -> dict[str, Any]:
    """The plain values in a checkpoint; nothing that the file names is imported or executed.

    Args:
        path: what ``torch.save`` wrote.
        remedy: what the user can do if it cannot be used, for the message.

    Raises:
        UserError: the file is missing or damaged, or holds more than tensors and plain values.
    """
    try:
        # torch.load does not compare the checksums in the file: a flipped bit would be another weight.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                damaged = file.testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} is wrong: the file is damaged")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist; {remedy}") from None
    except Exception as error:  # a damaged or malicious file makes the unpickler raise almost anything
        # The first sentence: PyTorch's goes on with how to load it in spite of the danger.
        reason = " ".join(str(error).split(". ")[0].split())[:160] or type(error).__name__
        raise UserError(
            f"{path} cannot be loaded as plain weights ({reason}), and nothing in it was executed; {remedy}"
        ) from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} is no checkpoint but a {type(checkpoint).__name__}; {remedy}")
    return checkpoint
