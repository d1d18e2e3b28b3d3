"""What a run compiles."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from torchrl.envs import EnvBase

from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.errors import UserError
from ctde_kit.graph.cpp_compiler import prepare_compiler
from ctde_kit.graph.toolchain import missing_toolchain, report_fallback
from ctde_kit.protocols import ExternalEnv, PureEnv

# Calls of a graph from which compiling it pays, whatever its size: what compiling costs and what it saves per call both
# grow with the graph.
WORTH_COMPILING = 2_000


@dataclass(frozen=True)
class Compiling:
    """Whether the rollouts and the gradient steps of a run are compiled."""

    rollouts: bool
    updates: bool


def resolve_compile(compile: str, env: EnvBase, *, total_frames: int, updates_per_frame: float) -> Compiling:
    """What to compile: ``auto`` goes by the number of calls, so that the same run always decides alike.

    ``auto`` compiles the rollouts where the run has at least ``WORTH_COMPILING`` env steps (of all ``n_envs`` at once),
    and the gradient steps where it has at least that many of them. An env that can never be a graph is left out
    silently; anything else that cannot be compiled runs eagerly and says so in one line. Compiled code is kept in
    ``~/.cache/ctde_kit``, or where ``TORCHINDUCTOR_CACHE_DIR`` points to; the directory is private. Where the run
    compiles for a CPU, this begins to prepare the C++ compiler in the background.

    Raises:
        UserError: where another user could write the code that this one is to run.
    """
    compiling = Compiling(compile == "on", compile == "on")
    if compile == "auto":
        compiling = Compiling(
            isinstance(env, PureEnv | ExternalEnv) and total_frames / env.batch_size[0] >= WORTH_COMPILING,
            total_frames * updates_per_frame >= WORTH_COMPILING,
        )
    if not (compiling.rollouts or compiling.updates):
        return compiling
    missing = missing_toolchain() or unusable_cache()
    if missing is None:
        if env.device is None or env.device.type == "cpu":
            prepare_compiler()
        return compiling
    report_fallback("this run", missing)
    return Compiling(False, False)


def compile_steps(env: EnvBase, compile: str, steps: int) -> None:
    """Step ``env`` as a compiled graph where ``resolve_compile`` would compile a rollout of so many steps.

    Its episodes are the same ones but for rounding. Envs other than VMAS's are left as they are.

    Args:
        env: without transforms, and not stepped yet.
        compile: the run's option: on, off or auto.
        steps: that it will make, of all its environments at once.
    """
    if isinstance(env, VmasEnv):
        frames = steps * env.batch_size[0]
        env.compile_step = resolve_compile(compile, env, total_frames=frames, updates_per_frame=0.0).rollouts


def unusable_cache() -> str | None:
    """Why there is no directory for compiled code, in a few words; ``None`` where there is one, private to this user.

    Raises:
        UserError: where it belongs to another user.
    """
    try:
        path = Path(_given_cache() or Path.home() / ".cache" / "ctde_kit")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.stat().st_uid
        if owner != os.getuid():
            raise UserError(
                f"{path}: compiled code is run from there, and it belongs to user {owner}, not to you; set "
                "TORCHINDUCTOR_CACHE_DIR to a directory of your own, or compile=off"
            )
        path.chmod(0o700)
    except (OSError, RuntimeError) as error:  # RuntimeError where there is no home
        return f"there is no directory for compiled code ({getattr(error, 'strerror', None) or error})"
    if not os.access(path, os.W_OK):
        return f"{path} cannot be written"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(path)
    return None


def _given_cache() -> str | None:
    """The directory that the user chose. Inductor, once imported, sets the variable itself, to one in ``/tmp``."""
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    inductor = sys.modules.get("torch._inductor.runtime.cache_dir_utils")
    return None if inductor is not None and given == inductor.default_cache_dir() else given
