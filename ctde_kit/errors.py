"""Exceptions that end a command with one line instead of a traceback, and a check that a word is one of a few."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["CallbackError", "LearnerLostError", "NotFiniteError", "RunStopped", "UserError", "WorkerError"]

Word = TypeVar("Word", bound=str)


class UserError(ValueError):
    """A mistake that the caller can correct: its message is one line that says what is wrong and what to do.

    Command lines print it and exit with code 2; Python callers may catch it as a ``ValueError``.

    >>> import ctde_kit as ck
    >>> ck.OnPolicyBuffer(minibatch_frames=0)
    Traceback (most recent call last):
        ...
    ctde_kit.errors.UserError: minibatch_frames=0, sequence_length=None: expected at least 1 of each
    """


class WorkerError(RuntimeError):
    """A worker process raised, died or hangs; the message is one line, the worker's traceback is a note."""


class LearnerLostError(WorkerError):
    """One of several learners that share gradients is gone; a run can go on from its last checkpoint."""


class CallbackError(RuntimeError):
    """A callback of a run raised; the message is one line that names it, the cause has its traceback."""


class NotFiniteError(RuntimeError):
    """A loss or gradient became NaN or infinite; the message names the first one."""


class RunStopped(KeyboardInterrupt):
    """A signal ended a run; the message says how to resume it.

    Args:
        message: one line.
        signal: its number; a command's exit code is 128 more.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def one_line(said: object, most: int | None = None) -> str:
    """What an error or another object says, with its line breaks and runs of spaces as single spaces.

    Args:
        said: the object.
        most: characters of it; all by default.

    >>> from ctde_kit.errors import one_line
    >>> one_line(ValueError("two\\n  lines"), most=7)
    'two lin'
    """
    return " ".join(str(said).split())[:most]


def check_choice(owner: str, argument: str, value: str, choices: tuple[Word, ...]) -> Word:
    """Return ``value`` if it is one of ``choices``.

    Args:
        owner: the class or function whose argument it is.
        argument: the argument's name.
        value: what the caller gave.
        choices: what is allowed.

    Raises:
        UserError: if it is not.

    >>> from ctde_kit.errors import check_choice
    >>> check_choice("QMixLoss", "value_loss", "l2", ("huber", "l2"))
    'l2'
    """
    for choice in choices:
        if value == choice:
            return choice
    raise UserError(f"{owner}: {argument}={value!r}: expected one of {', '.join(choices)}")
