"""The exceptions that end a command with one line instead of a traceback, and the check of a word among a few."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["NotFiniteError", "UserError"]

Word = TypeVar("Word", bound=str)


class UserError(ValueError):
    """A mistake that the caller can mend: its message is one line that says what and what to do.

    Command lines print it and exit with code 2; Python callers may catch it as a ``ValueError``.

    >>> import ctde_kit as ck
    >>> ck.OnPolicyBuffer(minibatch_frames=0)
    Traceback (most recent call last):
        ...
    ctde_kit.errors.UserError: minibatch_frames=0, sequence_length=None: expected at least 1 of each
    """


class NotFiniteError(RuntimeError):
    """A loss or gradient became NaN or infinite; the message names the first one."""


def check_choice(owner: str, argument: str, value: str, choices: tuple[Word, ...]) -> Word:
    """``value``, which is one of ``choices``: the argument of the class or function ``owner``.

    Raises:
        UserError: for another word.

    >>> from ctde_kit.errors import check_choice
    >>> check_choice("QMixLoss", "value_loss", "l2", ("huber", "l2"))
    'l2'
    """
    for choice in choices:
        if value == choice:
            return choice
    raise UserError(f"{owner}: {argument}={value!r}: expected one of {', '.join(choices)}")
