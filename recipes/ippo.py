"""IPPO: the MAPPO recipe with a decentralized critic."""

from __future__ import annotations

from ctde_kit.recipes.cli import command_line
from ctde_kit.recipes.mappo import MAPPOConfig, build, build_actor

__all__ = ["MAPPOConfig", "build", "build_actor", "main"]

main = command_line("ippo")

if __name__ == "__main__":
    main()
