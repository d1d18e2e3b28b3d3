"""COMA's critic loss: the value of the action that each agent took, toward TD(lambda) targets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import nn

from ctde_kit.entries import check_same_shape, valid_agents, valid_entry
from ctde_kit.entry_tables import Entry, GroupEntries, as_key, one_per_step
from ctde_kit.errors import check_choice
from ctde_kit.keys import PADDING_MASK
from ctde_kit.objectives.coma.counterfactual import check_critic, chosen_index, critic_entries
from ctde_kit.objectives.entry_checks import parameter_dtype
from ctde_kit.objectives.module_loss import ModuleLoss, target_copy
from ctde_kit.objectives.value_loss import VALUE_LOSSES, ValueLoss
from ctde_kit.objectives.value_targets import ValueTargets


class COMACriticLoss(ModuleLoss):
    """COMA's critic loss for one group: the squared error of ``Q(s, u)`` to the targets that ``COMATargets`` wrote.

    Foerster et al. 2018, "Counterfactual Multi-Agent Policy Gradients", eq. 5. The loss makes a copy of the critic,
    ``target_networks``, from which the targets are computed, and which ``HardUpdate`` or ``PolyakUpdate`` moves.
    ``COMAActorLoss`` is the other half of the algorithm; it learns from the critic that this loss has trained.

    Reads batches ``[*B]`` of any shape: what the critic reads (of actions, those in the env's form are enough), and of
    the group ``action`` ``[*B, n_agents]`` (or one-hot) and ``value_target`` ``[*B, n_agents, 1]``. Where agents die,
    it reads the group's ``mask`` ``[*B, n_agents]``, and where sequences are padded, ``("collector", "mask")``
    ``[*B]``: entries of dead agents and of padding change nothing. Gives the scalar ``loss_qvalue`` and, detached,
    ``td_error``, ``chosen_action_value`` and ``target_value``, which are means over living agents.

    Args:
        critic: writes ``(group, "action_value")`` ``[*B, n_agents, A]``, such as ``counterfactual_critic`` makes it.
        value_loss: ``l2`` (half the squared error) or ``huber`` (with ``huber_delta``).
        huber_delta: the error at which Huber's loss turns linear, in units of returns.

    Raises:
        UserError: for a missing entry, entries that would broadcast over agents, or a critic of another kind.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, continuous_actions=False)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> critic = ck.modules.counterfactual_critic(team, group, ck.MultiAgentMLP)
    >>> loss = ck.objectives.COMACriticLoss(critic)
    >>> batch = env.rollout(5)
    >>> batch[group.keys.value_target] = batch["next", "agents", "reward"]  # COMATargets writes real ones
    >>> loss(batch)["loss_qvalue"].shape
    torch.Size([])
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = ("agents", "action")
        value_target: NestedKey = ("agents", "value_target")
        action_value: NestedKey = ("agents", "action_value")
        mask: NestedKey = ("agents", "mask")
        padding_mask: NestedKey = PADDING_MASK

    tensor_keys: _AcceptedKeys
    returns_advice = "ck.objectives.COMATargets(policy, losses, gamma=..., returns=...) writes the targets"
    default_keys = _AcceptedKeys
    out_keys: list[NestedKey] = ["loss_qvalue", "td_error", "chosen_action_value", "target_value"]  # noqa: RUF012

    def __init__(self, critic: TensorDictModuleBase, *, value_loss: ValueLoss = "l2", huber_delta: float = 1.0):
        super().__init__()
        self.group = check_critic("COMACriticLoss", critic)
        self.critic_network = critic
        self.value_loss: ValueLoss = check_choice("COMACriticLoss", "value_loss", value_loss, VALUE_LOSSES)
        self.huber_delta = huber_delta
        self.target_networks = target_copy(self.online_networks())
        keys = self.group.keys
        self.set_keys(
            action=keys.action, value_target=keys.value_target, action_value=keys.action_value, mask=keys.mask
        )

    def online_networks(self) -> nn.ModuleDict:
        """The critic; ``target_networks`` has its copy by the same name."""
        return nn.ModuleDict({"critic": self.critic_network})

    def critics_by_group(self) -> dict[str, nn.ModuleDict]:
        """The critic and its target."""
        return {self.group.name: nn.ModuleDict({"critic": self.critic_network, "target_critic": self.target_critic})}

    @property
    def target_critic(self) -> TensorDictModuleBase:
        """The copy of the critic from which targets are computed."""
        critic = self.target_networks["critic"]
        assert isinstance(critic, TensorDictModuleBase)
        return critic

    def _table(self) -> list[Entry]:
        keys, group = self.tensor_keys, GroupEntries.of(self.group)
        mask = group.mask.at(as_key(keys.mask))
        return [
            mask if group.agents_die else mask.if_present(),
            one_per_step(as_key(keys.padding_mask), "bool"),
            replace(group.action, key=as_key(keys.action), mask=mask.key, advice="store the action that was taken"),
            group.value(as_key(keys.value_target), "COMATargets writes it, or change its key with set_keys"),
            *critic_entries(self.critic_network),
        ]

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        self._check_entries(tensordict, parameter_dtype(self))
        keys = self.tensor_keys
        alive = valid_agents(tensordict, keys.mask, keys.padding_mask, keys.value_target)
        index = chosen_index(self.group, valid_entry(tensordict, keys.action, alive))
        values = self.critic_network(tensordict.copy()).get(keys.action_value)
        value, target = values.gather(-1, index.unsqueeze(-1)), valid_entry(tensordict, keys.value_target, alive)
        check_same_shape(chosen_action_value=value, value_target=target)
        mask = torch.ones_like(target, dtype=torch.bool) if alive is None else alive.unsqueeze(-1)
        targets = ValueTargets(value, target, mask)
        loss = targets.loss(1.0, self.value_loss, self.huber_delta)
        with torch.no_grad():
            metrics = targets.metrics("chosen_action_value")
        return TensorDict({"loss_qvalue": loss, **metrics})
