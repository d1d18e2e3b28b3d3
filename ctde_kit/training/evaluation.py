"""Evaluation: returns of whole episodes of a policy, and the recording of one episode for a video."""

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
    """Undiscounted returns of whole episodes.

    Args:
        by_group: float ``[episodes, n_agents]`` for each group.

    >>> import torch
    >>> from ctde_kit.training import Returns
    >>> returns = Returns({"agents": torch.tensor([[1.0, 2.0], [3.0, 6.0]])})  # two episodes of two agents
    >>> returns.metrics()["return_mean"], returns.metrics()["return_sum"]
    (3.0, 6.0)
    """

    by_group: Mapping[str, Tensor]

    def metrics(self, groups_compete: bool = False) -> dict[str, float]:
        """Means over episodes of the return's mean and sum over agents, for each group and for all agents.

        ``{group}/return_mean`` and ``{group}/return_sum`` for each group; ``return_mean``, ``return_sum`` and
        ``return_std`` (the standard deviation over episodes of the mean over agents) for all agents together, which
        are left out where groups compete; and ``episodes``, their number.
        """
        metrics: dict[str, float] = {}
        for group, returns in self.by_group.items():
            metrics[f"{group}/return_mean"] = returns.mean(-1).mean().item()
            metrics[f"{group}/return_sum"] = returns.sum(-1).mean().item()
        all_agents = torch.cat(list(self.by_group.values()), -1)
        if not groups_compete:
            metrics["return_mean"] = all_agents.mean(-1).mean().item()
            metrics["return_sum"] = all_agents.sum(-1).mean().item()
            metrics["return_std"] = all_agents.mean(-1).std(unbiased=False).item()
        metrics["episodes"] = len(all_agents)
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
    """The returns of at least ``episodes`` episodes.

    Each env of the batch contributes its first ``episodes / n_envs`` episodes, so that short episodes are not
    over-represented.

    Args:
        env: an env that training does not use, batch size ``[n_envs]``; it is seeded and reset.
        policy: writes the actions of all groups.
        groups: names of the groups whose rewards are summed over time.
        episodes: rounded up to a multiple of ``n_envs``.
        seed: seeds env and policy; the program's random state is restored afterwards.
        exploration: how the policy acts; greedily by default.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, max_steps=5, scenario_kwargs={"n_agents": 3})
    >>> policy = ck.modules.RandomActor(ck.TeamSpec.from_env(env)["agents"])
    >>> ck.evaluate(env, policy, ["agents"], episodes=4, seed=0).by_group["agents"].shape
    torch.Size([4, 3])
    """
    n_envs = env.batch_size[0]
    quota = -(-episodes // n_envs)
    finished: dict[str, list[Tensor]] = {group: [] for group in groups}
    with torch.random.fork_rng(), set_exploration_type(exploration):
        torch.manual_seed(seed)
        env.set_seed(seed)
        next_root = env.reset()
        running = dict.fromkeys(groups, 0.0)
        counts = torch.zeros(n_envs, dtype=torch.long, device=env.device)
        while counts.min() < quota:
            step, next_root = env.step_and_maybe_reset(policy(next_root))
            done = step[NEXT, DONE].squeeze(-1)
            valid_mask = done & (counts < quota)
            for group in groups:
                total = running[group] + step[(NEXT, *GroupKeys(group).reward)].squeeze(-1)
                finished[group].append(total[valid_mask])
                running[group] = total.masked_fill(done.unsqueeze(-1), 0.0)
            counts += done
    return Returns({group: torch.cat(returns).cpu() for group, returns in finished.items()})


@torch.no_grad()
def record_episode(
    env: EnvBase,
    policy: TensorDictModuleBase,
    render: Callable[[], np.ndarray] | None,
    *,
    seed: int,
    watch: Callable[[TensorDictBase], None] | None = None,
) -> tuple[list[np.ndarray], TensorDictBase]:
    """The rendered images of one greedy episode of the batch's first env, and the episode's last step.

    Args:
        env: an env that training does not use; it is seeded and reset.
        policy: writes the actions of all groups.
        render: returns an image uint8 ``[H, W, 3]`` of the env's current state; ``None`` to render nothing.
        seed: seeds the env; the program's random state is restored afterwards.
        watch: called at each step with what the policy read and wrote.

    >>> import ctde_kit as ck
    >>> from ctde_kit.training import record_episode
    >>> env = ck.VmasEnv("navigation", num_envs=1, max_steps=5)
    >>> policy = ck.modules.RandomActor(ck.TeamSpec.from_env(env)["agents"])
    >>> actions = []
    >>> def watch(step):
    ...     actions.append(step["agents", "action"])
    >>> images, last = record_episode(env, policy, None, seed=0, watch=watch)
    >>> len(actions), last["next", "truncated"].item()
    (5, True)
    """
    frames = []
    with torch.random.fork_rng(), set_exploration_type(ExplorationType.DETERMINISTIC):
        env.set_seed(seed)
        next_root = env.reset()
        while True:
            if render is not None:
                frames.append(render())
            acted = policy(next_root)
            if watch is not None:
                watch(acted)
            step = env.step(acted)
            if step[NEXT, DONE][0].item():
                return frames, step
            next_root = env.step_mdp(step)
