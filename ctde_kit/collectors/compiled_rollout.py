"""Batches collected by one compiled step of policy and env, with initial states drawn before each batch."""

from __future__ import annotations

import math

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase

from ctde_kit.collectors.compiled_rollout_step import CompiledRolloutStep
from ctde_kit.keys import DONE, NEXT

# Initial states drawn before a batch, as a multiple of those that recent batches used.
RESERVE = 1.5
# Factor per batch by which the number of initial states that recent batches used decays.
FORGETTING = 0.9


class CompiledRollout:
    """Collects batches ``[n_envs, length]`` with a ``CompiledRolloutStep``.

    Envs whose episode ends within a batch continue from initial states that are drawn before it: ``RESERVE`` times as
    many as recent batches used, and at least one per env. Each is used at most once, so that the distribution of
    initial states is the env's own. Between batches, env and root entries are as the eager path leaves them.

    Args:
        env: batch size ``[n_envs]``.
        policy: writes the action.
        root: an example of what the policy reads.
        length: steps per batch.

    Raises:
        TraceError: if env or policy cannot be traced.
    """

    def __init__(self, env: EnvBase, policy: TensorDictModuleBase, root: TensorDictBase, length: int):
        self.env, self.length = env, length
        self.read_keys = [*env.observation_keys, *env.done_keys, *env.state_keys]
        self.step = CompiledRolloutStep(env, policy, root.select(*self.read_keys, strict=False))

    def __call__(
        self, root: TensorDictBase, recent_resets: float
    ) -> tuple[TensorDictBase | None, TensorDictBase, float]:
        """One batch, what the policy reads next, and ``recent_resets`` for the next call.

        Where more episodes ended than there were initial states, the batch is ``None``, and env, root and the random
        generator of the CPU are as they were before the call.

        Args:
            root: what the policy reads first.
            recent_resets: how many episodes ended within recent batches: the largest number, which decays per batch.
        """
        base_env = self.step.base_env
        n_envs = root.batch_size[0]
        saved, random_state = base_env.state_dict(), torch.random.get_rng_state()
        blocks = max(1, math.ceil(RESERVE * recent_resets / n_envs))
        fresh = self.step.fresh_layout.pack(base_env.draw_initial_states(blocks * n_envs))
        batch, next_root = self.step.rollout(root, self.length, fresh)
        used = int(batch.get((NEXT, DONE))[:, :-1].sum())
        recent_resets = max(used, FORGETTING * recent_resets)
        if used > fresh[0].shape[0]:
            base_env.load_state_dict(saved)
            torch.random.set_rng_state(random_state)
            return None, root, recent_resets
        return batch, self.env.maybe_reset(next_root), recent_resets
