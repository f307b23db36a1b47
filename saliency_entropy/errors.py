"""The one kind of error that a user can mend."""


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that says what is wrong, where, and what to do."""
