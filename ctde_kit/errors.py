"""The one exception that means: something outside the program must be changed by its user."""


class UserError(ValueError):
    """A mistake that the caller can mend: its message is one line that says what and what to do.

    Command lines print it and exit with code 2; Python callers may catch it as a ``ValueError``.
    """
