"""Decentralized stochastic policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from tensordict import TensorDictBase
from tensordict.nn import NormalParamExtractor, TensorDictModuleBase, TensorDictSequential
from tensordict.utils import NestedKey
from torch import nn
from torchrl.envs import TensorDictPrimer
from torchrl.modules import ProbabilisticActor

from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys, Key
from ctde_kit.modules.actors.distributions import MaskedCategorical, MaskedMultiCategorical, TanhNormal
from ctde_kit.modules.networks.inputs import Input
from ctde_kit.modules.networks.agent_network import AgentNetwork, actor_hidden_key
from ctde_kit.modules.actors.learned_scale import LearnedScale
from ctde_kit.modules.communication.team_channel import TeamInput
from ctde_kit.specs import GroupSpec


class MultiAgentActor(ProbabilisticActor):
    """A TorchRL ``ProbabilisticActor`` for one group of agents.

    Reads ``inputs`` (and the action mask, where the group has one), writes the distribution's parameters,
    ``(group, "action")`` and ``(group, "action_log_prob")`` ``[*B, n_agents]``. Continuous actions are a
    ``TanhNormal``, discrete ones a masked categorical. TorchRL's ``set_exploration_type`` chooses between
    sampling and the greedy action.

    Args:
        group: the group's spec.
        inputs: what each agent sees, usually ``own_observation(group)``.
        network: ``[*B, n_agents, F] -> [*B, n_agents, group.action.n_parameters]``, or ``[..., D]`` with ``scale``.
        scale: the deviation of continuous actions as a parameter of its own; ``None``: the network gives location and
            deviation (through softplus).

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import MultiAgentMLP, own_observation
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("navigation", num_envs=4)
    >>> group = TeamSpec.from_env(env)["agents"]
    >>> inputs = own_observation(group)
    >>> network = MultiAgentMLP(inputs.features, group.action.n_parameters, group.n_agents)
    >>> actor = MultiAgentActor(group, inputs, network)
    >>> actor(env.reset())["agents", "action"].shape
    torch.Size([4, 4, 2])
    """

    def __init__(
        self, group: GroupSpec, inputs: Input | TeamInput, network: nn.Module, scale: LearnedScale | None = None
    ):
        keys = group.keys
        if group.action.discrete and scale is not None:
            raise UserError(f"MultiAgentActor: group {group.name!r} has discrete actions; leave scale=None")
        if group.action.discrete:
            module = AgentNetwork(inputs, network, [keys.logits], hidden_key=actor_hidden_key(keys, inputs))
        else:
            split = scale
            if split is None:
                # It asks for a `numbers.Number`, which a float is when run but not for a type checker.
                split = NormalParamExtractor(scale_lb=1e-3)  # pyright: ignore[reportArgumentType]
            module = AgentNetwork(
                inputs, network, [keys.loc, keys.scale], hidden_key=actor_hidden_key(keys, inputs), split=split
            )
        self._assemble(group, module, group.action.low, group.action.high)

    def _assemble(self, group: GroupSpec, module: AgentNetwork, low: tuple, high: tuple) -> None:
        keys = group.keys
        distribution, arguments, in_keys = _distribution(group, keys, low, high)
        # TorchRL takes any TensorDict module, and a dict of keys, though its annotations do not say so.
        super().__init__(
            module,  # pyright: ignore[reportArgumentType]
            in_keys=in_keys,  # pyright: ignore[reportArgumentType]
            out_keys=[keys.action],
            distribution_class=distribution,
            distribution_kwargs=arguments,
            return_log_prob=True,
            log_prob_keys=[keys.action_log_prob],
        )
        self.group = group

    @property
    def agent_network(self) -> AgentNetwork:
        network = self.module[0]
        assert isinstance(network, AgentNetwork)
        return network

    @property
    def decentralized(self) -> bool:
        """Whether an agent needs only its own data to act."""
        return self.agent_network.decentralized

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The env transform that provides the hidden state of a recurrent actor."""
        return self.agent_network.make_tensordict_primer()

    def for_agent(self, agent: int) -> SingleAgentActor:
        """The policy of one agent alone, on the same storage: ``(group, "observation")`` ``[*B, F]`` in, action out.

        Raises:
            UserError: for an index that the group lacks, or a policy that is not decentralized.
        """
        self.group.check_agent(agent)
        return SingleAgentActor(self, agent)


class SingleAgentActor(TensorDictModuleBase):
    """Slice ``agent`` of a multi-agent actor: every entry without the agent axis.

    A recurrent one reads and writes its hidden state ``[*B, 1, H]``.
    """

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, actor: MultiAgentActor, agent: int):
        super().__init__()
        action = actor.group.action
        joint = MultiAgentActor.__new__(MultiAgentActor)
        joint._assemble(
            actor.group,
            actor.agent_network.for_agent(agent),
            action.low[agent : agent + 1],
            action.high[agent : agent + 1],
        )
        self.actor = joint
        self.in_keys = joint.in_keys
        self._written = [key for key in joint.agent_network.out_keys if str(key[-1]).endswith("_hidden")]
        self.out_keys = [*self._written, actor.group.keys.action, actor.group.keys.action_log_prob]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        keys = self.actor.group.keys
        output = tensordict.copy()
        mask = tensordict.get(keys.action_mask, None)
        if mask is not None:
            output.set(keys.action_mask, mask.unsqueeze(-2))
        output = self.actor(output)
        for key in (keys.action, keys.action_log_prob):
            tensordict.set(key, output.get(key).squeeze(tensordict.ndim))
        for key in self._written:
            tensordict.set(key, output.get(key))
        return tensordict


def _distribution(group: GroupSpec, keys: GroupKeys, low: tuple, high: tuple) -> tuple[type, dict, dict[str, Key]]:
    action = group.action
    if not action.discrete:
        bounds = {"low": torch.tensor(low), "high": torch.tensor(high)}
        return TanhNormal, bounds, {"loc": keys.loc, "scale": keys.scale}
    in_keys: dict[str, Key] = {"logits": keys.logits}
    if group.action_mask:
        in_keys["mask"] = keys.action_mask
    if action.kind == "multi_discrete":
        return MaskedMultiCategorical, {"sizes": action.sizes}, in_keys
    return MaskedCategorical, {"one_hot": action.kind == "one_hot"}, in_keys


class GroupActor(Protocol):
    """What a team's policy uses of each group's actor."""

    @property
    def group(self) -> GroupSpec:
        """Whose actions it writes."""
        ...

    @property
    def in_keys(self) -> Any:
        """What it reads; an actor that reads ``group.keys.hidden("actor")`` has ``make_tensordict_primer()``."""
        ...

    @property
    def decentralized(self) -> bool:
        """Whether an agent needs only its own data to act."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """None where it does not learn."""
        ...

    def for_agent(self, agent: int, /) -> TensorDictModuleBase:
        """The policy of one agent alone."""
        ...


class TeamPolicy(TensorDictSequential):
    """The policies of all groups, one after the other, as one TensorDict module.

    A group's policy may be one that learns (``MultiAgentActor``, ``MultiAgentQActor``), one that is frozen
    (``FrozenActor``) or one that is scripted (``RandomActor``, ``GreedyChase``, a class of your own): only those in
    ``learners`` belong into losses and optimizers.

    Args:
        actors: by group, in the env's order.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import GreedyChase, MultiAgentMLP, own_observation
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("simple_tag", num_envs=4)
    >>> team = TeamSpec.from_env(env)
    >>> prey = MultiAgentActor(team["agent"], own_observation(team["agent"]), MultiAgentMLP(14, 4, n_agents=1))
    >>> policy = TeamPolicy({"adversary": GreedyChase(team["adversary"]), "agent": prey})
    >>> list(policy.learners)
    ['agent']
    """

    def __init__(self, actors: Mapping[str, GroupActor]):
        super().__init__([*actors.values()])  # pyright: ignore[reportCallIssue, reportArgumentType]
        self.groups = list(actors)

    @property
    def actors(self) -> dict[str, GroupActor]:
        # `module` is a ModuleList, whose elements have no type of their own.
        return dict(zip(self.groups, self.module, strict=True))  # pyright: ignore[reportReturnType]

    @property
    def learners(self) -> dict[str, GroupActor]:
        """The policies of the groups that learn: those with a parameter that asks for a gradient."""
        return {
            group: actor
            for group, actor in self.actors.items()
            if any(parameter.requires_grad for parameter in actor.parameters())
        }

    @property
    def decentralized(self) -> bool:
        """Whether every agent needs only its own data to act."""
        return all(actor.decentralized for actor in self.actors.values())

    def for_agent(self, group: str, agent: int) -> TensorDictModuleBase:
        """The policy of one agent of one group."""
        return self.actors[group].for_agent(agent)
