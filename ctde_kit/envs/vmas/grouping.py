"""Groups of agents whose observation and action spaces are the same."""

from __future__ import annotations

from typing import Any

from vmas.simulator.environment import Environment


def split_groups(env: Environment, group_map: dict[str, list[str]]) -> dict[str, list[str]]:
    """Split each group whose agents differ in their observation or action space; like agents stay together.

    The parts of a split group are named ``{group}_{0, 1, ...}`` in the order of their first agents; a part with
    one agent takes that agent's name.
    """
    index = {agent.name: i for i, agent in enumerate(env.agents)}
    observations: Any = env.observation_space  # a tuple or a dictionary of spaces, as gymnasium declares neither
    actions: Any = env.action_space
    result: dict[str, list[str]] = {}
    for group, names in group_map.items():
        parts: dict[str, list[str]] = {}
        for name in names:
            agent = index[name]
            spaces = str((observations[agent], actions[agent]))
            parts.setdefault(spaces, []).append(name)
        if len(parts) == 1:
            result[group] = names
        else:
            for number, part in enumerate(parts.values()):
                result[part[0] if len(part) == 1 else f"{group}_{number}"] = part
    return result
