"""HAPPO's loss: PPO of one agent after the other, each with the ratios of those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.entries import valid_entry
from ctde_kit.entry_tables import Entry, as_key
from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.objectives.happo.learners import AgentLearner, CriticLearner
from ctde_kit.objectives.mappo_loss import MAPPOLoss
from ctde_kit.protocols import SplitsIntoAgents
from ctde_kit.specs import GroupSpec


class HAPPOLoss(MAPPOLoss):
    """HAPPO's loss for one group of agents, each with a policy of its own, that maximize one reward together.

    Agents learn one after the other, in an order that is drawn anew for each batch. The advantage of each is multiplied
    by the product M of the ratios of the agents before it, so that it learns what its change adds to theirs (Kuba et
    al. 2022, "Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning", algorithm 4 and eq. 11):
    agent ``i_m`` maximizes the mean of ``min(r A M, clip(r) A M)``, where r is its own ratio.

    ``for_agent(i)`` is the loss of one agent, whose parameters are on the same storage as those of ``actor``, so that
    each agent can have an optimizer of its own; ``for_critic()`` is the critic's. ``SequentialUpdate`` gives them
    their turns. Called as a whole, it is ``MAPPOLoss`` with these advantages, for all agents at once.

    Reads what ``MAPPOLoss`` reads, and the group's ``log_ratio_product`` ``[*B, n_agents]``, the logarithm of each
    agent's M: ``begin`` writes zeros, and ``pass_on`` adds an agent's ratio for those after it. The ``advantage`` is
    the team's, the same for each agent (``AdvantageEstimator(..., of_team=True)``). The ratio of a dead agent is 1, and
    it learns nothing. The value is the team's: each step in which anyone is alive counts once.

    Args:
        actor: a ``MultiAgentActor`` whose agents share no parameters.
        critic: writes ``state_value``.
        keys: the group's keys; ``None``: those of the actor's group. ``set_keys`` changes single ones, before
            ``for_agent`` and ``for_critic``.
        options: the other arguments of ``MAPPOLoss``.

    Raises:
        UserError: for an actor whose agents share parameters or hear one another, and as ``MAPPOLoss`` does.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("balance", num_envs=2)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, group.n_agents, share_params=False)
    >>> actor = ck.MultiAgentActor(group, ck.own_observation(group), network)
    >>> critic = ck.value_critic(team, group, ck.MultiAgentMLP, heads="one")
    >>> loss = ck.objectives.HAPPOLoss(actor, critic)
    >>> estimator = ck.AdvantageEstimator(critic, group.keys, gamma=0.99, lmbda=0.95, of_team=True)
    >>> batch = loss.begin(estimator(env.rollout(5, actor)))
    >>> learner = loss.for_agent(2)
    >>> learner(learner.select(batch))["loss_objective"].shape
    torch.Size([])
    """

    @dataclass
    class _AcceptedKeys(MAPPOLoss._AcceptedKeys):
        log_ratio_product: NestedKey = ("agents", "log_ratio_product")

    tensor_keys: _AcceptedKeys
    _actors: list[ProbabilisticTensorDictSequential]
    default_keys = _AcceptedKeys

    def __init__(
        self,
        actor: ProbabilisticTensorDictSequential,
        critic: TensorDictModuleBase,
        *,
        keys: GroupKeys | None = None,
        **options: Any,
    ):
        if not isinstance(actor, SplitsIntoAgents):
            raise UserError(
                f"HAPPOLoss: actor is a {type(actor).__name__}, which has no policy per agent: expected a "
                "MultiAgentActor whose network has share_params=False"
            )
        super().__init__(actor, critic, keys=keys, **options)
        if self.shares_actor:
            raise UserError(
                "HAPPOLoss: critic is the actor's own network, which its update would move after the agents' turns; "
                "give a network of its own, such as value_critic(team, group, MultiAgentMLP, heads='one')"
            )
        self.set_keys(log_ratio_product=self._group_keys.log_ratio_product)
        # In a plain list, so not in the module tree: these are other views of the actor's own parameters.
        self._actors = [actor.group_of_one(agent) for agent in range(actor.group.n_agents)]
        self._check_unshared()
        self._addresses = self._found_addresses()

    @property
    def group(self) -> GroupSpec:
        """The group's spec."""
        return self.actor_network.group

    @property
    def n_agents(self) -> int:
        return self.group.n_agents

    def policy_entries(self, actor: ProbabilisticTensorDictSequential) -> list[Entry]:
        key, advice = as_key(self.tensor_keys.log_ratio_product), "HAPPOLoss.begin writes it"
        product = replace(self._group_entries(actor).action_log_prob, key=key, advice=advice)
        return [*super().policy_entries(actor), product]

    def _advantage(self, tensordict: TensorDictBase, alive: Tensor | None) -> Tensor:
        product = valid_entry(tensordict, self.tensor_keys.log_ratio_product, alive).exp()
        return product * super()._advantage(tensordict, alive)

    def _valued(self, tensordict: TensorDictBase) -> Tensor | None:
        living = super()._valued(tensordict)
        # The team has one value: a step counts once, by the entry of its first living agent.
        return None if living is None else living & (living.cumsum(-1) == 1)

    def _value_of(self, value: Tensor) -> Tensor:
        # Of a critic with several heads the team's value is their mean, as `AdvantageEstimator(of_team=True)` has it.
        return value.mean(-2, keepdim=True).expand_as(value)

    def for_agent(self, agent: int) -> AgentLearner:
        """The policy loss of one agent, on the same storage."""
        self.group.check_agent(agent)
        self._share_storage()
        return AgentLearner(self, self.group, agent, self._actors[agent])

    def for_critic(self) -> CriticLearner:
        """The value loss alone."""
        return CriticLearner(self)

    def begin(self, batch: TensorDictBase) -> TensorDictBase:
        """Write the ``log_ratio_product`` of agents before whom no other has learned: 0 everywhere."""
        self._share_storage()
        stored = batch.get(self.tensor_keys.sample_log_prob)
        return batch.set(self.tensor_keys.log_ratio_product, torch.zeros_like(stored))

    def pass_on(self, batch: TensorDictBase, agent: int, later: Sequence[int]) -> None:
        """Multiply the product of the agents ``later`` by the ratio of the one that has just learned from ``batch``."""
        product, learner = batch.get(self.tensor_keys.log_ratio_product), self.for_agent(agent)
        product[..., list(later)] += learner.log_ratio(learner.select(batch))

    def _check_unshared(self) -> None:
        owned = [{parameter.data_ptr() for parameter in actor.parameters()} for actor in self._actors]
        for (first, one), (second, other) in combinations(enumerate(owned), 2):
            if one & other:
                raise UserError(
                    f"HAPPOLoss: agents {first} and {second} of group {self.group.name!r} share parameters: expected "
                    "a policy of its own for each agent; use share_params=False, also of LearnedScale"
                )

    def _found_addresses(self) -> list[int]:
        return [parameter.data_ptr() for parameter in self.actor_network.parameters()]

    def _share_storage(self) -> None:
        """Take the agents' parameters from the group's again, where the latter were moved, such as by ``to``."""
        found = self._found_addresses()
        if found == self._addresses:
            return
        for agent, actor in enumerate(self._actors):
            single = self.actor_network.group_of_one(agent)
            for parameter, moved in zip(actor.parameters(), single.parameters(), strict=True):
                parameter.data = moved.data
        self._addresses = found

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> HAPPOLoss:
        super()._apply(fn)
        for actor in self._actors:
            actor._apply(fn)
        self._share_storage()
        return self
