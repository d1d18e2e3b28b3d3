"""Generalized advantage estimates and value targets of a fresh batch, with exact next values."""

from __future__ import annotations

from typing import cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from ctde_kit.entries import agent_flags, check_same_shape, valid_agents
from ctde_kit.entry_tables import Entry, one_per_step
from ctde_kit.errors import UserError, check_choice
from ctde_kit.keys import DONE, IS_INIT, PADDING_MASK, TERMINATED, GroupKeys, Key, next_key
from ctde_kit.objectives.entry_checks import EntryCheck, parameter_dtype
from ctde_kit.objectives.masking import NORMALIZATIONS, AdvantageNormalization, normalize_advantage
from ctde_kit.objectives.read_entries import group_as_declared, now_and_next, team_flags
from ctde_kit.objectives.returns import generalized_advantage_estimate
from ctde_kit.objectives.unroll import hidden_key, next_outputs, trace_ends, unroll
from ctde_kit.protocols import RecurrentModule, ReturnScale, RewardScale


class AdvantageEstimator(nn.Module):
    """Generalized advantage estimation: writes advantages and value targets into a batch ``[n_envs, T]``.

    Reads what the critic reads, at the root and under ``next`` (for a recurrent critic also ``is_init``); ``("next",
    group, "reward")`` ``[n_envs, T, n_agents, 1]``; ``done`` and ``terminated`` of the team and, where present, of the
    agents; and, where present, ``(group, "mask")``, and ``("collector", "mask")`` ``[n_envs, T]``, false in padding.
    Writes under the group, all ``[n_envs, T, n_agents, 1]``: ``state_value`` (the critic's output, in normalized units
    if there is a ``value_norm``), ``advantage`` (normalized under the masks as ``normalize`` says) and ``value_target``
    (in units of returns). Also writes the hidden states of a recurrent critic.

    Values of next steps are exact: the critic reads ``("next", observation)``, the one before any reset. A recurrent
    critic is unrolled over the batch once, from its hidden state at the end of the last batch, and gives next values by
    one batched step from each step's hidden state. So batches must come from the same envs in the same order, and the
    hidden state is part of ``state_dict``. A critic that is the actor's own network needs neither: it starts
    from the hidden state that the actor stored, and leaves what is stored as it is.

    With ``of_team`` the group's agents maximize one reward together: the mean of all agents' rewards, dead ones'
    counting as 0. The value is the mean of the critic's values (those of a critic with one head are all the same), and
    only the team's flags end it. There is one advantage and one target per step, written for each agent; advantages are
    normalized over steps, whoever is dead.

    Args:
        critic: writes ``(group, "state_value")``.
        keys: the group's keys.
        gamma: discount per step.
        lmbda: decay of the trace per step.
        value_norm: denormalizes the critic's outputs and learns the targets' statistics; ``None`` for neither.
        reward_norm: gives the rewards in the units that are learned; ``None``: as the env gave them.
        normalize: advantages are normalized over the entries of all agents together (``joint``), of each ``agent`` by
            itself, or not at all (``none``).
        of_team: estimate the advantage of the group's agents as one team, instead of each agent's own.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, max_steps=5)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> critic = ck.value_critic(team, group, ck.MultiAgentMLP)
    >>> estimator = ck.AdvantageEstimator(critic, group.keys, gamma=0.99, lmbda=0.95, value_norm=ck.ValueNorm())
    >>> estimator(env.rollout(5))["agents", "advantage"].shape
    torch.Size([2, 5, 4, 1])
    """

    critic: TensorDictModuleBase
    normalize: AdvantageNormalization
    value_norm: ReturnScale | None
    reward_norm: RewardScale | None
    critic_hidden: Tensor | None

    def __init__(
        self,
        critic: TensorDictModuleBase,
        keys: GroupKeys,
        *,
        gamma: float,
        lmbda: float,
        value_norm: ReturnScale | None = None,
        reward_norm: RewardScale | None = None,
        normalize: AdvantageNormalization = "joint",
        of_team: bool = False,
    ):
        super().__init__()
        if not isinstance(keys, GroupKeys):
            raise UserError(
                f"AdvantageEstimator: keys={keys!r}: expected GroupKeys; pass those of the group, such as "
                "team['agents'].keys"
            )
        # Kept out of the module tree: the critic's parameters belong to the loss.
        self.__dict__["critic"] = critic
        self.keys, self.gamma, self.lmbda = keys, gamma, lmbda
        self.normalize = check_choice("AdvantageEstimator", "normalize", normalize, NORMALIZATIONS)
        self.value_norm, self.reward_norm, self.of_team = value_norm, reward_norm, of_team
        self.critic_hidden = None
        of_actor = (keys.hidden("actor"), keys.team_hidden("actor"))
        self._carried_key = None if hidden_key(critic) in of_actor else hidden_key(critic)
        self._check_entries = EntryCheck("AdvantageEstimator", self._table())

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What it reads of a batch: each batch is checked against this table."""
        return self._check_entries.entries

    def _table(self) -> list[Entry]:
        group, carried = group_as_declared(self.critic, self.keys), self._carried_key
        mask = group.mask.if_present()
        return [
            *now_and_next(self.critic, without=[] if carried is None else [carried]),
            *(mask, mask.next()),
            one_per_step(PADDING_MASK, "bool"),
            group.reward,
            *team_flags(),
            *([] if self.of_team else group.ends),
        ]

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        self._check_entries(tensordict, parameter_dtype(self.critic))
        _check_time_is_last(tensordict)
        if tensordict.ndim == 1 and self.lmbda != 0:
            self._check_one_env(tensordict)
        value, next_value = self._values(tensordict)
        raw_value = value
        if self.value_norm is not None:
            value, next_value = self.value_norm.denormalize(value), self.value_norm.denormalize(next_value)
        reward_key = next_key(self.keys.reward)
        rewards = (
            tensordict if self.reward_norm is None else self.reward_norm.normalize(tensordict, read=[self.keys.reward])
        )
        reward = rewards.get(reward_key)
        alive = valid_agents(tensordict, self.keys.mask, PADDING_MASK, reward_key)
        mask = None if alive is None else alive.unsqueeze(-1)
        check_same_shape(**{str(reward_key): reward, "state_value": value})
        if self.of_team:
            reward = reward if mask is None else reward.masked_fill(~mask, 0)
            reward, value, next_value = (x.mean(-2, keepdim=True) for x in (reward, value, next_value))
            steps = valid_agents(tensordict, None, PADDING_MASK, reward_key)
            mask = None if steps is None else steps[..., :1].unsqueeze(-1)
            done, terminated = (tensordict.get(next_key(flag)).unsqueeze(-2) for flag in (DONE, TERMINATED))
        else:
            done, terminated = agent_flags(tensordict, self.keys, reward)
        done = trace_ends(tensordict, done, PADDING_MASK)
        if mask is not None:
            reward, value, next_value = (x.masked_fill(~mask, 0) for x in (reward, value, next_value))
        advantage = generalized_advantage_estimate(self.gamma, self.lmbda, value, next_value, reward, done, terminated)
        target = advantage + value
        if self.value_norm is not None:
            self.value_norm.update(target, mask)
        advantage = normalize_advantage(advantage, mask, self.normalize)
        tensordict.set(self.keys.state_value, raw_value)
        tensordict.set(self.keys.value_target, target.expand_as(raw_value).contiguous())
        tensordict.set(self.keys.advantage, advantage.expand_as(raw_value).contiguous())
        return tensordict

    def _values(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """The critic's outputs at each step and at each next observation."""
        inputs, key = tensordict, self._carried_key
        if key is not None:
            inputs = tensordict.copy().set(key, self._first_hidden(cast(RecurrentModule, self.critic), tensordict))
        unrolled = unroll(self.critic, inputs)
        self._check_value(tensordict, unrolled)
        if key is not None:
            tensordict.set(key, unrolled.get(key))
            self.critic_hidden = unrolled.get(next_key(key))[:, -1].clone()
        next_value = next_outputs(self.critic, tensordict, unrolled).get(self.keys.state_value)
        return unrolled.get(self.keys.state_value), next_value

    def _check_one_env(self, steps: TensorDictBase) -> None:
        """Raise ``UserError`` unless each step of ``[T]`` that does not end goes on in the next row."""
        goes_on = ~steps.get(next_key(DONE)).flatten(1).any(-1)[:-1]
        padding = steps.get(PADDING_MASK, None)
        if padding is not None:
            goes_on &= padding[1:]
        keys = cast("list[Key]", self.critic.in_keys)
        for key in keys:
            now, later = steps.get(key, None), steps.get(next_key(key), None)
            if now is None or later is None:
                continue
            now, later = now[1:].flatten(1), later[:-1].flatten(1)
            differs = ((later != now) & ~(later.isnan() & now.isnan())).any(-1) & goes_on
            if differs.any():
                row = int(differs.nonzero()[0])
                raise UserError(
                    f"AdvantageEstimator: row {row} of a batch {list(steps.shape)} does not end, and row {row + 1} has "
                    f"another {key}: expected the steps of one env in order, or [n_envs, T]; call it before the batch "
                    "is flattened"
                )

    def _check_value(self, tensordict: TensorDictBase, unrolled: TensorDictBase) -> None:
        """Raise ``UserError`` unless the critic wrote one value per agent."""
        key, n_agents = self.keys.state_value, tensordict.get(next_key(self.keys.reward)).shape[-2]
        value, name = unrolled.get(key, None), type(self.critic).__name__
        expected = (*tensordict.shape, n_agents, 1)
        if value is None or value.shape != expected:
            found = f"it writes {list(self.critic.out_keys)}" if value is None else f"found {list(value.shape)}"
            raise UserError(
                f"AdvantageEstimator: the critic {name} of group {self.keys.group!r}: expected {key} "
                f"{list(expected)}, one value per agent, {found}; value_critic(...) makes such critics"
            )

    def _first_hidden(self, critic: RecurrentModule, batch: TensorDictBase) -> Tensor:
        """The critic's hidden state before the batch, repeated along time: the critic reads only the first step's."""
        if batch.ndim != 2:
            raise UserError(f"AdvantageEstimator: a recurrent critic reads [n_envs, T], found {list(batch.shape)}")
        is_init = batch.get(IS_INIT)
        n_envs, length = batch.shape
        shape = (n_envs, *critic.hidden_shape)
        if self.critic_hidden is None:
            self.critic_hidden = torch.zeros(shape)
        if self.critic_hidden.shape != shape:
            raise UserError(
                f"AdvantageEstimator: the batch has {n_envs} envs, the critic's hidden state has "
                f"{len(self.critic_hidden)}: feed batches of the same envs in order"
            )
        # A checkpoint is read onto the CPU, and Module.to does not move this state.
        first = self.critic_hidden.to(is_init.device).masked_fill(is_init[:, 0].unsqueeze(-1), 0)
        return first.unsqueeze(1).expand(n_envs, length, *shape[1:])

    def get_extra_state(self) -> dict[str, Tensor | None]:
        return {"critic_hidden": self.critic_hidden}

    def set_extra_state(self, state: dict[str, Tensor | None]) -> None:
        self.critic_hidden = state["critic_hidden"]


def _check_time_is_last(tensordict: TensorDictBase) -> None:
    names = tensordict.names
    if "time" in names[:-1]:
        raise UserError(
            f"AdvantageEstimator: the dimensions of a batch {list(tensordict.shape)} are named {names}: expected time "
            "last, [n_envs, T]; transpose it"
        )
