"""MASAC's loss: stochastic actors with an entropy bonus, and critics of joint actions; ISAC is a variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from ctde_kit.entry_tables import Entry
from ctde_kit.errors import check_choice
from ctde_kit.keys import LATENT, NEXT, next_key
from ctde_kit.objectives.maddpg.batch_entries import entries_of_parts
from ctde_kit.objectives.maddpg.compatibility import OTHER_ACTIONS, OtherActions
from ctde_kit.objectives.maddpg.joint_action_loss import JointActionLoss, smaller
from ctde_kit.objectives.maddpg.joint_actions import Opponent, frozen
from ctde_kit.objectives.maddpg.next_values import inputs_at_next, with_next_actions
from ctde_kit.objectives.maddpg.own_agents import computing_own_agents
from ctde_kit.objectives.maddpg.policy_losses import critic_inputs
from ctde_kit.objectives.masac.group_policy import (
    StochasticActor,
    alive_at_next,
    current_policies,
    next_policies,
    policy_metrics,
    samples,
    with_current_actions,
)
from ctde_kit.objectives.masac.mutual_information import MutualInformation, check_read_latent
from ctde_kit.objectives.masac.own_actions import OwnActions
from ctde_kit.objectives.masac.temperature import Temperature
from ctde_kit.objectives.masking import masked_mean
from ctde_kit.objectives.module_loss import target_copy
from ctde_kit.objectives.part_checks import (
    check_critics_of_actions,
    check_groups,
    check_learners,
    check_twin_critics,
)
from ctde_kit.objectives.read_entries import replay_entries
from ctde_kit.objectives.return_estimators import ReturnEstimator
from ctde_kit.objectives.unroll import next_inputs, single_steps
from ctde_kit.objectives.value_loss import ValueLoss
from ctde_kit.protocols import LearnsDistribution, RewardScale
from ctde_kit.specs import GroupSpec


class MASACLoss(JointActionLoss):
    """Actor, critic and temperature losses of multi-agent soft actor-critic, and of ISAC (decentralized critics).

    Haarnoja et al. 2018, "Soft Actor-Critic", for each agent with a critic of the joint action, as in ``MADDPGLoss``:
    critic i learns ``r_i + gamma E[min Q_i'(s', a') - alpha log pi_i(a_i'|o_i')]``; the minimum is over the target
    critic and its twin, and next actions are those of the current policies: there are no target actors. Actor i
    minimizes ``E[alpha log pi_i(a_i|o_i) - min Q_i(s, a)]`` by its own action; the others' actions are the stored ones,
    or those of their current policies. The expectation over an agent's own continuous actions is one reparameterized
    sample. Over discrete ones it is exact (Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings"): the
    critic values every choice of each agent; the others' next actions are sampled. Each group has a temperature alpha
    (``Temperature``).

    Reads what ``MADDPGLoss`` reads without a mixer and without sub-policies: what actors and critics read, ``action``
    as it was executed, and under ``next`` each agent's ``reward`` and the ``done`` and ``terminated`` of team and
    agents; where they are present, ``action_mask``, ``mask``, ``("collector", "mask")``, ``is_init`` and
    ``priority_weight``. Where actors share a latent, it reads the stored ``latent`` and draws the next one. It makes
    ``(group, "action_vector")`` for the critics and writes ``td_error`` into the batch. Gives the scalars
    ``loss_actor``, ``loss_qvalue`` and, if the temperature is learned, ``loss_alpha``; and, detached, ``alpha``,
    ``entropy``, ``td_error``, ``state_action_value`` and ``target_value``; with ``mutual_information`` also
    ``loss_prediction`` and, detached, the bound ``mutual_information``. Losses are means over
    agents and steps, summed over groups, and ``loss_qvalue`` also over first and second critics; the detached scalars
    are means over groups, too. With several groups it also gives each group's own metrics as ``{group}/...``.
    Entropies are in nats; continuous actions are measured in units of half their range. Entries of padded steps and of
    dead agents change nothing. Episode ends, hidden states and opponents are treated as in ``MADDPGLoss``.

    Differs from TorchRL's ``SACLoss`` and ``DiscreteSACLoss``, which with a joint actor move every agent by every
    agent's value. Also, log-probabilities of continuous actions are computed from the samples before squashing, and
    critics of discrete actions take the actions as inputs.

    Args:
        actors: of every group. An actor without a critic is an opponent, as in ``MADDPGLoss``.
        critics: of the groups that learn; each writes ``(group, "state_action_value")`` ``[*B, n_agents, 1]``.
        twin_critics: second critics of the same groups, with parameters of their own; ``None``: each group has a single
            critic.
        gamma: discount per step.
        other_actions: which actions the other agents take in agent i's actor loss: the stored ones (``replay``), or
            those of their ``current`` policies, detached.
        alpha_init: the initial temperature, above 0.
        fixed_alpha: keep the temperature at ``alpha_init`` instead of learning it.
        share_alpha: one temperature for all agents of a group; else one per agent.
        target_entropy: the entropy of one agent's policy that the temperature aims at, in nats. ``None``: minus the
            number of dimensions of its continuous action, or ``target_entropy_weight`` times the logarithm of the
            number of its allowed discrete choices.
        target_entropy_weight: the target as a share of the largest possible entropy, for discrete actions.
        returns: which returns are the critics' targets, TD(0) by default. Longer returns contain the entropy bonus of
            their last step alone.
        team_weight: the share of the group's mean in each agent's reward, from 0 (its own reward alone) to 1.
        value_loss: the critics' loss: ``l2`` (half the squared error) or ``huber`` (with ``huber_delta``).
        huber_delta: the error at which Huber's loss turns linear, in units of returns.
        burn_in: steps at the start of a sequence that only warm hidden states up.
        use_stored_hidden: recurrent actors start a sequence from the stored hidden state; else from zero.
        mutual_information: adds a bound of the mutual information between agents' actions to the values; ``None``:
            nothing.
        reward_norm: gives the rewards in the units that are learned; ``None``: as the env gave them.

    Raises:
        UserError: for a missing entry, entries that would broadcast over agents, single steps where sequences are
            needed, parts that do not fit together, or an ``alpha_init`` that is not above 0.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=5)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, group.n_agents)
    >>> actor = ck.MultiAgentActor(group, ck.own_observation(group), network)
    >>> critics, twins = ({"agents": ck.action_value_critic(team, group, ck.MultiAgentMLP)} for _ in range(2))
    >>> loss = ck.objectives.MASACLoss({"agents": actor}, critics, twins, gamma=0.9)
    >>> loss(env.rollout(2, actor))["loss_alpha"].shape
    torch.Size([])
    """

    def __init__(
        self,
        actors: Mapping[str, StochasticActor | Opponent],
        critics: Mapping[str, TensorDictModuleBase],
        twin_critics: Mapping[str, TensorDictModuleBase] | None = None,
        *,
        gamma: float,
        other_actions: OtherActions = "replay",
        alpha_init: float = 0.05,
        fixed_alpha: bool = False,
        share_alpha: bool = True,
        target_entropy: float | None = None,
        target_entropy_weight: float = 0.98,
        returns: ReturnEstimator | None = None,
        team_weight: float = 0.0,
        value_loss: ValueLoss = "l2",
        huber_delta: float = 1.0,
        burn_in: int = 0,
        use_stored_hidden: bool = True,
        reward_norm: RewardScale | None = None,
        mutual_information: MutualInformation | None = None,
    ):
        check_groups("MASACLoss", "actors", actors, "MultiAgentActor")
        check_learners("MASACLoss", actors, critics, LearnsDistribution, "a MultiAgentActor")
        check_critics_of_actions("MASACLoss", critics)
        check_twin_critics("MASACLoss", critics, twin_critics)
        super().__init__(
            actors,
            critics,
            twin_critics,
            gamma=gamma,
            returns=returns,
            team_weight=team_weight,
            value_loss=value_loss,
            huber_delta=huber_delta,
            burn_in=burn_in,
            use_stored_hidden=use_stored_hidden,
            reward_norm=reward_norm,
        )
        self.other_actions: OtherActions = check_choice("MASACLoss", "other_actions", other_actions, OTHER_ACTIONS)
        self.temperatures = nn.ModuleDict(
            {
                name: Temperature(
                    self._groups[name],
                    initial=alpha_init,
                    learned=not fixed_alpha,
                    shared=share_alpha,
                    target_entropy=target_entropy,
                    target_entropy_weight=target_entropy_weight,
                    device=next(critic.parameters()).device,
                )
                for name, critic in self._critics.items()
            }
        )
        self.fixed_alpha, self.mutual_information = fixed_alpha, mutual_information
        self._reads_latent = any(LATENT in actor.agent_network.in_keys for actor in self._learners.values())
        if mutual_information is not None:
            check_read_latent(self._learners)
        self.target_networks = target_copy(self.online_networks())
        self.set_keys()

    def online_networks(self) -> nn.ModuleDict:
        """The critics; ``target_networks`` has their targets by the same names."""
        return nn.ModuleDict(self._critic_networks())

    @property
    def _learners(self) -> dict[str, StochasticActor]:
        return {name: cast(StochasticActor, self._actors[name]) for name in self._critics}

    @property
    def out_keys(self) -> list[NestedKey]:
        names = ["alpha", "entropy", "td_error", "state_action_value", "target_value"]
        names += ["mutual_information"] * (self.mutual_information is not None)
        losses = ["loss_actor", "loss_qvalue", *["loss_alpha"] * (not self.fixed_alpha)]
        losses += ["loss_prediction"] * (self.mutual_information is not None)
        per_group = [f"{group}/{name}" for group in self._critics for name in names] if len(self._critics) > 1 else []
        return [*losses, *names, *per_group]

    def _table(self) -> list[Entry]:
        keys, critics = self.tensor_keys, [*self._critics.values(), *self._twins.values()]
        entries = entries_of_parts(self._actors, self._critics, critics)
        return [*entries, *replay_entries(keys.padding_mask, keys.priority_weight)]

    @property
    def groups_by_agent(self) -> dict[str, GroupSpec]:
        return super().groups_by_agent if self.mutual_information is None else {}

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        with computing_own_agents(self._networks_of_own_agents()):
            return self._losses(tensordict)

    def _losses(self, tensordict: TensorDictBase) -> TensorDict:
        unrolled = self._unrolled(tensordict)
        steps, outputs, values, twins = unrolled.steps, unrolled.outputs, unrolled.values, unrolled.twin_values
        targets = self._own_targets(steps, self._values(values), self._soft_next_values(unrolled.data, steps, outputs))
        loss_qvalue, metrics = self._critics_loss(tensordict, targets, self._values(twins))

        current = self.other_actions == "current"
        draws = current or self.mutual_information is not None
        policies = current_policies(self._learners, steps, outputs, draws=draws)
        inputs = with_current_actions(policies, steps) if current else steps
        own, losses = {name: policy.own for name, policy in policies.items()}, {}
        valid = {name: self._valid_mask(steps, self._groups[name]) for name in own}
        bounds: dict[str, Tensor] = {}
        if (information := self.mutual_information) is not None:
            networks = {name: policy.actor.agent_network for name, policy in policies.items()}
            reads = {name: critic_inputs(network, steps, outputs[name]) for name, network in networks.items()}
            acting = information.acting(policies, reads, valid)
            bounds, losses["loss_prediction"] = information(steps, acting), information.loss(steps, acting)
        losses |= {"loss_actor": self._policy_loss(inputs, own, bounds, values, twins), "loss_qvalue": loss_qvalue}
        if not self.fixed_alpha:
            losses["loss_alpha"] = self._alpha_loss(steps, own)
        alpha = {name: self.temperatures[name]().mean() for name in own}
        return TensorDict({**losses, **policy_metrics(alpha, own, bounds, valid), **metrics})

    @torch.no_grad()
    def _soft_next_values(
        self, data: TensorDictBase, steps: TensorDictBase, outputs: Mapping[str, TensorDictBase]
    ) -> dict[str, Tensor]:
        """``E[min Q'(s', a') - alpha log pi(a'|o')]`` for each agent, ``[*B, T, n_agents, 1]`` by group.

        Policies act under a latent of their own there. With mutual information, its bounds are added.
        """
        if self._reads_latent:
            steps = steps.copy().set(next_key(LATENT), torch.randn_like(steps.get(LATENT)))
        policies = next_policies(self._learners, steps, outputs)
        following = with_next_actions(self._actors, samples(policies), steps)
        first, second = (
            {
                name: self._next_values_of(critic, name, policies[name].own, data, following)
                for name, critic in self._targets_of(kind).items()
            }
            for kind in ("critic", "twin_critic")
        )
        values = smaller(first, second)
        if (information := self.mutual_information) is not None:
            networks = {name: policy.actor.agent_network for name, policy in policies.items()}
            reads = {name: next_inputs(network, steps, outputs[name]) for name, network in networks.items()}
            bounds = information(
                following.get(NEXT), information.acting(policies, reads, alive_at_next(policies, following))
            )
            values = {name: value + information.weight * bounds[name] for name, value in values.items()}
        return {
            name: policies[name].own.mean(value - self.temperatures[name]() * policies[name].own.log_prob)
            for name, value in values.items()
        }

    def _next_values_of(
        self, critic: TensorDictModuleBase, name: str, own: OwnActions, data: TensorDictBase, following: TensorDictBase
    ) -> Tensor:
        """A target critic's values ``[K, *B, T, n_agents, 1]`` of each agent's own next actions, given the others'."""
        group = self._groups[name]
        inputs = inputs_at_next(critic, data, following, self.burn_in)
        if not group.action.discrete:  # the joint action is the sample that was drawn
            return single_steps(critic, inputs).get(group.keys.state_action_value).unsqueeze(0)
        alive = following.get(next_key(group.keys.mask)) if group.mask else None
        return own.values(critic, group.keys, inputs, alive)

    def _policy_loss(
        self,
        steps: TensorDictBase,
        own: Mapping[str, OwnActions],
        bounds: Mapping[str, Tensor],
        values: Mapping[str, TensorDictBase],
        twin_values: Mapping[str, TensorDictBase],
    ) -> Tensor:
        """The mean of ``alpha log pi(a|o) - min Q(s, a)``, summed over groups.

        ``bounds`` of the mutual information are added to the values, by group. ``values`` and ``twin_values`` are read
        for the critics' hidden states.
        """
        losses = []
        for name, actions in own.items():
            keys, alive = self._groups[name].keys, steps.get(self._groups[name].keys.mask, None)
            parts = [(self._critics[name], values[name])]
            parts += [(critic, twin_values[name]) for group, critic in self._twins.items() if group == name]
            with frozen(*(critic for critic, _ in parts)):
                valued = [
                    actions.values(critic, keys, critic_inputs(critic, steps, written), alive)
                    for critic, written in parts
                ]
            value = torch.stack(valued).amin(0)
            if self.mutual_information is not None:
                value = value + self.mutual_information.weight * bounds[name]
            loss = actions.mean(self.temperatures[name]() * actions.log_prob - value)
            losses.append(masked_mean(loss, self._valid_mask(steps, self._groups[name])))
        return torch.stack(losses).sum()

    def _alpha_loss(self, steps: TensorDictBase, own: Mapping[str, OwnActions]) -> Tensor:
        losses = []
        for name, actions in own.items():
            group, temperature = self._groups[name], cast(Temperature, self.temperatures[name])
            allowed = steps.get(group.keys.action_mask) if group.action_mask else None
            losses.append(temperature.loss(actions.entropy, allowed, self._valid_mask(steps, group)))
        return torch.stack(losses).sum()
