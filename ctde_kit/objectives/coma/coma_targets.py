"""The TD(lambda) targets of COMA's critics, computed once from each fresh batch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.entries import valid_agents
from ctde_kit.entry_tables import Entry, GroupEntries, as_key, one_per_step, root_entry
from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, IS_INIT, NEXT, PADDING_MASK
from ctde_kit.objectives.coma.coma_critic_loss import COMACriticLoss
from ctde_kit.objectives.coma.counterfactual import chosen_index
from ctde_kit.objectives.entry_checks import EntryCheck, parameter_dtype
from ctde_kit.objectives.q_values import at_next
from ctde_kit.objectives.read_entries import entries_read_by, masks_of, now_and_next, team_flags, team_reward
from ctde_kit.objectives.return_estimators import ReturnEstimator, TDLambdaReturn
from ctde_kit.objectives.td_targets import team_returns
from ctde_kit.objectives.team_reward import REWARD
from ctde_kit.objectives.unroll import single_steps, trace_ends
from ctde_kit.protocols import GroupActor, RewardScale
from ctde_kit.specs import GroupSpec


class ActsForAllGroups(Protocol):
    """What ``COMATargets`` uses of the policy of all groups, such as ``TeamPolicy``."""

    @property
    def actors(self) -> Mapping[str, GroupActor]:
        """The policy of each group, by name."""
        ...

    def __call__(self, tensordict: TensorDictBase, /) -> TensorDictBase:
        """Write the action of every group."""
        ...


class COMATargets(nn.Module):
    """Writes the team's TD(lambda) returns, the targets of COMA's critics, into a batch ``[n_envs, T]``.

    Foerster et al. 2018, "Counterfactual Multi-Agent Policy Gradients", section 4.3: with target critics ``Q'``,
    ``y_t = r_t + gamma ((1 - lambda) Q'(s_{t+1}, u_{t+1}) + lambda y_{t+1})`` for each agent, by its own row of the
    critic. ``u_{t+1}`` is the joint action that was taken there. Where none was, at the end of the batch and at time
    limits, the team's or an agent's own, the current policies choose it at the observation before any reset, from the
    hidden states after the step. Only ``terminated`` of the team ends what is bootstrapped. An agent's own death does
    not: the team's reward goes on, and its next value is then the mean of the living agents' values, all of which
    predict the same return.

    Reads, under ``next``, what the policies and the target critics read (``action_mask`` among it), the team's
    ``reward`` ``[n_envs, T, 1]`` (as ``TeamReward`` writes it), ``done`` and ``terminated``; at the root the ``action``
    of every group; and where they are present, ``mask`` of every group, ``is_init``, and ``("collector", "mask")``
    ``[n_envs, T]``, false in padding. Writes ``(group, "value_target")`` ``[n_envs, T, n_agents, 1]`` for each group
    that learns, 0 for dead agents.

    Args:
        policy: of all groups whose actions critics see.
        losses: the critic loss of each group that learns, which holds the target critic.
        gamma: discount per step.
        returns: which returns are the targets; ``None``: TD(lambda) with ``lmbda=0.8``, as in the paper.
        reward: the key of the team's reward, under ``next``.
        reward_norm: gives the rewards in the units that are learned; ``None``: as the env gave them.

    Raises:
        UserError: for a missing entry, for losses without a policy of their group, and for single steps.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, continuous_actions=False)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, group.n_agents)
    >>> policy = ck.TeamPolicy({"agents": ck.MultiAgentActor(group, ck.own_observation(group), network)})
    >>> loss = ck.objectives.COMACriticLoss(ck.modules.counterfactual_critic(team, group, ck.MultiAgentMLP))
    >>> targets = ck.objectives.COMATargets(policy, {"agents": loss}, gamma=0.99)
    >>> targets(ck.TeamReward(team, "mean")(env.rollout(5, policy)))["agents", "value_target"].shape
    torch.Size([2, 5, 4, 1])
    """

    policy: ActsForAllGroups
    losses: Mapping[str, COMACriticLoss]

    def __init__(
        self,
        policy: ActsForAllGroups,
        losses: Mapping[str, COMACriticLoss],
        *,
        gamma: float,
        returns: ReturnEstimator | None = None,
        reward: NestedKey = REWARD,
        reward_norm: RewardScale | None = None,
    ):
        super().__init__()
        # Kept out of the module tree: the parameters belong to the losses.
        self.__dict__["policy"], self.__dict__["losses"] = policy, dict(losses)
        unknown = [name for name in losses if name not in policy.actors]
        if unknown or not losses:
            raise UserError(
                f"COMATargets: losses are of groups {sorted(losses)}: expected some of those of the policy, "
                f"{sorted(policy.actors)}"
            )
        self.groups = [actor.group for actor in policy.actors.values()]
        self.gamma, self.returns = gamma, TDLambdaReturn(0.8) if returns is None else returns
        self.reward, self.reward_norm = as_key(reward), reward_norm
        self._check_entries = EntryCheck("COMATargets", self._table())

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What it reads of a batch: each batch is checked against this table."""
        return self._check_entries.entries

    def _table(self) -> list[Entry]:
        policies = [
            entry
            for actor in self.policy.actors.values()
            for entry in entries_read_by(actor, self.groups)
            if entry.key != IS_INIT
        ]
        chosen = [group.keys(name) for group in self.groups for name in ("action", "action_vector")]
        critics = [
            entry
            for loss in self.losses.values()
            for entry in now_and_next(loss.critic_network, self.groups, without=chosen)
            if entry.key[0] == NEXT
        ]
        return [
            *(entry for group in self.groups for entry in [*masks_of(group), GroupEntries.of(group).action]),
            *(entry.next() for entry in policies if entry.key[-1] != "mask"),
            *critics,
            *team_flags(),
            team_reward(self.reward),
            root_entry(IS_INIT, "bool").if_present(),
            one_per_step(PADDING_MASK, "bool"),
        ]

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        self._check_entries(tensordict, parameter_dtype(next(iter(self.losses.values()))))
        if tensordict.ndim < 2:
            raise UserError(f"COMATargets: expected sequences [n_envs, T], found single steps {[*tensordict.shape]}")
        next_values = self._next_values(self._following(tensordict))
        rewards = tensordict
        if self.reward_norm is not None:
            rewards = self.reward_norm.normalize(tensordict, read=[self.reward])
        returns = partial(self.returns, self.gamma)
        for name, next_value in next_values.items():
            target = team_returns(returns, rewards, next_value, reward=self.reward, padding_mask=PADDING_MASK)
            keys = self.losses[name].group.keys
            tensordict.set(keys.value_target, target)
            alive = valid_agents(tensordict, keys.mask, PADDING_MASK, keys.value_target)
            if alive is not None:
                tensordict.set(keys.value_target, target.masked_fill(~alive.unsqueeze(-1), 0))
        return tensordict

    def _following(self, batch: TensorDictBase) -> TensorDictBase:
        """The entries under ``next``, with each agent's action that followed, or that its policy chooses there."""
        following = at_next(self.groups, batch)
        following.set(IS_INIT, torch.zeros_like(batch.get((NEXT, DONE))))
        with set_exploration_type(ExplorationType.RANDOM):
            drawn = single_steps(self.policy, following.copy())
        time = batch.ndim - 1
        ends = trace_ends(batch, batch.get((NEXT, DONE)).unsqueeze(-2), PADDING_MASK).squeeze(-2).clone()
        ends.select(time, -1).fill_(True)
        for group in self.groups:
            stored = batch.get(group.keys.action)
            # An agent may have reached a limit of its own: nobody acts in its entry of the next step.
            ended = ends | ~_one_step_later(batch.get(group.keys.mask), time) if group.mask else ends
            ended = ended.reshape(*ended.shape, *[1] * (stored.ndim - ended.ndim))
            action = torch.where(ended, drawn.get(group.keys.action), _one_step_later(stored, time))
            following.set(group.keys.action, action)
            following.set(group.keys.action_vector, group.action.vector(action))
        return following

    def _next_values(self, following: TensorDictBase) -> dict[str, Tensor]:
        """The target critics' values of the next joint action, ``[n_envs, T, n_agents, 1]`` by group."""
        values: dict[str, Tensor] = {}
        for name, loss in self.losses.items():
            every = loss.target_critic(following.copy()).get(loss.tensor_keys.action_value)
            index = chosen_index(loss.group, following.get(loss.group.keys.action))
            values[name] = every.gather(-1, index.unsqueeze(-1))
        return _with_values_of_the_dead(values, [loss.group for loss in self.losses.values()], following)


def _one_step_later(entry: Tensor, time: int) -> Tensor:
    """The entry of the step after; at the last step its own."""
    return torch.cat([entry.narrow(time, 1, entry.shape[time] - 1), entry.narrow(time, -1, 1)], time)


def _with_values_of_the_dead(
    values: Mapping[str, Tensor], groups: list[GroupSpec], data: TensorDictBase
) -> dict[str, Tensor]:
    """The same values; those of dead agents are the mean of all living agents' values, 0 where nobody lives."""
    if not any(group.mask for group in groups):
        return dict(values)
    alive = {
        group.name: data.get(group.keys.mask).unsqueeze(-1)
        if group.mask
        else torch.ones_like(values[group.name], dtype=torch.bool)
        for group in groups
    }
    total = torch.stack([value.masked_fill(~alive[name], 0).sum(-2) for name, value in values.items()]).sum(0)
    count = torch.stack([mask.sum(-2) for mask in alive.values()]).sum(0)
    mean = (total / count.clamp(min=1)).unsqueeze(-2)
    return {name: torch.where(alive[name], value, mean) for name, value in values.items()}
