"""Returns of a policy's greedy episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.keys import DONE, NEXT, GroupKeys

GREEDY: Any = ExplorationType.DETERMINISTIC


@dataclass(frozen=True)
class Returns:
    """Undiscounted returns of whole episodes, by group ``[episodes, n_agents]``."""

    by_group: Mapping[str, Tensor]

    def metrics(self, groups_compete: bool = False) -> dict[str, float]:
        """``return_mean`` (over agents), ``return_sum``, ``return_std`` (of the mean, over episodes), ``episodes``.

        Each is given for each group as ``{group}/...`` and, unless groups compete, for all agents together.
        """
        metrics: dict[str, float] = {}
        for group, returns in self.by_group.items():
            metrics[f"{group}/return_mean"] = returns.mean(-1).mean().item()
            metrics[f"{group}/return_sum"] = returns.sum(-1).mean().item()
        everyone = torch.cat(list(self.by_group.values()), -1)
        if not groups_compete:
            metrics["return_mean"] = everyone.mean(-1).mean().item()
            metrics["return_sum"] = everyone.sum(-1).mean().item()
            metrics["return_std"] = everyone.mean(-1).std(unbiased=False).item()
        metrics["episodes"] = len(everyone)
        return metrics


@torch.no_grad()
def evaluate(
    env: EnvBase,
    policy: TensorDictModuleBase,
    groups: list[str],
    *,
    episodes: int,
    seed: int,
    exploration: ExplorationType = GREEDY,
) -> Returns:
    """The returns of ``episodes`` episodes; every env of the batch gives the same number, its first ones.

    Args:
        env: an env of its own, batch size ``[n_envs]``; it is seeded and reset.
        policy: greedy by default.
        groups: whose rewards are summed.
        episodes: rounded up to a multiple of ``n_envs``.
        seed: of the env; the program's random state is left as it was.
        exploration: how the policy acts.
    """
    n_envs = env.batch_size[0]
    quota = -(-episodes // n_envs)
    finished: dict[str, list[Tensor]] = {group: [] for group in groups}
    with torch.random.fork_rng(), set_exploration_type(exploration):
        torch.manual_seed(seed)
        env.set_seed(seed)
        carrier = env.reset()
        running = dict.fromkeys(groups, 0.0)
        counts = torch.zeros(n_envs, dtype=torch.long, device=env.device)
        while counts.min() < quota:
            step, carrier = env.step_and_maybe_reset(policy(carrier))
            done = step[NEXT, DONE].squeeze(-1)
            counted = done & (counts < quota)
            for group in groups:
                total = running[group] + step[(NEXT, *GroupKeys(group).reward)].squeeze(-1)
                finished[group].append(total[counted])
                running[group] = total.masked_fill(done.unsqueeze(-1), 0.0)
            counts += done
    return Returns({group: torch.cat(parts).cpu() for group, parts in finished.items()})


@torch.no_grad()
def record_episode(
    env: EnvBase,
    policy: TensorDictModuleBase,
    render: Callable[[], np.ndarray] | None,
    *,
    seed: int,
    watch: Callable[[TensorDictBase], None] | None = None,
) -> tuple[list[np.ndarray], TensorDictBase]:
    """The frames of one greedy episode of the first env of the batch, and its last step.

    Args:
        env: an env of its own; it is seeded and reset.
        policy: acts greedily.
        render: draws the env as it stands; ``None`` for no frames.
        seed: of the env; the program's random state is left as it was.
        watch: called at each frame with what the policy wrote.
    """
    frames = []
    with torch.random.fork_rng(), set_exploration_type(ExplorationType.DETERMINISTIC):
        env.set_seed(seed)
        carrier = env.reset()
        while True:
            if render is not None:
                frames.append(render())
            acted = policy(carrier)
            if watch is not None:
                watch(acted)
            step = env.step(acted)
            if step[NEXT, DONE][0].item():
                return frames, step
            carrier = env.step_mdp(step)
