"""The one kind of error that a user can mend, and the wording that its messages share."""

import errno
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # where nothing can be written for now


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that says what is wrong, where, and what to do."""


def in_one_line(error: BaseException, length: int | None = 160) -> str:
    """What a library says of an error, on one line and no longer than ``length``, to stand in a sentence."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def is_no_room(error: BaseException | None) -> bool:
    """Whether an error is, or was raised from, one of a disk that is full, over quota or read-only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return True
        error = error.__cause__
    return False


def cannot_write(folder: Path, error: OSError) -> UserError:
    """What a user is told where a folder of runs cannot be written to."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room and give the same command again, or give" if full else "give"
    return UserError(f"{folder} cannot be written to ({error.strerror}); {remedy} another runs_dir=")


# More would fill the screen; the rest are counted.
SHOWN = 20


def listing(items: Iterable[str], count: int | None = None) -> str:
    """The first :data:`SHOWN` items, the others counted.

    Args:
        items: what to list.
        count: how many there are, where it is known: then no more than are shown are asked for.
    """
    items = iter(items)
    shown = list(islice(items, SHOWN))
    rest = sum(1 for _ in items) if count is None else count - len(shown)
    return "; ".join(shown) + (f"; and {rest} more" if rest else "")


def whole_number(key: str, value: object, least: int, otherwise: str = "", most: int | None = None) -> None:
    """Refuse a value that is not a whole number from ``least`` to ``most``; true and false are none.

    Args:
        key: of the configuration.
        value: what it was given.
        least: the smallest allowed.
        otherwise: what else may be given, such as ", or null".
        most: the largest allowed; no limit, if not given.
    """
    if type(value) is not int or value < least or (most is not None and value > most):
        upper = "on" if most is None else f"to {most}"
        raise UserError(f"{key} is {value!r}; give a whole number from {least} {upper}{otherwise}")
