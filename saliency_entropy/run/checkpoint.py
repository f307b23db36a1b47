"""Reading checkpoint files, which may be damaged or come from somebody else."""

import hashlib
import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from saliency_entropy.errors import UserError, in_one_line, named, refuse_pipe
from saliency_entropy.run.epochs import epochs_text, read_epochs
from saliency_entropy.run.whole_files import write_atomically

log = logging.getLogger(__name__)

RESUME = "resume.ckpt"
BEFORE = "resume-before.ckpt"  # the resume.ckpt of the epoch before
# The keys of a resume.ckpt that hold the state of the training, which a best.ckpt lacks.
TRAINING = ("callbacks", "optimizer_states", "lr_schedulers", "MixedPrecision", "ended_early")
LONGEST = 500  # letters of a value in a description
EPOCHS = "MetricsTable"  # the key of the callbacks' states in them under which the rows of metrics.csv are


def best_checkpoint(folder: Path) -> Path:
    """Where a run keeps the weights that it is scored with."""
    return folder / "checkpoints" / "best.ckpt"


def best_epoch(folder: Path) -> int:
    """The epoch with the highest validation accuracy in ``metrics.csv``, the last of equals; it is the one kept by
    :class:`~saliency_entropy.run.callbacks.BestCheckpoint`."""
    epochs = read_epochs(folder)
    return int(epochs[epochs["val/accuracy"] == epochs["val/accuracy"].max()].iloc[-1]["epoch"])


def begin_anew(checkpoint: Path) -> str:
    """The remedy where a run's checkpoint cannot be used."""
    return f"delete {checkpoint.parent}, and the run begins anew"


def checkpoint_to_resume(folder: Path, first: bool = True) -> Path | None:
    """The checkpoint from which a run goes on; None if no epoch has ended.

    ``metrics.csv`` is compared with the checkpoint, and made again from it if they differ.

    A damaged ``resume.ckpt`` is replaced by the one before it. The epoch between the two is done again, with the same
    result.

    Args:
        folder: the run's folder.
        first: whether this is the first of the run's processes, which looks for damage. The others load the file once
            they have met the first in Lightning, which is later.

    Raises:
        UserError: neither checkpoint can be used; or metrics.csv is damaged, and the checkpoint is of an earlier
            version, which kept no rows in it.
    """
    newest, before = (folder / "checkpoints" / name for name in (RESUME, BEFORE))
    if not newest.exists():
        return None
    if first:
        try:
            content = _read_resume(newest)
        except UserError as damaged:
            try:
                content = _read_resume(before)
            except UserError:
                raise damaged from None
            problem = str(damaged).removesuffix(f"; {begin_anew(newest)}")
            log.warning("%s: going on from the checkpoint before it", problem)
            before.replace(newest)
        _mend_epochs(folder, content)
    return newest


def _mend_epochs(folder: Path, content: dict[str, Any]) -> None:
    """Make ``metrics.csv`` again if it lacks rows, or has others, than when ``content``, of a resume.ckpt, was written.
    Later rows stay: they are of an epoch that is done again."""
    file, epochs = folder / "metrics.csv", content["epoch"] + 1
    rows = content.get("callbacks", {}).get(EPOCHS, {}).get("rows")
    try:
        found, expected = read_epochs(folder)[:epochs], pd.DataFrame(rows)
        if len(found) < epochs:
            raise ValueError(f"it has {len(found)} of {epochs} epochs")
        if rows and (list(found) != list(expected) or not np.allclose(found, expected, rtol=1e-9, equal_nan=True)):
            raise ValueError("it has other figures than the checkpoint")
    except (OSError, ValueError) as error:
        problem = f"{file} is damaged ({getattr(error, 'strerror', None) or in_one_line(error)})"
        if not rows or file.is_dir():
            restart = begin_anew(folder / "checkpoints" / RESUME)
            raise UserError(f"{problem} and cannot be made again; put it back as it was, or {restart}") from None
        log.warning("%s: made again from %s", problem, RESUME)
        write_atomically(file, epochs_text(rows))


def _read_resume(path: Path) -> dict[str, Any]:
    content = read_checkpoint(path, begin_anew(path))
    if "pytorch-lightning_version" not in content:
        raise UserError(f"{path} is not the checkpoint of a run; {begin_anew(path)}")
    return content


def read_best(folder: Path) -> dict[str, Any]:
    """The content of a run's ``best.ckpt``. If the file is damaged, and the last epoch or the one before was the best,
    it is made again.

    Raises:
        UserError: the file can neither be read nor made again.
    """
    best = best_checkpoint(folder)
    try:
        return read_checkpoint(best, begin_anew(best))
    except UserError as damaged:
        for name in (RESUME, BEFORE):
            try:
                content = _read_resume(best.with_name(name))
            except UserError:
                continue
            if content["epoch"] == best_epoch(folder):
                problem = str(damaged).removesuffix(f"; {begin_anew(best)}")
                log.warning("%s: made again from %s, of the same epoch", problem, name)
                content = {key: value for key, value in content.items() if key not in TRAINING}
                data = io.BytesIO()
                torch.save(content, data)
                write_atomically(best, data.getbuffer())
                return content
        raise


def file_digest(path: Path) -> str:
    """16 hex digits that identify a file's content. Raises OSError if the file cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_checkpoint(path: Path, remedy: str) -> dict[str, Any]:
    """The plain values in a checkpoint; nothing that the file names is imported or executed.

    Args:
        path: a file written by ``torch.save``.
        remedy: what the user can do if the file cannot be used, for the message.

    Raises:
        UserError: the file is missing or damaged, or holds more than tensors and plain values.
    """
    try:
        refuse_pipe(path)
        # torch.load does not compare the checksums in the file: a flipped bit would change a weight.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                damaged = file.testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} is wrong: the file is damaged")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"checkpoint {named(path)} does not exist; {remedy}") from None
    except Exception as error:  # a damaged or malicious file makes the unpickler raise almost anything
        # Only PyTorch's first sentence: the next ones tell how to load the file in spite of the danger.
        reason = " ".join(str(error).split(". ")[0].split())[:160] or type(error).__name__
        raise UserError(
            f"{path} cannot be loaded as plain weights ({reason}), and nothing in it was executed; {remedy}"
        ) from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} is not a checkpoint but a {type(checkpoint).__name__}; {remedy}")
    return checkpoint


def refuse_endless(path: Path, what: str, description: object, most: int) -> None:
    """Raises UserError for plain values that are more than the description of a network or a run has: a list of the
    same list, 32 times over, is two kilobytes in a file and billions of values to whoever walks through it."""
    left, seen = [description], 0
    while left:
        value = left.pop()
        seen += 1
        if isinstance(value, dict):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            left += value
        if seen > most or (isinstance(value, str) and len(value) > LONGEST):
            raise UserError(f"{path} describes its {what} with more values than one has; give the best.ckpt of a run")
