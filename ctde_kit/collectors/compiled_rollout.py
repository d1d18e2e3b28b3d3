"""Batches from a compiled step, with fresh initial states drawn before each batch."""

from __future__ import annotations

import math

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase

from ctde_kit.collectors.compiled_step import CompiledStep
from ctde_kit.keys import DONE, NEXT

RESERVE = 1.5
FORGETTING = 0.9


class CompiledRollout:
    """Collects ``[n_envs, length]`` by a ``CompiledStep``; between batches env and carrier are as the plain path's.

    Before each batch it draws fresh initial states, ``RESERVE`` times as many as recent batches used and a row for each
    env at least; each is used once at most, so that the distribution of initial states stays the env's own.

    Args:
        env: batch size ``[n_envs]``.
        policy: writes the action.
        carrier: what the policy reads first.
        length: steps a batch.

    Raises:
        TraceError: where env or policy cannot be a graph.
    """

    def __init__(self, env: EnvBase, policy: TensorDictModuleBase, carrier: TensorDictBase, length: int):
        self.env, self.length = env, length
        self.read_keys = [*env.observation_keys, *env.done_keys, *env.state_keys]
        self.step = CompiledStep(env, policy, carrier.select(*self.read_keys, strict=False))

    def __call__(
        self, carrier: TensorDictBase, resets_seen: float
    ) -> tuple[TensorDictBase | None, TensorDictBase, float]:
        """A batch, what the policy reads next, and how many envs ended in recent batches, for the next call.

        The batch is ``None``, and env, random generators and carrier as they were, where more envs ended than there
        were fresh states.
        """
        base_env = self.step.base_env
        n_envs = carrier.batch_size[0]
        saved, random_state = base_env.state_dict(), torch.random.get_rng_state()
        blocks = max(1, math.ceil(RESERVE * resets_seen / n_envs))
        fresh = self.step.fresh_layout.pack(base_env.draw_initial_states(blocks * n_envs))
        batch, following = self.step.rollout(carrier, self.length, fresh)
        used = int(batch.get((NEXT, DONE))[:, :-1].sum())
        resets_seen = max(used, FORGETTING * resets_seen)
        if used > fresh[0].shape[0]:
            base_env.load_state_dict(saved)
            torch.random.set_rng_state(random_state)
            return None, carrier, resets_seen
        return batch, self.env.maybe_reset(following), resets_seen
