"""Rewards, divided by the running standard deviation of discounted returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from ctde_kit.entries import agent_flags, required_entry, valid_agents
from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, IS_INIT, PADDING_MASK, Key, next_key
from ctde_kit.modules.normalization.running_moments import RunningMoments
from ctde_kit.specs import TeamSpec

TEAM, REWARD = "team", "reward"


class _Rewards(NamedTuple):
    """Rewards of one group or of the team, whether the episode ends after each, and which of them are valid.

    All three tensors have the shape ``[n_envs, T, n, 1]``.
    """

    name: str
    reward: Tensor
    done: Tensor
    valid: Tensor


class RewardNorm(nn.Module):
    """Divides rewards by the running standard deviation of discounted returns.

    The scale is that of PPO's common implementation (Engstrom et al. 2020, "Implementation Matters in Deep Policy
    Gradients"): the deviation, over agents, envs and steps, of the discounted sum of an agent's rewards since its
    episode began. Nothing is subtracted and nothing is clipped, so the best policy stays the best. EPyMARL's
    ``standardise_rewards`` also subtracts the mean reward, which pays or punishes each step of an episode whose length
    depends on the agents. TorchRL's ``VecNormV2`` subtracts it, too, and its ``RewardScaling`` has a fixed scale.

    Called on a fresh batch, as a step of ``Parts.prepare``, it takes the rewards in and returns the batch unchanged.
    ``AdvantageEstimator``, ``QMixLoss``, ``MADDPGLoss``, ``MASACLoss`` and ``COMATargets`` take it as ``reward_norm``,
    and read rewards through ``normalize``. So a replay buffer holds the env's own rewards, all of which are read in the
    current unit. Logs and evaluations also show the env's own rewards.

    Each group has a scale of its own. Mixers and COMA learn one reward of the whole team. For them ``of_team``
    normalizes the team's reward, as ``TeamReward`` writes it; one scale per group would change which group's reward
    weighs more. Dead agents and padding are left out. Where batches are padded, each row begins a new sum. Otherwise
    sums go on from one batch to the next, so batches must hold the same envs in the same order.

    Args:
        team: the groups that learn.
        gamma: discount per step of the sums.
        of_team: normalize the team's reward ``("next", "reward")`` instead of each group's.

    >>> import torch
    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, max_steps=5)
    >>> norm = ck.RewardNorm(ck.TeamSpec.from_env(env), gamma=0.99)
    >>> batch = norm(env.rollout(5))
    >>> scaled = norm.normalize(batch)["next", "agents", "reward"] * norm.scale("agents")
    >>> torch.allclose(scaled, batch["next", "agents", "reward"])
    True
    """

    def __init__(self, team: TeamSpec, *, gamma: float, of_team: bool = False):
        super().__init__()
        if not 0 <= gamma <= 1:
            raise UserError(f"RewardNorm: gamma={gamma}: expected a ratio from 0 to 1")
        self.team, self.gamma, self.of_team = team, gamma, of_team
        names = [TEAM] if of_team else [group.name for group in team]
        self.moments = nn.ModuleDict({name: RunningMoments(1) for name in names})
        self._sums: dict[str, Tensor] = {}

    def scale(self, name: str = TEAM) -> Tensor:
        """What the rewards of a group, or of the ``team``, are divided by, a scalar."""
        return self._moments(name).deviation.squeeze(-1)

    def _moments(self, name: str) -> RunningMoments:
        moments = self.moments[name]
        assert isinstance(moments, RunningMoments)
        return moments

    def normalize(self, tensordict: TensorDictBase, *, read: Iterable[NestedKey] = ()) -> TensorDictBase:
        """A shallow copy with normalized rewards under ``next``; nothing is written into what is given.

        Args:
            tensordict: with the rewards.
            read: the keys, under ``next``, of the rewards that the caller learns from.

        Raises:
            UserError: where one of them is not normalized here.
        """
        known = [REWARD] if self.of_team else [group.keys.reward for group in self.team]
        for key in read:
            if key not in known:
                raise UserError(
                    f"reward_norm: the loss learns from {key}, and this RewardNorm has {known}; make it with "
                    "of_team=True for a loss with a mixer or COMATargets, else without, and leave the loss's reward "
                    "key as it is"
                )
        normalized = tensordict.copy()
        for name in self.moments:
            key = self._key(name)
            reward = required_entry(tensordict, key)
            normalized.set(key, reward / self.scale(name).to(reward))
        return normalized

    def _key(self, name: str) -> Key:
        return next_key(REWARD) if self.of_team else next_key(self.team[name].keys.reward)

    @torch.no_grad()
    def forward(self, batch: TensorDictBase) -> TensorDictBase:
        if batch.ndim != 2:
            raise UserError(f"RewardNorm: expected a fresh batch [n_envs, T], found {list(batch.shape)}")
        for rewards in self._rewards(batch):
            self._moments(rewards.name).update(self._discounted(batch, rewards), rewards.valid.squeeze(-1))
        return batch

    def _rewards(self, batch: TensorDictBase) -> Iterator[_Rewards]:
        for name in self.moments:
            key = self._key(name)
            reward = required_entry(batch, key)
            if self.of_team:
                reward = reward.unsqueeze(-2)
                done = required_entry(batch, next_key(DONE)).unsqueeze(-2)
                alive = batch.get(PADDING_MASK, None)
                alive = None if alive is None else alive.reshape(*batch.shape, 1)
            else:
                group = self.team[name]
                done, _ = agent_flags(batch, group.keys, reward)
                alive = valid_agents(batch, group.keys.mask if group.mask else None, PADDING_MASK, key)
            valid = torch.ones_like(reward, dtype=torch.bool) if alive is None else alive.unsqueeze(-1)
            yield _Rewards(name, reward.masked_fill(~valid, 0), done, valid)

    def _discounted(self, batch: TensorDictBase, rewards: _Rewards) -> Tensor:
        """The discounted sum of the rewards since the episode began, of each agent at each step."""
        is_padded, is_init = batch.get(PADDING_MASK, None) is not None, batch.get(IS_INIT, None)
        total = self._first(rewards, is_padded)
        sums = torch.empty_like(rewards.reward)
        ends = rewards.done | ~rewards.valid
        for t in range(sums.shape[1]):
            if is_init is not None:
                # A checkpoint may reset an env whose state cannot be captured; no done stands before such a reset.
                total = total.masked_fill(is_init[:, t].unsqueeze(-1), 0)
            total = self.gamma * total + rewards.reward[:, t]
            sums[:, t] = total
            total = total.masked_fill(ends[:, t], 0)
        if not is_padded:
            self._sums[rewards.name] = total
        return sums

    def _first(self, rewards: _Rewards, is_padded: bool) -> Tensor:
        """The sums before the batch's first step."""
        before = None if is_padded else self._sums.get(rewards.name)
        zeros = torch.zeros_like(rewards.reward[:, 0])
        if before is None:
            return zeros
        if before.shape != zeros.shape:
            raise UserError(
                f"RewardNorm: the batch has {len(zeros)} envs, the running sums {len(before)}: feed batches of the "
                "same envs in order"
            )
        # A checkpoint is read onto the CPU, and Module.to does not move this state.
        return before.to(zeros.device)

    def get_extra_state(self) -> dict[str, Tensor]:
        return dict(self._sums)

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self._sums = dict(state)
