"""The one kind of error that a user can mend."""

import errno
from pathlib import Path


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that says what is wrong, where, and what to do."""


def in_one_line(error: BaseException, length: int | None = 160) -> str:
    """What a library says of an error, on one line and no longer than ``length``, to stand in a sentence."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def cannot_write(folder: Path, error: OSError) -> UserError:
    """What a user is told where a folder of runs cannot be written to."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room and give the same command again, or give" if full else "give"
    return UserError(f"{folder} cannot be written to ({error.strerror}); {remedy} another runs_dir=")
