"""What a run compiles."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torchrl.envs import EnvBase

from ctde_kit.graph.toolchain import missing_toolchain, report_fallback
from ctde_kit.protocols import PureEnv

# What compiling costs and what it spares a call both grow with the graph, so that its size cancels out.
WORTH_COMPILING = 2_000


@dataclass(frozen=True)
class Compiling:
    """Whether the rollouts and the gradient steps of a run are compiled."""

    rollouts: bool
    updates: bool


def resolve_compile(compile: str, env: EnvBase, *, total_frames: int, updates_per_frame: float) -> Compiling:
    """What to compile: ``auto`` goes by the number of calls, so that the same run always decides alike.

    ``auto`` compiles rollouts of ``WORTH_COMPILING`` env steps (of all ``n_envs`` at once) and more, but leaves out
    envs that can never be a graph, without a word; and gradient steps, where there are that many. What cannot be
    compiled runs eagerly in any case, and says so in one line. Compiled code is kept in ``~/.cache/ctde_kit``, or where
    ``TORCHINDUCTOR_CACHE_DIR`` points to.
    """
    compiling = Compiling(compile == "on", compile == "on")
    if compile == "auto":
        is_pure = isinstance(env, PureEnv)
        compiling = Compiling(
            is_pure and total_frames / env.batch_size[0] >= WORTH_COMPILING,
            total_frames * updates_per_frame >= WORTH_COMPILING,
        )
    if not (compiling.rollouts or compiling.updates):
        return compiling
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "ctde_kit"))
    missing = missing_toolchain()
    if missing is None:
        return compiling
    report_fallback("this run", missing)
    return Compiling(False, False)
