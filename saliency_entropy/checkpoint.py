"""Reading checkpoint files that may be damaged, or from somebody else."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import torch

from saliency_entropy.errors import UserError


def best_checkpoint(folder: Path) -> Path:
    """Where a run keeps the weights that it is scored with."""
    return folder / "checkpoints" / "best.ckpt"


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
