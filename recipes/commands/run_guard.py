"""Guards one run: takes its lock, notes signals, and turns errors of the system into one line."""

from __future__ import annotations

import contextlib
import errno
import shlex
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path

from ctde_kit.errors import CallbackError, RunStopped, UserError, one_line
from ctde_kit.recipes.commands.code_errors import kept_traceback, of_own_code
from ctde_kit.recipes.configs.distributed_options import PopulationMember
from ctde_kit.recipes.configs.own_code import code_of
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.wiring.population_directory import PopulationDirectory
from ctde_kit.training import checkpoint_paths
from ctde_kit.training.run_lock import sole_writer
from ctde_kit.training.stop_signals import StopSignals

TRACEBACK = "callback_traceback.txt"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunExistsError(UserError):
    """A new run was to be written where there is one already."""

    @classmethod
    def of(cls, path: Path) -> RunExistsError:
        """The error for the directory ``path``, with the function that goes on with what is there."""
        function = "resume_population" if PopulationDirectory(path).exists else "resume"
        return cls(
            f"path={str(path)!r}: it holds a run already; choose another directory, or go on with it, "
            f"{function}(config, path)"
        )


@contextlib.contextmanager
def guarded_run(config: RecipeConfig, path: Path) -> Iterator[StopSignals]:
    """Inside the block this process alone writes ``path``, and signals are noted in the object that it yields.

    Raises:
        RunStopped: for a signal that ended the run; the message is the command that goes on.
        UserError: where another process has the directory, for what the system refuses (a full disk above all), and
            for a callback that raised; its traceback is in a file of the directory.
    """
    stop = StopSignals()
    # Before the run, since a file of the user's own code may be gone by its end.
    trust = bool(code_of(config))
    with sole_writer(path), stop.listening():
        try:
            yield stop
        except KeyboardInterrupt as interrupt:
            number = stop.signal or getattr(interrupt, "signal", signal.SIGINT)
            raise RunStopped(f"stopped; {how_to_go_on(config, path, trust)}", number) from None
        except (UserError, BrokenPipeError):
            raise
        except CallbackError as error:
            where = kept_traceback(path / TRACEBACK, traceback.format_exception(error.__cause__))
            raise UserError(
                f"{error}; its traceback is in {where}; mend it, and {how_to_go_on(config, path, trust)}"
            ) from error
        except OSError as error:
            if of_own_code(error) is not None:
                raise
            what = error.filename or path
            mend = "free some space" if error.errno in DISK_FULL else "mend that"
            reason = error.strerror or one_line(error) or type(error).__name__
            raise UserError(f"{what}: {reason}; {mend}, and {how_to_go_on(config, path, trust)}") from error
        except Exception as error:
            if stop.signal is None:
                raise
            # A compiler, for example, that was ended by the same signal.
            raise RunStopped(f"stopped; {how_to_go_on(config, path, trust)}", stop.signal) from error
        if stop.signal is not None:
            # What comes after this run, such as the next job of a sweep, shall not begin.
            raise RunStopped(f"stopped; the run in {path} has ended", stop.signal)


def how_to_go_on(config: RecipeConfig, path: Path, trust: bool) -> str:
    """The command that goes on with the run in ``path``, for a shell in any directory.

    Args:
        config: of the run; a member goes on with its whole population.
        path: of its directory.
        trust: whether it runs code of the user's own.
    """
    if isinstance(config.distributed, PopulationMember):
        path = path.parents[1]
    if not checkpoint_paths(path / "checkpoints") and not PopulationDirectory(path).has_version:
        return "start it again: there was no checkpoint yet"
    command = [f"ctde-{config.algorithm}", f"resume={path.absolute()}", *(["trust=true"] if trust else [])]
    return f"go on with {shlex.join(command)}"
