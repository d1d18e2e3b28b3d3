"""FACMAC: the MADDPG recipe with each agent's own critic, and a mixer of their values."""

from __future__ import annotations

from ctde_kit.recipes.cli import command_line
from ctde_kit.recipes.maddpg import MADDPGConfig, build, build_actor

__all__ = ["MADDPGConfig", "build", "build_actor", "main"]

main = command_line("facmac")

if __name__ == "__main__":
    main()
