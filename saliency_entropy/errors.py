"""The one kind of error that a user can mend."""


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that says what is wrong, where, and what to do."""


def in_one_line(error: BaseException, length: int | None = 160) -> str:
    """What a library says of an error, on one line and no longer than ``length``, to stand in a sentence."""
    return " ".join(str(error).split())[:length] or type(error).__name__
