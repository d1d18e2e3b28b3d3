"""Pictures of chosen episodes of an evaluation, which is played again for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.keys import DONE, NEXT
from ctde_kit.training.evaluation import evaluating


@torch.no_grad()
def record_chosen(
    env: EnvBase,
    policy: TensorDictModuleBase,
    render: Callable[[int], np.ndarray],
    chosen: Collection[int],
    *,
    seed: int,
    exploration: ExplorationType,
    watch: Mapping[int, Callable[[TensorDictBase], None]] | None = None,
) -> dict[int, list[np.ndarray]]:
    """The pictures of some episodes of ``evaluate(env, policy, ..., seed=seed)``, from first state to last.

    Args:
        env: the one that was evaluated, batch size ``[n_envs]``; it is seeded and reset.
        policy: that was evaluated.
        render: returns an image uint8 ``[H, W, 3]`` of the present state of an env, by its index.
        chosen: which episodes, by their number in ``Returns.numbers``.
        seed: of that evaluation.
        exploration: of that evaluation.
        watch: for an episode, what is called at each of its steps with what the policy read and wrote.

    >>> import ctde_kit as ck
    >>> import numpy as np
    >>> from torchrl.envs.utils import ExplorationType
    >>> from ctde_kit.training.reporting import record_chosen
    >>> env = ck.VmasEnv("navigation", num_envs=2, max_steps=5)
    >>> policy = ck.modules.RandomActor(ck.TeamSpec.from_env(env)["agents"])
    >>> picture = lambda index: np.full((4, 4, 3), index, dtype=np.uint8)
    >>> random = ExplorationType.RANDOM
    >>> videos = record_chosen(env, policy, picture, [0, 3], seed=0, exploration=random)  # env 1's second is the 4th
    >>> {number: len(video) for number, video in videos.items()}
    {0: 6, 3: 6}
    """
    n_envs, watch = env.batch_size[0], watch or {}
    videos: dict[int, list[np.ndarray]] = {number: [] for number in chosen}
    unfinished = set(chosen)
    played = [0] * n_envs
    with torch.random.fork_rng(), set_exploration_type(exploration), evaluating(policy):
        torch.manual_seed(seed)
        env.set_seed(seed)
        root = env.reset()
        while unfinished:
            running = [number for number in unfinished if played[number % n_envs] == number // n_envs]
            for number in running:
                if not videos[number]:
                    videos[number].append(render(number % n_envs))
            acted = policy(root)
            for number in running:
                if number in watch:
                    watch[number](acted)
            step = env.step(acted)
            for number in running:
                videos[number].append(render(number % n_envs))
            done = step[NEXT, DONE].squeeze(-1).tolist()
            unfinished -= {number for number in running if done[number % n_envs]}
            played = [count + ended for count, ended in zip(played, done, strict=True)]
            root = env.maybe_reset(env.step_mdp(step))
    return videos
