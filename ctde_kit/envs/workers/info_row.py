"""What the environment reports of one agent in its infos, in one env's row of the shared block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctde_kit.envs.workers.block_layout import INFO, REPORTED, Block


class InfoRow:
    """Views of one agent's reported numbers.

    Args:
        index: of the env.
        group: the name of the agent's group.
        position: of the agent in its group.
        names: of the entries of its infos that are kept.
        block: the shared memory.
    """

    def __init__(self, index: int, group: str, position: int, names: Sequence[str], block: Block) -> None:
        self._views = {name: block[group, INFO, name][index, position] for name in names}
        self._reported = block[REPORTED][index] if names else None

    def write(self, agent: str, info: Mapping[str, Any] | None) -> None:
        """Write a step's numbers; 0 where the environment reports none.

        Raises ``ValueError`` for an entry that is not one number.
        """
        if self._reported is None:
            return
        for column, (name, view) in enumerate(self._views.items()):
            value = None if info is None else info.get(name)
            if value is None:
                view[0] = 0
                continue
            try:
                view[0] = float(value)
            except (TypeError, ValueError):
                raise ValueError(
                    f"infos: {name!r} of {agent!r}: expected one number, found {value!r}; leave it out of infos"
                ) from None
            self._reported[column] = True
