"""The double-Q loss of a mixed team, or of independent agents."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives.common import LossModule

from ctde_kit.keys import (
    CHOSEN_ACTION_VALUE,
    DONE,
    IS_INIT,
    NEXT,
    PADDING_MASK,
    PRIORITY_WEIGHT,
    TD_ERROR,
    TERMINATED,
    next_key,
)
from ctde_kit.objectives.masking import agent_flags, check_same_shape, masked_mean, required_entry
from ctde_kit.objectives.part_checks import check_mixer
from ctde_kit.objectives.priorities import importance_weight, write_priority
from ctde_kit.objectives.q_targets import NStepReturn, ReturnEstimator
from ctde_kit.objectives.q_values import at_next, joint_value, stored_choice, write_values
from ctde_kit.objectives.td_loss import LossFunction, check_loss_function, distance_to_target
from ctde_kit.objectives.team_reward import REWARD
from ctde_kit.objectives.unroll import check_sequences, hidden_key, next_outputs, trace_ends, unroll


class QMixLoss(LossModule):
    """Double Q-learning on the team's mixed value, or on each agent's own where there is no mixer.

    Rashid et al. 2018, "QMIX", eq. 6, with double Q-learning (van Hasselt et al. 2016): the best allowed actions by the
    online networks, valued by the target networks, all agents' together through the target mixer. VDN, QPLEX and IQL
    are the same loss with another mixer or none.

    Reads transitions ``[B]`` or sequences ``[*B, T]``: of every group what its actor reads, at the root and under
    ``next``, ``action`` ``[*B, T, n_agents]`` (or one-hot), where they are ``action_mask`` and ``mask``; what the mixer
    reads, likewise; ``done`` and ``terminated`` under ``next``; with a mixer ``("next", "reward")`` ``[*B, T, 1]``, as
    ``TeamReward`` writes it, else each agent's reward. Where they are: ``("collector", "mask")`` bool ``[*B, T]``,
    false where a sequence is padded, and ``priority_weight``, the importance weight of each item. What stands in padded
    steps' flags and rewards, and in dead agents' entries, matters nowhere. Writes ``td_error`` into what it read, for
    prioritized replay: its absolute value for a transition; for a sequence 0.9 times the largest and 0.1 times the
    mean (Kapturowski et al. 2019, section 2.3), in every step. Gives the scalar ``loss_qvalue`` and, detached,
    ``td_error``, ``chosen_action_value`` and ``target_value``, means over what counts.

    The target's state is ``("next", "state")``; next values of recurrent networks come from one batched step after an
    unroll of each network. The first ``burn_in`` steps only warm the hidden state up: they give no gradient and are in
    no mean. An agent that is gone after the step is not in the target's mix; the team bootstraps unless the root
    ``terminated`` says that nothing follows.

    Differs from TorchRL's ``QMixerLoss``: double Q, masked and multi-step targets, several groups, sequences; modules
    are held as they are, with plain copies as targets, which ``PolyakUpdate`` or ``HardUpdate`` moves.

    Args:
        actors: of every group.
        mixer: writes ``chosen_action_value`` ``[*B, 1]`` at the root; ``None``: every agent learns by itself (IQL).
        gamma: discount a step.
        returns: the targets' form, TD(0) by default.
        loss_function: ``huber`` (with ``huber_delta``) or ``l2`` (half the squared error).
        huber_delta: where Huber's loss turns linear, in units of returns.
        burn_in: steps before the first that is learnt.
        from_stored: recurrent networks start from the stored hidden state; else from zero.
        delay_value: keep target networks; without, the online networks value the target, as in PQN (Gallici et al.
            2025).

    Raises:
        UserError: for a missing entry, entries that would broadcast over agents, or single steps where sequences are
            needed.

    >>> from ctde_kit.envs.games import MatrixGameEnv
    >>> from ctde_kit.modules import MultiAgentMLP, MultiAgentQActor, VDNMixer, own_observation
    >>> from ctde_kit.objectives import TeamReward
    >>> from ctde_kit.specs import TeamSpec
    >>> env = MatrixGameEnv(5, [[11, -30, 0], [-30, 7, 0], [0, 6, 5]])
    >>> team = TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> actor = MultiAgentQActor(group, own_observation(group), MultiAgentMLP(1, 3, n_agents=2))
    >>> loss = QMixLoss({"agents": actor}, VDNMixer(team), gamma=0.99)
    >>> loss(TeamReward(team, "mean")(env.rollout(1, actor)))["loss_qvalue"].shape
    torch.Size([])
    """

    @dataclass
    class _AcceptedKeys:
        reward: NestedKey = REWARD
        chosen_action_value: NestedKey = CHOSEN_ACTION_VALUE
        padding_mask: NestedKey = PADDING_MASK
        priority: NestedKey = TD_ERROR
        priority_weight: NestedKey = PRIORITY_WEIGHT

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    out_keys: list[NestedKey] = ["loss_qvalue", "td_error", "chosen_action_value", "target_value"]  # noqa: RUF012

    def __init__(
        self,
        actors: Mapping[str, Any],
        mixer: TensorDictModuleBase | None = None,
        *,
        gamma: float,
        returns: ReturnEstimator | None = None,
        loss_function: LossFunction = "huber",
        huber_delta: float = 1.0,
        burn_in: int = 0,
        from_stored: bool = True,
        delay_value: bool = True,
    ):
        super().__init__()
        check_loss_function(loss_function)
        check_mixer("QMixLoss", mixer)
        self.actors, self.mixer = nn.ModuleDict(dict(actors)), mixer
        self.gamma, self.returns = gamma, returns or NStepReturn()
        self.loss_function: LossFunction = loss_function
        self.huber_delta = huber_delta
        self.burn_in, self.from_stored = burn_in, from_stored
        # One copy of all, so that what the online networks share their targets share too.
        self.delayed = deepcopy(self.online_networks()).requires_grad_(False) if delay_value else None

    def online_networks(self) -> nn.ModuleDict:
        """The networks that learn, every group's and the mixer; ``delayed`` holds their targets under these names."""
        networks = nn.ModuleDict({f"actor_{name}": actor.agent_network for name, actor in self._groups.items()})
        if self.mixer is not None:
            networks["mixer"] = self.mixer
        return networks

    @property
    def _groups(self) -> dict[str, Any]:
        return dict(self.actors.items())

    @property
    def functional(self) -> bool:
        return False

    def _forward_value_estimator_keys(self, **kwargs: NestedKey) -> None:
        """No value estimator is held: ``returns`` reads no keys."""

    @property
    def in_keys(self) -> list[NestedKey]:
        keys: list[Any] = [(NEXT, DONE), (NEXT, TERMINATED)]
        own: list[Any] = [] if self.mixer is None else list(self.mixer.in_keys)
        for actor in self._groups.values():
            group = actor.group.keys
            masks = [group.action_mask] * actor.group.action_mask + [group.mask] * actor.group.mask
            read = [*actor.agent_network.in_keys, *masks]
            carried = (actor.agent_network.hidden_key, IS_INIT)
            keys += [*read, group.action, *(next_key(key) for key in read if key not in carried)]
            keys += [next_key(group.reward)] if self.mixer is None else []
            written = (group.chosen_action_value, group.max_action_value, group.action)
            own = [key for key in own if key not in written]
        keys += [*own, *map(next_key, own)]
        keys += [] if self.mixer is None else [(NEXT, self.tensor_keys.reward)]
        return list(dict.fromkeys(keys))

    @property
    def stored_keys(self) -> list[NestedKey]:
        """What a replay must keep: what is read, and what is read where it is there."""
        ends = [next_key(key) for a in self._groups.values() for key in (a.group.keys.done, a.group.keys.terminated)]
        return list(dict.fromkeys([*self.in_keys, *ends, IS_INIT]))

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        networks = [actor.agent_network for actor in self._groups.values()]
        check_sequences("QMixLoss", tensordict, networks, self.returns.needs_sequences, self.burn_in)
        data = tensordict.unsqueeze(-1) if tensordict.ndim == 1 else tensordict
        steps = data[..., self.burn_in :] if self.burn_in else data
        unrolled = {
            name: unroll(actor.agent_network, data, self.burn_in, self.from_stored)
            for name, actor in self._groups.items()
        }
        value = self._value(steps, unrolled)
        mask = self._mask(steps, value)
        with torch.no_grad():
            target = self._target(steps, self._next_value(data, steps, unrolled), mask)
        check_same_shape(chosen_action_value=value, target_value=target)
        delta = (value - target).masked_fill(~mask, 0)
        weight = importance_weight(tensordict, self.tensor_keys.priority_weight, self.burn_in)
        distance = distance_to_target(delta, self.loss_function, self.huber_delta)
        loss = (weight * distance).sum() / mask.sum().clamp(min=1)
        with torch.no_grad():
            error = delta.abs()
            write_priority(tensordict, error, mask, self.tensor_keys.priority)
            metrics = {
                "td_error": masked_mean(error, mask),
                "chosen_action_value": masked_mean(value, mask),
                "target_value": masked_mean(target, mask),
            }
        return TensorDict({"loss_qvalue": loss, **metrics})

    def _value(self, steps: TensorDictBase, unrolled: Mapping[str, TensorDictBase]) -> Tensor:
        """The value of what was done."""
        here = steps.copy()
        for name, actor in self._groups.items():
            values = unrolled[name].get(actor.group.keys.action_value)
            write_values(actor, here, values, stored_choice(actor, steps))
        return joint_value(self._groups, self.mixer, here, self.tensor_keys.chosen_action_value)

    def _next_value(
        self, data: TensorDictBase, steps: TensorDictBase, unrolled: Mapping[str, TensorDictBase]
    ) -> Tensor:
        """The target networks' value of the joint action that the online networks would take next."""
        following = at_next([actor.group for actor in self._groups.values()], steps)
        mixer: Any = self.mixer if self.delayed is None else dict(self.delayed.items()).get("mixer")
        for name, actor in self._groups.items():
            key = actor.group.keys.action_value
            values = next_outputs(actor.agent_network, steps, unrolled[name]).get(key)
            index = actor.greedy(following.set(key, values))
            if self.delayed is not None:
                network: Any = self.delayed[f"actor_{name}"]
                past = unroll(network, data, self.burn_in, self.from_stored) if hidden_key(network) else steps
                values = next_outputs(network, steps, past).get(key)
            write_values(actor, following, values, index)
        return joint_value(self._groups, mixer, following, self.tensor_keys.chosen_action_value)

    def _target(self, steps: TensorDictBase, next_value: Tensor, mask: Tensor) -> Tensor:
        if self.mixer is None:
            entries = [self._own_entries(steps, actor) for actor in self._groups.values()]
            reward, done, terminated = (torch.cat(parts, -2) for parts in zip(*entries, strict=True))
        else:
            key = (NEXT, self.tensor_keys.reward)
            reward = required_entry(steps, key, "TeamReward writes the team's").unsqueeze(-2)
            done, terminated = (
                required_entry(steps, (NEXT, flag), "the env must write it, shape [*B, 1]").unsqueeze(-2)
                for flag in (DONE, TERMINATED)
            )
        check_same_shape(next_value=next_value, reward=reward, done=done)
        reward = reward.masked_fill(~mask, 0)
        target = self.returns(self.gamma, next_value, reward, trace_ends(steps, done), terminated)
        return target.masked_fill(~mask, 0)

    def _own_entries(self, steps: TensorDictBase, actor: Any) -> tuple[Tensor, Tensor, Tensor]:
        keys = actor.group.keys
        reward = required_entry(steps, next_key(keys.reward), "the env must write it for each agent")
        return reward, *agent_flags(steps, keys, reward)

    def _mask(self, steps: TensorDictBase, value: Tensor) -> Tensor:
        """What counts, in the shape of ``value``: steps that are not padding and, without a mixer, agents alive."""
        valid = steps.get(self.tensor_keys.padding_mask, None)
        mask = torch.ones_like(value, dtype=torch.bool)
        if valid is not None:
            mask = mask & valid.reshape(*steps.shape, 1, 1)
        if self.mixer is None:
            ones = mask.new_ones(())
            parts = [
                steps.get(a.group.keys.mask) if a.group.mask else ones.expand(*steps.shape, a.group.n_agents)
                for a in self._groups.values()
            ]
            mask = mask & torch.cat(parts, -1).unsqueeze(-1)
        return mask
