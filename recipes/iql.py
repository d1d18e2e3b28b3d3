"""IQL: the QMIX recipe without a mixer: every agent learns by itself."""

from __future__ import annotations

from ctde_kit.recipes.cli import command_line
from ctde_kit.recipes.qmix import QMIXConfig, build, build_actor

__all__ = ["QMIXConfig", "build", "build_actor", "main"]

main = command_line("iql")

if __name__ == "__main__":
    main()
