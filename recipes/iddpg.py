"""IDDPG: the MADDPG recipe with decentralized critics."""

from __future__ import annotations

from ctde_kit.recipes.cli import command_line
from ctde_kit.recipes.maddpg import MADDPGConfig, build, build_actor

__all__ = ["MADDPGConfig", "build", "build_actor", "main"]

main = command_line("iddpg")

if __name__ == "__main__":
    main()
