"""COMA's policy loss: each agent's log-probabilities, weighted by its counterfactual advantages."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from tensordict.utils import NestedKey

from ctde_kit.entries import check_same_shape, valid_agents, valid_entry
from ctde_kit.entry_tables import Entry, GroupEntries, as_key, one_per_step
from ctde_kit.errors import UserError
from ctde_kit.keys import PADDING_MASK
from ctde_kit.objectives.coma.counterfactual import (
    check_critic,
    chosen_index,
    counterfactual_advantage,
    critic_entries,
)
from ctde_kit.objectives.entry_checks import parameter_dtype
from ctde_kit.objectives.masking import masked_mean
from ctde_kit.objectives.module_loss import ModuleLoss
from ctde_kit.objectives.part_checks import check_policy
from ctde_kit.objectives.read_entries import entries_read_by
from ctde_kit.objectives.unroll import check_time_axis
from ctde_kit.protocols import GivesProbabilities, HasGroup


class COMAActorLoss(ModuleLoss):
    """COMA's policy loss for one group: ``-mean(log pi(u_i|tau_i) A_i)`` with counterfactual advantages, and entropy.

    Foerster et al. 2018, "Counterfactual Multi-Agent Policy Gradients", eqs. 4 and 7: an agent's advantage is the value
    of what it did, minus the mean value of what its policy would have done while the others do what they did. The mean
    is exact, over all of the agent's actions, and takes nothing away from the gradient's expectation. ``pi`` is the
    actor's distribution, so with an ``EpsilonFloor`` it is the policy that acted. The batch must be fresh: this loss
    has no ratio that would correct for an older policy.

    Reads batches ``[*B]``, and with recurrent actors sequences ``[*B, T]``: what actor and critic read (of actions,
    those in the env's form are enough), the group's ``action_mask`` where it has one, and ``is_init`` at the root where
    the actor is recurrent; and of the group ``action`` ``[*B, n_agents]`` (or one-hot). Where agents die, it reads the
    group's ``mask`` ``[*B, n_agents]``, and where sequences are padded, ``("collector", "mask")`` ``[*B]``: entries of
    dead agents and of padding change nothing. Gives the scalars ``loss_actor`` and ``loss_entropy``, whose sum is to be
    minimized, and, detached, ``entropy`` and ``advantage`` (the mean absolute one).

    Args:
        actor: has ``get_dist``, whose distributions have ``probs``, such as ``MultiAgentActor``; of the same group as
            the critic.
        critic: writes ``(group, "action_value")`` ``[*B, n_agents, A]``, such as ``counterfactual_critic`` makes it. It
            gets no gradient.
        entropy_coeff: weight of the entropy bonus; the paper has none.

    Raises:
        UserError: for a missing entry, entries that would broadcast over agents, a critic of another kind, or single
            steps for recurrent networks.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, continuous_actions=False)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, group.n_agents)
    >>> actor = ck.MultiAgentActor(group, ck.own_observation(group), network)
    >>> critic = ck.modules.counterfactual_critic(team, group, ck.MultiAgentMLP)
    >>> ck.objectives.COMAActorLoss(actor, critic)(env.rollout(5, actor))["loss_actor"].shape
    torch.Size([])
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = ("agents", "action")
        action_value: NestedKey = ("agents", "action_value")
        mask: NestedKey = ("agents", "mask")
        padding_mask: NestedKey = PADDING_MASK

    tensor_keys: _AcceptedKeys
    returns_advice = "it needs no returns: the critic values actions; COMACriticLoss trains it"
    default_keys = _AcceptedKeys
    out_keys: list[NestedKey] = ["loss_actor", "loss_entropy", "entropy", "advantage"]  # noqa: RUF012

    def __init__(
        self,
        actor: ProbabilisticTensorDictSequential,
        critic: TensorDictModuleBase,
        *,
        entropy_coeff: float = 0.0,
    ):
        super().__init__()
        check_policy("COMAActorLoss", actor)
        self.group = check_critic("COMAActorLoss", critic)
        if isinstance(actor, HasGroup) and actor.group.name != self.group.name:
            raise UserError(
                f"COMAActorLoss: expected the critic of the actor's group {actor.group.name!r}, found one of "
                f"{self.group.name!r}; give each group its own"
            )
        self.actor_network, self.critic_network = actor, critic
        self.entropy_coeff = entropy_coeff
        keys = self.group.keys
        self.set_keys(action=keys.action, action_value=keys.action_value, mask=keys.mask)

    def _table(self) -> list[Entry]:
        keys, group = self.tensor_keys, GroupEntries.of(self.group)
        mask = group.mask.at(as_key(keys.mask))
        return [
            *entries_read_by(self.actor_network, [self.group]),
            mask if group.agents_die else mask.if_present(),
            one_per_step(as_key(keys.padding_mask), "bool"),
            replace(group.action, key=as_key(keys.action), mask=mask.key, advice="store the action that was taken"),
            *critic_entries(self.critic_network),
        ]

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        self._check_entries(tensordict, parameter_dtype(self))
        check_time_axis("COMAActorLoss", tensordict, self.in_keys)
        keys = self.tensor_keys
        with torch.no_grad():
            valued = self.critic_network(tensordict.copy())
        alive = valid_agents(valued, keys.mask, keys.padding_mask, keys.action_value)
        action = valid_entry(tensordict, keys.action, alive)
        dist = self.actor_network.get_dist(tensordict.copy())
        if not isinstance(dist, GivesProbabilities):
            raise UserError(
                f"COMAActorLoss: the actor's distribution {type(dist).__name__} has no probs, one per action; give a "
                "MultiAgentActor whose agents pick one of N actions"
            )
        log_prob = dist.log_prob(action)
        with torch.no_grad():
            values = valued.get(keys.action_value)
            advantage = counterfactual_advantage(values, dist.probs, chosen_index(self.group, action))
        check_same_shape(log_prob=log_prob, advantage=advantage)
        # The action that stands for a dead agent's may be forbidden.
        gain = log_prob * advantage if alive is None else log_prob.masked_fill(~alive, 0) * advantage
        entropy = masked_mean(dist.entropy(), alive)
        return TensorDict(
            {
                "loss_actor": -masked_mean(gain, alive),
                "loss_entropy": -self.entropy_coeff * entropy,
                "entropy": entropy.detach(),
                "advantage": masked_mean(advantage.abs(), alive),
            }
        )
