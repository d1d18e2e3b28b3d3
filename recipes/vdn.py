"""VDN: the QMIX recipe with the sum of the agents' values."""

from __future__ import annotations

from ctde_kit.recipes.cli import command_line
from ctde_kit.recipes.qmix import QMIXConfig, build, build_actor

__all__ = ["QMIXConfig", "build", "build_actor", "main"]

main = command_line("vdn")

if __name__ == "__main__":
    main()
