"""Callbacks of a run, which are called after each iteration: several as one, with their state in checkpoints."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from ctde_kit.capability import Capability
from ctde_kit.errors import CallbackError, UserError, one_line
from ctde_kit.protocols import StateDict, Stateful
from ctde_kit.training.parts import Iteration, Parts

OnIteration = Callable[[Parts, Iteration, dict[str, float]], bool | None]


@runtime_checkable
class ActsAtStart(Capability, Protocol):
    """A callback that is also called before the first iteration, of a new run and of a resumed one."""

    def on_start(self, parts: Parts, frames: int, /) -> None:
        """Called before the first iteration, with the number of ``frames`` collected so far."""
        ...


def start(callback: object, parts: Parts, frames: int) -> None:
    """Call a callback's ``on_start``, if it has one."""
    if isinstance(callback, ActsAtStart):
        callback.on_start(parts, frames)


def asks_to_end(answer: object) -> bool:
    """Whether what a callback returned ends the run.

    Raises:
        UserError: for anything but ``True``, ``False`` and ``None``, such as a tensor that a comparison gave.
    """
    if answer is None or isinstance(answer, bool):
        return answer is True
    text = " ".join(repr(answer).split())[:80]
    raise UserError(f"expected True, which ends the run, False or None to be returned, found {text}; return bool(...)")


class Callbacks:
    """Several callbacks as one, for ``run(parts, settings, on_iteration=Callbacks(...))``; errors name who raised them.

    Each is called after every iteration, in their order, with the parts, the iteration and its row of ``metrics.csv``.
    The run ends where one of them returns ``True``. ``on_start(parts, frames)`` of those that have it is called before
    the first iteration. A checkpoint saves the state of those that have ``state_dict`` and ``load_state_dict``: tensors
    and plain Python values.

    Args:
        callbacks: by name.

    Raises:
        CallbackError: in a call, where one of them raises, or has a state that a checkpoint cannot hold.

    >>> import tempfile
    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig
    >>> from ctde_kit.training import Callbacks, Run, RunDirectory, run
    >>> parts = QMIXConfig(task=MatrixTask(n_envs=2), frames_per_batch=12, total_frames=240).build()
    >>> settings = Run(
    ...     "qmix", "matrix/climbing", seed=0, total_frames=240, directory=RunDirectory(tempfile.mkdtemp()),
    ...     groups=["agents"], evaluate=lambda frames: {"return_mean": 11.0}, evaluate_every_frames=24,
    ...     checkpoint_every_frames=24, progress="none",
    ... )
    >>> callbacks = Callbacks({"soon": lambda parts, iteration, row: iteration.frames >= 36})
    >>> run(parts, settings, on_iteration=callbacks)["frames"], callbacks.ended_by
    (36, 'soon')
    """

    def __init__(self, callbacks: Mapping[str, OnIteration]):
        self.callbacks = dict(callbacks)
        self.ended_by: str | None = None
        self._plain: dict[str, StateDict] = {}

    def on_start(self, parts: Parts, frames: int) -> None:
        """Call ``on_start`` of each callback that has it."""
        for name, callback in self.callbacks.items():
            with _naming(name, frames):
                start(callback, parts, frames)

    def __call__(self, parts: Parts, iteration: Iteration, row: dict[str, float]) -> bool:
        for name, callback in self.callbacks.items():
            with _naming(name, iteration.frames):
                if asks_to_end(callback(parts, iteration, dict(row))):
                    self.ended_by = self.ended_by or name
                if isinstance(callback, Stateful):
                    state = callback.state_dict()
                    _check_plain(state, "state_dict()")
                    self._plain[name] = copy.deepcopy(state)
        return self.ended_by is not None

    def state_dict(self) -> StateDict:
        """The state of each callback that has one, by name; after an error, the last state that could be saved."""
        return {name: self._state(name, callback) for name, callback in self._stateful().items()}

    def _state(self, name: str, callback: Stateful) -> StateDict:
        try:
            state = callback.state_dict()
            _check_plain(state, "state_dict()")
        except Exception:
            if name not in self._plain:
                raise
            return self._plain[name]
        return state

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore a state that ``state_dict`` returned.

        Raises:
            UserError: where it is not of these callbacks.
        """
        stateful = self._stateful()
        if stateful.keys() != state_dict.keys():
            raise UserError(
                f"the checkpoint has the state of the callbacks {_listed(state_dict)}, this run has a state of "
                f"{_listed(stateful)}; give the callbacks that the run was started with"
            )
        for name, callback in stateful.items():
            callback.load_state_dict(state_dict[name])

    def _stateful(self) -> dict[str, Stateful]:
        return {name: callback for name, callback in self.callbacks.items() if isinstance(callback, Stateful)}


@contextlib.contextmanager
def _naming(name: str, frames: int) -> Iterator[None]:
    """Inside the block whatever is raised becomes an error that names the callback."""
    try:
        yield
    # Also `sys.exit()`, which would end the run as if all were well.
    except (Exception, SystemExit) as error:
        reason = one_line(error, 200)
        raise CallbackError(f"callback {name} at {frames} frames: {type(error).__name__}: {reason}") from error


def _check_plain(value: object, place: str) -> None:
    """Raise ``UserError`` for values that a checkpoint cannot hold, since it is data and never code."""
    if isinstance(value, dict):
        for key, part in value.items():
            _check_plain(key, f"a key of {place}")
            _check_plain(part, f"{place}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, part in enumerate(value):  # pyright: ignore[reportArgumentType]  # one of the two
            _check_plain(part, f"{place}[{index}]")
    elif value is not None and type(value) not in (bool, int, float, str) and not isinstance(value, Tensor):
        raise UserError(f"{place}: expected tensors and plain values, found {type(value).__name__}; convert it")


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"
