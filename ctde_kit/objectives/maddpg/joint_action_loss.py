"""The base of losses whose critics see joint actions: what they hold, and how their critics learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from ctde_kit.errors import check_choice
from ctde_kit.keys import PADDING_MASK, PRIORITY_WEIGHT, TD_ERROR
from ctde_kit.objectives.entry_checks import parameter_dtype
from ctde_kit.objectives.maddpg.batch_entries import with_critic_entries
from ctde_kit.objectives.maddpg.joint_actions import LearningActor, Opponent
from ctde_kit.objectives.module_loss import ModuleLoss
from ctde_kit.objectives.priorities import importance_weight, write_priority
from ctde_kit.objectives.read_entries import stored_keys
from ctde_kit.objectives.return_estimators import NStepReturn, ReturnEstimator
from ctde_kit.objectives.td_targets import td_targets, valid_mask
from ctde_kit.objectives.unroll import check_sequences, unroll
from ctde_kit.objectives.value_loss import VALUE_LOSSES, ValueLoss
from ctde_kit.objectives.value_targets import ValueTargets, joint_metrics
from ctde_kit.protocols import RewardScale
from ctde_kit.specs import GroupSpec

Critics = Mapping[str, TensorDictModuleBase]


@dataclass(frozen=True)
class Unrolled:
    """A batch, and what the networks that learn read and wrote along it.

    Args:
        data: the whole batch ``[*B, burn_in + T]``, with the entries that are added for critics.
        steps: its steps ``[*B, T]`` after the burn-in; all fields below are of these steps, by group.
        outputs: what the actors' networks read and wrote.
        values: what the critics read and wrote.
        twin_values: what the second critics read and wrote; empty without second critics.
    """

    data: TensorDictBase
    steps: TensorDictBase
    outputs: dict[str, TensorDictBase]
    values: dict[str, TensorDictBase]
    twin_values: dict[str, TensorDictBase]


class JointActionLoss(ModuleLoss):
    """The part that ``MADDPGLoss`` and ``MASACLoss`` share: their critics' loss, and what TorchRL asks of a loss.

    Args:
        actors: of every group.
        critics: of the groups that learn.
        twin_critics: second critics of the same groups, or ``None``.
        gamma: discount per step.
        returns: which returns are the targets; ``None`` for TD(0).
        team_weight: the share of the group's mean in each agent's reward.
        value_loss: the critics' loss.
        huber_delta: the error at which Huber's loss turns linear, in units of returns.
        burn_in: steps at the start of a sequence that only warm hidden states up.
        use_stored_hidden: recurrent actors start a sequence from the stored hidden state; else from zero.
        reward_norm: gives the rewards in the units that are learned; ``None``: as the env gave them.
    """

    @dataclass
    class _AcceptedKeys:
        padding_mask: NestedKey = PADDING_MASK
        priority: NestedKey = TD_ERROR
        priority_weight: NestedKey = PRIORITY_WEIGHT

    tensor_keys: _AcceptedKeys
    reward_norm: RewardScale | None
    returns_advice = "gamma=..., returns=NStepReturn(n) or TDLambdaReturn(lmbda) say which returns the loss estimates"
    default_keys = _AcceptedKeys

    def __init__(
        self,
        actors: Mapping[str, LearningActor | Opponent],
        critics: Critics,
        twin_critics: Critics | None,
        *,
        gamma: float,
        returns: ReturnEstimator | None,
        team_weight: float,
        value_loss: ValueLoss,
        huber_delta: float,
        burn_in: int,
        use_stored_hidden: bool,
        reward_norm: RewardScale | None,
    ):
        super().__init__()
        self.actors = nn.ModuleDict(cast("dict[str, nn.Module]", dict(actors)))
        self.critics = nn.ModuleDict(dict(critics))
        self.twin_critics = None if twin_critics is None else nn.ModuleDict(dict(twin_critics))
        self.gamma, self.returns, self.team_weight = gamma, returns or NStepReturn(), team_weight
        self.value_loss: ValueLoss = check_choice(type(self).__name__, "value_loss", value_loss, VALUE_LOSSES)
        self.huber_delta = huber_delta
        self.burn_in, self.use_stored_hidden, self.reward_norm = burn_in, use_stored_hidden, reward_norm

    @property
    def _actors(self) -> dict[str, LearningActor | Opponent]:
        return cast("dict[str, LearningActor | Opponent]", dict(self.actors.items()))

    @property
    def _critics(self) -> dict[str, TensorDictModuleBase]:
        return cast("dict[str, TensorDictModuleBase]", dict(self.critics.items()))

    @property
    def _twins(self) -> dict[str, TensorDictModuleBase]:
        """The second critics; empty where there are none."""
        return cast("dict[str, TensorDictModuleBase]", dict((self.twin_critics or {}).items()))

    @property
    def _groups(self) -> dict[str, GroupSpec]:
        return {name: actor.group for name, actor in self._actors.items()}

    def _critic_networks(self) -> dict[str, nn.Module]:
        """All critics, by the names that their target networks also have."""
        networks: dict[str, nn.Module] = {f"critic_{name}": critic for name, critic in self._critics.items()}
        return networks | {f"twin_critic_{name}": critic for name, critic in self._twins.items()}

    def _targets_of(self, kind: str) -> dict[str, TensorDictModuleBase]:
        """The target networks of one ``kind``, such as ``critic``, by group; empty where there are none."""
        networks = cast("dict[str, TensorDictModuleBase]", dict(self.target_networks.items()))
        return {name: networks[f"{kind}_{name}"] for name in self._critics if f"{kind}_{name}" in networks}

    def critics_by_group(self) -> dict[str, nn.ModuleDict]:
        """By group its critics and their targets, and the mixer, without which they are no value of the team."""
        kinds = ("critic", "twin_critic")
        online = dict(zip(kinds, (self._critics, self._twins), strict=True))
        parts = {name: nn.ModuleDict(self._shared_critic_parts()) for name in self._critics}
        for kind in kinds:
            for prefix, networks in (("", online[kind]), ("target_", self._targets_of(kind))):
                for name, network in networks.items():
                    parts[name][f"{prefix}{kind}"] = network
        return parts

    def _shared_critic_parts(self) -> dict[str, nn.Module]:
        """What turns all groups' critics into one value."""
        return {}

    @property
    def stored_keys(self) -> list[NestedKey]:
        """What a replay must keep: ``in_keys``, and the flags that not all envs write."""
        return stored_keys(self.in_keys, self._groups.values())

    @property
    def groups_by_agent(self) -> dict[str, GroupSpec]:
        """The groups that learn, by name; none where agents learn something together.

        The loss is a sum over their agents, so that learners may share these (``ctde_kit.shards.own_agents``).
        """
        return {name: self._groups[name] for name in self._critics}

    def _networks_of_own_agents(self) -> list[tuple[GroupSpec, nn.Module]]:
        """Those that give nothing for one agent which another agent learns from, and their groups."""
        kinds = [self._critics, self._twins, self._targets_of("critic"), self._targets_of("twin_critic")]
        return [(self._groups[name], critic) for critics in kinds for name, critic in critics.items()]

    def _unrolled(self, tensordict: TensorDictBase) -> Unrolled:
        """Check a batch, and run the actors and critics that learn along it."""
        self._check_entries(tensordict, parameter_dtype(self))
        actors = {name: cast(LearningActor, self._actors[name]).agent_network for name in self._critics}
        networks = [*actors.values(), *self._critics.values()]
        check_sequences(type(self).__name__, tensordict, networks, self.returns.needs_sequences, self.burn_in)
        data = with_critic_entries(self._groups, self._critics, tensordict, self._twins)
        steps = data[..., self.burn_in :] if self.burn_in else data
        outputs = {name: unroll(actor, data, self.burn_in, self.use_stored_hidden) for name, actor in actors.items()}
        values, twin_values = (
            {name: unroll(critic, data, self.burn_in, False) for name, critic in critics.items()}
            for critics in (self._critics, self._twins)
        )
        return Unrolled(data, steps, outputs, values, twin_values)

    def _values(self, unrolled: Mapping[str, TensorDictBase]) -> dict[str, Tensor]:
        """The values ``[*B, T, n_agents, 1]`` that critics wrote, by group."""
        return {name: part.get(self._groups[name].keys.state_action_value) for name, part in unrolled.items()}

    def _own_targets(
        self, steps: TensorDictBase, values: Mapping[str, Tensor], next_values: Mapping[str, Tensor]
    ) -> dict[str, ValueTargets]:
        """Each agent's value and its target, from the agent's own reward, by group."""
        learning = [self._groups[name] for name in values]
        if self.reward_norm is not None:
            steps = self.reward_norm.normalize(steps, read=[group.keys.reward for group in learning])
        returns, padding = partial(self.returns, self.gamma), self.tensor_keys.padding_mask
        return td_targets(
            returns, learning, steps, values, next_values, padding_mask=padding, team_weight=self.team_weight
        )

    def _critics_loss(
        self, tensordict: TensorDictBase, targets: Mapping[str, ValueTargets], twin_values: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of all critics, and the first critics' metrics; writes the first critics' errors as priorities.

        The second critics learn the same targets.
        """
        weight = importance_weight(tensordict, self.tensor_keys.priority_weight, self.burn_in)
        twins = [ValueTargets(value, targets[name].target, targets[name].mask) for name, value in twin_values.items()]
        losses = [part.loss(weight, self.value_loss, self.huber_delta) for part in [*targets.values(), *twins]]
        with torch.no_grad():
            errors, masks = zip(*[(part.delta.abs(), part.mask) for part in targets.values()], strict=True)
            write_priority(tensordict, torch.cat(errors, -2), torch.cat(masks, -2), self.tensor_keys.priority)
            metrics = joint_metrics(targets, "state_action_value")
        return torch.stack(losses).sum(), metrics

    def _valid_mask(self, steps: TensorDictBase, group: GroupSpec | None) -> Tensor:
        return valid_mask(steps, group, self.tensor_keys.padding_mask)


def smaller(values: Mapping[str, Tensor], twin_values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The smaller of both critics' values, by group; the first critic's where there is no second."""
    return {
        name: torch.minimum(value, twin_values[name]) if name in twin_values else value
        for name, value in values.items()
    }
