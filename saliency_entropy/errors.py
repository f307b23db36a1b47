"""The one kind of error that a user can mend, and the wording that its messages share."""

import errno
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or the user's share of it
NO_ROOM = (*FULL, errno.EFBIG, errno.EROFS)  # nothing can be written for now

SHOWN = 20  # items of a listing; more would fill the screen, so the others are counted


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that says what is wrong, where, and what to do."""


def in_one_line(error: BaseException, length: int | None = 160) -> str:
    """A library's error message on one line, cut to ``length`` characters, to stand in a sentence."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def named(path: object) -> str:
    """A path or name as it stands in a sentence: in quotes if blanks at an end would be overlooked."""
    name = str(path)
    return name if name == name.strip() else repr(name)


def refuse_pipe(path: object) -> None:
    """Raises UserError if a path is a pipe, a socket or a device, to be called before it is opened: that might wait, or
    be read, for ever.

    Raises:
        OSError: it cannot be looked at.
    """
    if isinstance(path, Path) and not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is not a file, but a pipe, a socket or a device; name a file")


def is_no_room(error: BaseException | None) -> bool:
    """Whether the disk was full, over quota or read-only: this is the error, or the error was raised from it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return True
        error = error.__cause__
    return False


@contextmanager
def writing(place: Path | str, remedy: str) -> Iterator[None]:
    """Turn the system's refusal to write into one sentence.

    Args:
        place: the file or folder, with the key that names it if there is one: ``output=figures``.
        remedy: how the user writes elsewhere: "give another folder with output=". Where the disk is full, making room
            is offered as well.

    Raises:
        UserError: an OSError was raised inside.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            remedy = f"make room and give the same command again, or {remedy}"
        raise UserError(f"{place} cannot be written to ({error.strerror or error}); {remedy}") from error


@contextmanager
def extra(name: str, what: str, otherwise: str = "") -> Iterator[None]:
    """Turn a module that is not found into a sentence that names the extra of this package to install.

    Args:
        name: the extra.
        what: what needs it.
        otherwise: what else the user can do: ", or leave it out".

    Raises:
        UserError: a ModuleNotFoundError was raised inside.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"{what} needs {error.name}, which is not installed: pip install 'saliency-entropy[{name}]'{otherwise}"
        ) from None


def listing(items: Iterable[str], count: int | None = None) -> str:
    """The first :data:`SHOWN` items; the others are counted.

    Args:
        items: what to list.
        count: how many items there are, if known: then only the shown ones are taken from ``items``.
    """
    items = iter(items)
    shown = list(islice(items, SHOWN))
    rest = sum(1 for _ in items) if count is None else count - len(shown)
    return "; ".join(shown) + (f"; and {rest} more" if rest else "")


def whole_number(key: str, value: object, least: int, most: int | None = None, or_null: bool = False) -> None:
    """Refuse a value that is not a whole number in a range; true and false are not numbers.

    Args:
        key: its key in the configuration.
        value: what the user gave.
        least: the smallest number allowed.
        most: the largest number allowed; None for no limit.
        or_null: whether null (None) is allowed, too.

    Raises:
        UserError: names the key, the value and the range.
    """
    if value is None and or_null:
        return
    if type(value) is not int or value < least or (most is not None and value > most):
        until = "on" if most is None else f"to {most}"
        raise UserError(f"{key} is {value!r}; give a whole number from {least} {until}{', or null' if or_null else ''}")
