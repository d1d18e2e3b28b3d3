"""What learns in turn in HAPPO: the policy of one agent, and the group's critic."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor, nn
from torchrl.modules import set_recurrent_mode

from ctde_kit.entry_tables import Entry
from ctde_kit.objectives.entry_checks import EntryCheck, parameter_dtype
from ctde_kit.objectives.mappo_loss import MAPPOLoss
from ctde_kit.specs import GroupSpec


class AgentLearner(nn.Module):
    """The policy loss of one agent of a ``HAPPOLoss``; ``HAPPOLoss.for_agent`` makes it.

    Its parameters are the agent's own, and on the same storage as those of the group's policy. It reads what ``select``
    makes of the group's batch: the entries of this agent, each with an agent axis of size 1.

    Args:
        whole: the group's loss.
        group: the group's spec.
        agent: the agent's index in the group.
        actor: the policy of a group of this agent alone.
    """

    _whole: MAPPOLoss

    def __init__(self, whole: MAPPOLoss, group: GroupSpec, agent: int, actor: ProbabilisticTensorDictSequential):
        super().__init__()
        # Kept out of the module tree: the other agents' parameters are not this one's.
        self.__dict__["_whole"] = whole
        self.group, self.agent, self.actor_network = group, agent, actor
        name = f"{type(whole).__name__}, agent {agent}"
        self._check_entries = EntryCheck(name, whole.policy_entries(actor), whole.tensor_keys.padding_mask)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What it reads of a batch: each batch is checked against this table."""
        return self._check_entries.entries

    def select(self, batch: TensorDictBase) -> TensorDict:
        """What it reads of a batch of the whole group."""
        own, axis = TensorDict({}, batch.shape, batch.device), batch.ndim
        for entry in self.entries:
            value = batch.get(entry.key, None)
            if value is not None:
                own.set(entry.key, value.narrow(axis, self.agent, 1) if self._has_agent_axis(entry) else value)
        return own

    def _has_agent_axis(self, entry: Entry) -> bool:
        return entry.group == self.group.name or entry.shape.startswith("*B n_agents")

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        self._check_entries(tensordict, parameter_dtype(self))
        with set_recurrent_mode(True):
            return TensorDict(self._whole.policy_terms(tensordict, self.actor_network))

    @torch.no_grad()
    def log_ratio(self, tensordict: TensorDictBase) -> Tensor:
        """How far the logarithm of its stored actions' probability has moved, ``[*B, 1]``; 0 where it is dead."""
        self._check_entries(tensordict, parameter_dtype(self))
        with set_recurrent_mode(True):
            return self._whole.log_ratio(tensordict, self.actor_network)


class CriticLearner(nn.Module):
    """The value loss of a ``HAPPOLoss``; ``HAPPOLoss.for_critic`` makes it.

    Args:
        whole: the group's loss.
    """

    _whole: MAPPOLoss

    def __init__(self, whole: MAPPOLoss):
        super().__init__()
        self.__dict__["_whole"] = whole
        self.critic_network, self.value_norm = whole.critic_network, whole.value_norm
        name = f"{type(whole).__name__}, critic"
        self._check_entries = EntryCheck(name, whole.value_entries(), whole.tensor_keys.padding_mask)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What it reads of a batch: each batch is checked against this table."""
        return self._check_entries.entries

    def select(self, batch: TensorDictBase) -> TensorDictBase:
        """What it reads of a batch."""
        return batch.select(*(entry.key for entry in self.entries), strict=False)

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        self._check_entries(tensordict, parameter_dtype(self))
        with set_recurrent_mode(True):
            return TensorDict(self._whole.value_terms(tensordict))
