"""A copy of one group's policy that does not learn."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Self

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torchrl.envs import TensorDictPrimer
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.entry_tables import Entry
from ctde_kit.modules.networks.inputs import Input
from ctde_kit.protocols import DeclaresEntries, GroupActor, ProvidesPrimer
from ctde_kit.specs import GroupSpec

GREEDY = ExplorationType("deterministic")  # by its value: the attribute is declared as text


class FrozenActor(TensorDictModuleBase):
    """A copy of one group's actor that does not learn, such as an opponent in a ``TeamPolicy``.

    It always acts with its own exploration type, whatever the collector sets, and in evaluation mode. Reads and writes
    what the actor does, including the hidden state ``[*B, n_agents, H]`` of a recurrent one. A latent that the actor's
    own team shared while it trained is at its mean: the root's latent is that of those who learn.

    Args:
        actor: the policy of one group; it is copied, so the original may continue to learn.
        exploration: how it acts: greedily (``ExplorationType.DETERMINISTIC``), or by sampling (``RANDOM``).

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import FrozenActor, MultiAgentActor, MultiAgentMLP, own_observation
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("simple_tag", num_envs=4)
    >>> group = TeamSpec.from_env(env)["agent"]
    >>> inputs = own_observation(group)
    >>> actor = MultiAgentActor(group, inputs, MultiAgentMLP(inputs.features, 4, n_agents=1))
    >>> frozen = FrozenActor(actor)
    >>> any(parameter.requires_grad for parameter in frozen.parameters())
    False
    """

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, actor: TensorDictModuleBase, exploration: ExplorationType = GREEDY):
        super().__init__()
        self.actor = deepcopy(actor).requires_grad_(False).eval()
        self.exploration = exploration
        for part in self.actor.modules():
            if isinstance(part, Input):
                part.uses_mean_latent = True
        self.in_keys, self.out_keys = list(self.actor.in_keys), list(self.actor.out_keys)

    @property
    def group_actor(self) -> GroupActor:
        """The copied actor of the group; there is none where the copy is of one agent's policy."""
        assert isinstance(self.actor, GroupActor)
        return self.actor

    @property
    def group(self) -> GroupSpec:
        return self.group_actor.group

    @property
    def in_entries(self) -> Sequence[Entry]:
        """The shapes and dtypes of the entries that it reads."""
        return self.actor.in_entries if isinstance(self.actor, DeclaresEntries) else ()

    @property
    def decentralized(self) -> bool:
        """Whether an agent needs only its own data to act."""
        return self.group_actor.decentralized

    def train(self, mode: bool = True) -> Self:
        """The actor stays in evaluation mode, whatever the team does."""
        super().train(mode)
        self.actor.eval()
        return self

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        with set_exploration_type(self.exploration):
            return self.actor(tensordict)

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The env transform that provides the hidden state of a recurrent actor."""
        assert isinstance(self.actor, ProvidesPrimer)
        return self.actor.make_tensordict_primer()

    def for_agent(self, agent: int) -> TensorDictModuleBase:
        """The policy of one agent alone, with the same exploration type."""
        return FrozenActor(self.group_actor.for_agent(agent), self.exploration)
