"""What surrounds one run: its lock, signals, and errors of the system in one line."""

from __future__ import annotations

import contextlib
import errno
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

from ctde_kit.errors import RunStopped, UserError
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.training import checkpoint_paths
from ctde_kit.training.run_lock import sole_writer
from ctde_kit.training.stop_signals import StopSignals

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def guarded_run(config: RecipeConfig, path: Path) -> Iterator[StopSignals]:
    """Inside the block this process alone writes ``path``, and signals are noted in what it gives.

    Raises:
        RunStopped: for a signal that ended the run; the message is the command that goes on.
        UserError: where another process has the directory, and for what the system refuses: a full disk above all.
    """
    stop = StopSignals()
    with sole_writer(path), stop.listening():
        try:
            yield stop
        except KeyboardInterrupt as interrupt:
            number = stop.signal or getattr(interrupt, "signal", signal.SIGINT)
            raise RunStopped(f"stopped; {how_to_go_on(config, path)}", number) from interrupt
        except (UserError, BrokenPipeError):
            raise
        except OSError as error:
            what = error.filename or path
            mend = "free some space" if error.errno in FULL else "mend that"
            reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{what}: {reason}; {mend}, and {how_to_go_on(config, path)}") from error
        except Exception as error:
            if stop.signal is None:
                raise
            # A compiler, for example, that was ended by the same signal.
            raise RunStopped(f"stopped; {how_to_go_on(config, path)}", stop.signal) from error
        if stop.signal is not None:
            # What comes after this run, such as the next job of a sweep, shall not begin.
            raise RunStopped(f"stopped; the run in {path} has ended", stop.signal)


def how_to_go_on(config: RecipeConfig, path: Path) -> str:
    """The command that goes on with the run in ``path``, for a shell in any directory."""
    if not checkpoint_paths(path / "checkpoints"):
        return "start it again: there was no checkpoint yet"
    return f"go on with {shlex.join([f'ctde-{config.algorithm}', f'resume={path.absolute()}'])}"
