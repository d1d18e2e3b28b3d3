"""Write the table of VMAS scenarios into docs/environments.md.

Run ``python -m tests.programs.scenarios.describe_scenarios``.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from ctde_kit.envs.vmas import VmasEnv, shipped_scenarios
from ctde_kit.specs import TeamSpec
from tests.programs.marked import write_between

PAGE = Path(__file__).parents[3] / "docs" / "environments.md"


def row(scenario: str) -> str:
    """One line of the table; what a scenario keeps in Python shows within a few partial resets."""
    env = VmasEnv(scenario, num_envs=6, max_steps=50)
    team = TeamSpec.from_env(env)
    carrier = env.reset()
    for _ in range(12):
        _, carrier = env.step_and_maybe_reset(env.rand_action(carrier))
        carrier["_reset"] = torch.arange(6).reshape(-1, 1) == 2
        carrier = env.reset(carrier)
    groups = ", ".join(f"{g.name} {g.n_agents}x{g.observation_dim}" for g in team)
    names = [path.removeprefix("env.").removeprefix("scenario.") for path in env.python_state]
    reset = f"env by env: `{'`, `'.join(names[:2])}`{' ...' if len(names) > 2 else ''}" if names else "one batch"
    return f"| `{scenario}` | {groups} | {reset} |"


def main() -> None:
    """Replace what stands between the page's two marks."""
    lines = ["| scenario | groups: agents x observation | partial reset |", "|---|---|---|"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines += [row(scenario) for scenario in shipped_scenarios()]
    write_between(PAGE, "scenarios", "\n".join(lines))


if __name__ == "__main__":
    main()
