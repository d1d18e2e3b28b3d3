"""QMIX's loss: double Q-learning of a team whose values are mixed, or of independent agents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from ctde_kit.entry_tables import Entry, GroupEntries
from ctde_kit.errors import check_choice
from ctde_kit.keys import CHOSEN_ACTION_VALUE, PADDING_MASK, PRIORITY_WEIGHT, TD_ERROR
from ctde_kit.objectives.central_value import CentralValue, central_name
from ctde_kit.objectives.entry_checks import parameter_dtype
from ctde_kit.objectives.masking import masked_mean
from ctde_kit.objectives.module_loss import ModuleLoss, target_copy
from ctde_kit.objectives.part_checks import check_mixer, check_q_actors
from ctde_kit.objectives.priorities import importance_weight, write_priority
from ctde_kit.objectives.q_values import (
    QActor,
    agent_entries,
    at_next,
    chosen_values,
    stored_choice,
    team_value,
    write_values,
    written_keys,
)
from ctde_kit.objectives.read_entries import (
    now_and_next,
    replay_entries,
    stored_keys,
    team_flags,
    team_reward,
)
from ctde_kit.objectives.return_estimators import NStepReturn, ReturnEstimator
from ctde_kit.objectives.td_targets import td_targets, team_td_targets
from ctde_kit.objectives.team_reward import REWARD
from ctde_kit.objectives.unroll import check_sequences, hidden_key, next_outputs, unroll
from ctde_kit.objectives.value_loss import VALUE_LOSSES, ValueLoss
from ctde_kit.objectives.value_targets import ValueTargets
from ctde_kit.protocols import RewardScale


class QMixLoss(ModuleLoss):
    """Double Q-learning on the team's mixed value, or on each agent's own where there is no mixer.

    Rashid et al. 2018, "QMIX", eq. 6, with double Q-learning (van Hasselt et al. 2016): the online
    networks choose the best allowed next actions, the target networks value them, and the target mixer mixes the
    values. VDN, QPLEX and IQL are the same loss with another mixer or none.

    Reads transitions ``[B]`` or sequences ``[*B, T]``. Of every group it reads what its actor reads, at the root and
    under ``next``; ``action`` ``[*B, T, n_agents]`` (or one-hot); and ``action_mask`` and ``mask`` where the group has
    them. It reads what the mixer and the central value read, at the root and under ``next``; the team's ``done`` and
    ``terminated`` under ``next`` and, without a mixer or where agents die, also the agents' own if the env writes them;
    and ``("next", "reward")`` ``[*B, T, 1]``, as ``TeamReward`` writes it, or without a mixer each agent's reward.
    Where they are present, it also reads ``("collector", "mask")`` bool ``[*B, T]``, false where a sequence is padded;
    ``is_init`` bool ``[*B, T, 1]``, true where an episode begins; and ``priority_weight``, the importance weight of
    each item. Flags and rewards of padded steps and entries of dead agents change nothing.

    Writes ``td_error`` into the batch, for prioritized replay: for a transition the mean of the agents' (or the team's)
    absolute error; for a sequence, in every step, 0.9 times the largest of these and 0.1 times their mean (Kapturowski
    et al. 2019, section 2.3). Gives the scalar ``loss_qvalue`` and, detached, ``td_error``, ``chosen_action_value`` and
    ``target_value``, which are means over valid entries.

    The target's state is ``("next", "state")``; next values of recurrent networks come from one batched step after an
    unroll of each network. The first ``burn_in`` steps only warm the hidden state up: they give no gradient and are in
    no mean. An agent that is gone after the step is not in the target's mix; the team bootstraps unless the root
    ``terminated`` says that nothing follows.

    Beyond TorchRL's ``QMixerLoss`` it has double Q-learning, masked and multi-step targets, several groups and
    sequences. It holds modules as they are, with copies of them as target networks, which ``PolyakUpdate`` or
    ``HardUpdate`` moves.

    Args:
        actors: of every group.
        mixer: writes ``chosen_action_value`` ``[*B, 1]`` at the root; with ``None`` every agent learns by itself (IQL).
        gamma: discount per step.
        returns: which returns are the targets, TD(0) by default.
        value_loss: ``huber`` (with ``huber_delta``) or ``l2`` (half the squared error).
        huber_delta: the error at which Huber's loss turns linear, in units of returns.
        burn_in: steps at the start of a sequence that only warm the hidden state up.
        use_stored_hidden: recurrent networks start a sequence from the stored hidden state; else from zero.
        use_target_networks: target networks value the next actions; else the online networks do, as in PQN (Gallici et
            al. 2025).
        reward_norm: gives the rewards in the units that are learned; ``None``: as the env gave them.
        central: Weighted QMIX's central value, which gives the targets, learns them by ``loss_central``, and weighs the
            errors of the mixed value; ``weight`` is their mean weight.

    Raises:
        UserError: for a missing entry, entries that would broadcast over agents, single steps where sequences are
            needed, or a central value that does not fit.

    >>> from ctde_kit.envs.games import MatrixGameEnv
    >>> from ctde_kit.modules import MultiAgentMLP, MultiAgentQActor, VDNMixer, own_observation
    >>> from ctde_kit.objectives import QMixLoss, TeamReward
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
    reward_norm: RewardScale | None
    returns_advice = "gamma=..., returns=NStepReturn(n) or TDLambdaReturn(lmbda) say which returns the loss estimates"
    default_keys = _AcceptedKeys
    out_keys: list[NestedKey] = ["loss_qvalue", "td_error", "chosen_action_value", "target_value"]  # noqa: RUF012

    def __init__(
        self,
        actors: Mapping[str, QActor],
        mixer: TensorDictModuleBase | None = None,
        *,
        gamma: float,
        returns: ReturnEstimator | None = None,
        value_loss: ValueLoss = "huber",
        huber_delta: float = 1.0,
        burn_in: int = 0,
        use_stored_hidden: bool = True,
        use_target_networks: bool = True,
        reward_norm: RewardScale | None = None,
        central: CentralValue | None = None,
    ):
        super().__init__()
        check_q_actors(actors)
        check_mixer("QMixLoss", mixer)
        if central is not None:
            central.check_fits(actors, mixer, use_target_networks)
            self.out_keys = [*self.out_keys, "loss_central", "weight"]
        self.central: CentralValue | None = central
        self.actors, self.mixer = nn.ModuleDict(cast("dict[str, nn.Module]", dict(actors))), mixer
        self.gamma, self.returns = gamma, returns or NStepReturn()
        self.value_loss: ValueLoss = check_choice("QMixLoss", "value_loss", value_loss, VALUE_LOSSES)
        self.huber_delta = huber_delta
        self.burn_in, self.use_stored_hidden = burn_in, use_stored_hidden
        self.reward_norm = reward_norm
        targets = target_copy(self.online_networks()) if use_target_networks else None
        self.target_networks: nn.ModuleDict | None = targets
        self.set_keys()

    def online_networks(self) -> nn.ModuleDict:
        """The networks whose targets ``target_networks`` has, by the same names: those of the value that bootstraps."""
        if self.central is not None:
            parts = {**self.central.of_groups(), "mixer": self.central.mixer}
            return nn.ModuleDict({central_name(name): part for name, part in parts.items()})
        networks = nn.ModuleDict({f"actor_{name}": actor.agent_network for name, actor in self._actors.items()})
        if self.mixer is not None:
            networks["mixer"] = self.mixer
        return networks

    @property
    def _actors(self) -> dict[str, QActor]:
        return cast("dict[str, QActor]", dict(self.actors.items()))

    def _table(self) -> list[Entry]:
        keys, actors, mixer = self.tensor_keys, self._actors.values(), self.mixer
        groups = [actor.group for actor in actors]
        entries = team_flags()
        for actor in actors:
            entries += agent_entries(actor, groups)
            entries += [GroupEntries.of(actor.group).reward] if mixer is None else []
            entries += GroupEntries.of(actor.group).ends if mixer is None or actor.group.mask else []
        if mixer is not None:
            written = [key for group in groups for key in written_keys(group)]
            central = [] if self.central is None else [*self.central.of_groups().values(), self.central.mixer]
            for part in (mixer, *central):
                entries += now_and_next(part, groups, written)
            entries.append(team_reward(keys.reward))
        return [*entries, *replay_entries(keys.padding_mask, keys.priority_weight)]

    @property
    def stored_keys(self) -> list[NestedKey]:
        """What a replay must keep: ``in_keys``, and the flags that not all envs write."""
        return stored_keys(self.in_keys, [actor.group for actor in self._actors.values()])

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        self._check_entries(tensordict, parameter_dtype(self))
        networks = [actor.agent_network for actor in self._actors.values()]
        check_sequences("QMixLoss", tensordict, networks, self.returns.needs_sequences, self.burn_in)
        data = tensordict.unsqueeze(-1) if tensordict.ndim == 1 else tensordict
        steps = data[..., self.burn_in :] if self.burn_in else data
        unrolled = {
            name: unroll(actor.agent_network, data, self.burn_in, self.use_stored_hidden)
            for name, actor in self._actors.items()
        }
        current = self._chosen(steps, unrolled)
        with torch.no_grad():
            target_unrolled = self._target_unrolled(data)
            following = self._next_chosen(steps, unrolled, target_unrolled)
        targets = self._targets(steps, current, following)
        weight = importance_weight(tensordict, self.tensor_keys.priority_weight, self.burn_in)
        losses = self._losses(data, current, target_unrolled, targets, weight)
        with torch.no_grad():
            write_priority(tensordict, targets.delta.abs(), targets.mask, self.tensor_keys.priority)
            metrics = targets.metrics(CHOSEN_ACTION_VALUE)
        return TensorDict({**losses, **metrics})

    def _losses(
        self,
        data: TensorDictBase,
        current: TensorDictBase,
        target_unrolled: Mapping[str, TensorDictBase],
        targets: ValueTargets,
        weight: Tensor | float,
    ) -> dict[str, Tensor]:
        """The loss of the value that chooses and, with a central value, that one's and the mean weight of errors."""
        if self.central is None or self.target_networks is None:
            return {"loss_qvalue": targets.loss(weight, self.value_loss, self.huber_delta)}
        mixed = self.tensor_keys.chosen_action_value
        value = self.central.learned(self._actors, data, current, mixed)
        learned = ValueTargets(value, targets.target, targets.mask)
        weights = self.central.weights(self._actors, self.target_networks, target_unrolled, current, targets, mixed)
        return {
            "loss_qvalue": targets.loss(weight * weights, self.value_loss, self.huber_delta),
            "loss_central": learned.loss(weight, self.value_loss, self.huber_delta),
            "weight": masked_mean(weights, targets.mask),
        }

    def _target_of(self, part: str) -> TensorDictModuleBase | None:
        """The target network of a group's network or of the mixer; ``None`` where the online one is used."""
        if self.target_networks is None:
            return None
        own = part if part == "mixer" else f"actor_{part}"
        return cast(TensorDictModuleBase, self.target_networks[own if self.central is None else central_name(part)])

    def _chosen(self, steps: TensorDictBase, unrolled: Mapping[str, TensorDictBase]) -> TensorDictBase:
        """``steps`` with the online networks' values of the stored actions."""
        current = steps.copy()
        for name, actor in self._actors.items():
            values = unrolled[name].get(actor.group.keys.action_value)
            write_values(actor, current, values, stored_choice(actor, steps, self.tensor_keys.padding_mask))
        return current

    def _target_unrolled(self, data: TensorDictBase) -> dict[str, TensorDictBase]:
        """What each group's target network writes along ``data`` after the burn-in, where anything reads it.

        The next values of recurrent networks start from these hidden states; a central value may weigh by these values.
        """
        # The stored hidden state is the actor's.
        stored = self.use_stored_hidden and self.central is None
        weighs = self.central is not None and self.central.weighs_by_target_networks
        networks = {name: self._target_of(name) for name in self._actors}
        return {
            name: unroll(network, data, self.burn_in, stored)
            for name, network in networks.items()
            if network is not None and (weighs or hidden_key(network))
        }

    def _next_chosen(
        self,
        steps: TensorDictBase,
        unrolled: Mapping[str, TensorDictBase],
        target_unrolled: Mapping[str, TensorDictBase],
    ) -> TensorDictBase:
        """The entries under ``next`` with the target networks' values of the online networks' best actions."""
        following = at_next([actor.group for actor in self._actors.values()], steps)
        for name, actor in self._actors.items():
            key = actor.group.keys.action_value
            values = next_outputs(actor.agent_network, steps, unrolled[name]).get(key)
            index = actor.greedy(following.set(key, values))
            network = self._target_of(name)
            if network is not None:
                values = next_outputs(network, steps, target_unrolled.get(name, steps)).get(key)
            write_values(actor, following, values, index)
        return following

    def _targets(self, steps: TensorDictBase, current: TensorDictBase, following: TensorDictBase) -> ValueTargets:
        """Values and targets of the team, or without a mixer of all groups' agents side by side."""
        keys, returns = self.tensor_keys, partial(self.returns, self.gamma)
        if self.reward_norm is not None:
            agent_rewards = [actor.group.keys.reward for actor in self._actors.values()]
            steps = self.reward_norm.normalize(steps, read=agent_rewards if self.mixer is None else [keys.reward])
        if self.mixer is None:
            values, next_values = (chosen_values(self._actors, entries) for entries in (current, following))
            groups = [actor.group for actor in self._actors.values()]
            targets = td_targets(returns, groups, steps, values, next_values, padding_mask=keys.padding_mask)
            return ValueTargets.concatenate(targets.values())
        value = team_value(self.mixer, current, keys.chosen_action_value)
        with torch.no_grad():
            next_value = team_value(self._target_of("mixer") or self.mixer, following, keys.chosen_action_value)
        return team_td_targets(returns, steps, value, next_value, reward=keys.reward, padding_mask=keys.padding_mask)
