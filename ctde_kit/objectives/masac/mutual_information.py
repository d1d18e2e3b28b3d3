"""Mutual information between agents' actions: a lower bound of it, and how the bound's predictors learn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import NormalParamExtractor
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.keys import LATENT
from ctde_kit.objectives.maddpg.joint_actions import frozen
from ctde_kit.objectives.masac.group_policy import GroupPolicy, StochasticActor
from ctde_kit.objectives.masac.own_actions import OwnActions, log_number_of_choices, log_prob_of
from ctde_kit.objectives.unroll import single_steps
from ctde_kit.shards import mean_of_all
from ctde_kit.specs import GroupSpec

# Of predictors' Gaussians, before squashing. One surprise of a nearly certain prediction would outweigh all rewards.
SMALLEST_DEVIATION = 0.05
# For the same reason, the share of a uniform choice among the allowed ones in predictors' probabilities.
UNIFORM_SHARE = 0.02
# The logarithm that stands for that of an impossible action, whose true one, minus infinity, has no gradient.
LOWEST = -1e30


@dataclass(frozen=True)
class Drawn:
    """Actions as vectors, and before squashing where they are squashed (``OwnActions.unsquashed``), same shape."""

    vector: Tensor
    unsquashed: Tensor | None

    def unsqueeze(self, dim: int) -> Drawn:
        """The same with one more axis of size 1."""
        unsquashed = None if self.unsquashed is None else self.unsquashed.unsqueeze(dim)
        return Drawn(self.vector.unsqueeze(dim), unsquashed)


@dataclass(frozen=True)
class ActingGroup:
    """One group's policy along a batch, under the latent that it acts with and under others.

    Args:
        actor: of the group.
        own: the actions over which the expectation of an agent's policy is taken, under the latent it acts with.
        sample: one action of each agent under that latent, a vector ``[*B, T, n_agents, D]`` without a gradient.
        parameters: its network's outputs ``[M, *B, T]`` under M latents, the first being the one that it acts with.
        valid: which agents are alive in which valid steps, bool ``[*B, T, n_agents, 1]``.
    """

    actor: StochasticActor
    own: OwnActions
    sample: Tensor
    parameters: TensorDictBase
    valid: Tensor

    @property
    def drawn(self) -> Drawn:
        """The actions that were drawn, without a gradient."""
        unsquashed = self.own.unsquashed
        return Drawn(self.sample, None if unsquashed is None else unsquashed[0].detach())

    def log_prob(self, actions: Drawn) -> Tensor:
        """Of actions ``[K, *B, T, n_agents, D]``, whatever the latent: the mean of their probabilities under all M."""
        dist, many = self.actor.build_dist_from_params(self.parameters), actions.unsqueeze(1)
        each = log_prob_of(dist, self.actor.group.action, many.vector, many.unsquashed).clamp(min=LOWEST)
        return each.logsumexp(1) - math.log(each.shape[1])


class MutualInformation(nn.Module):
    """Rewards each agent for the mutual information between its action and every other agent's.

    Kim et al. 2020, "A Maximum Mutual Information Framework for Multi-Agent Reinforcement Learning" (VM3-AC). Policies
    read a latent z that the team shares while it trains, so that actions depend on each other although each agent acts
    by itself. For each pair of agents, I(a_i; a_j|s) is at least ``H(a_i|s) + E[log q(a_i|a_j, s)]``, with equality
    where q is exact; the bound here is the mean of this and of the same with i and j exchanged. ``MASACLoss`` adds
    ``weight`` times the sum of an agent's bounds to its next value, and to the value that its actor climbs.

    H(a_i|s) is that of the policy whatever the latent. It is estimated from below, by the mean probability of the
    action under ``latent_samples`` other latents and the one that it was drawn with (Yin and Zhou 2018, "Semi-Implicit
    Variational Inference"): the result is a lower bound for any number, and can reach log(1 + ``latent_samples``) nats.
    With 0 it is the entropy given the latent, whose bound is never above 0.

    Of choices, q is 0.98 times a predictor's probability plus 0.02 over the number of choices that are allowed, so that
    no surprise outweighs all rewards; this costs the bound at most 0.02 nats.

    Predictors q learn by maximum likelihood from current policies' actions in replayed states. Pairs with a dead agent
    count nothing.

    Args:
        predictors: ``(tensordict, given, predicted, action) -> [*K, *B, n_given, n_predicted, P]``, such as
            ``ActionPredictors``; groups are given by name.
        weight: of the bound, in units of reward per nat.
        latent_samples: other latents in the estimate of H(a_i|s).

    Raises:
        UserError: for a weight or a number below 0.

    >>> import ctde_kit as ck
    >>> from ctde_kit.modules import ActionPredictors, TeamLatent
    >>> from ctde_kit.objectives import MASACLoss, MutualInformation
    >>> env = ck.VmasEnv("navigation", num_envs=5)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> inputs = ck.own_observation(group, latent_dim=2)
    >>> network = ck.MultiAgentMLP(inputs.features, group.action.n_parameters, group.n_agents)
    >>> policy = ck.TeamPolicy({"agents": ck.MultiAgentActor(group, inputs, network)}, TeamLatent(2))
    >>> critics = {"agents": ck.action_value_critic(team, group, ck.MultiAgentMLP)}
    >>> information = MutualInformation(ActionPredictors(team, ck.MultiAgentMLP), weight=0.1)
    >>> loss = MASACLoss(policy.actors, critics, gamma=0.9, mutual_information=information)
    >>> batch = ck.RolloutCollector(env, policy, frames_per_batch=10).rollout()
    >>> loss(batch)["mutual_information"].shape
    torch.Size([])
    """

    def __init__(self, predictors: nn.Module, *, weight: float, latent_samples: int = 8):
        super().__init__()
        if weight < 0 or latent_samples < 0:
            name, value = ("weight", weight) if weight < 0 else ("latent_samples", latent_samples)
            raise UserError(f"MutualInformation: {name}={value}: expected 0 or more")
        self.predictors, self.weight, self.latent_samples = predictors, weight, latent_samples
        self.split = NormalParamExtractor(scale_lb=SMALLEST_DEVIATION)  # pyright: ignore[reportArgumentType]  # a float is a Number

    def acting(
        self, policies: Mapping[str, GroupPolicy], inputs: Mapping[str, TensorDictBase], valid: Mapping[str, Tensor]
    ) -> dict[str, ActingGroup]:
        """The policies under ``latent_samples`` other latents, too, by group.

        Args:
            policies: under the latent that they act with, with samples.
            inputs: what each network reads at each step, ``[*B, T]``, hidden states included.
            valid: which agents are alive in which valid steps, bool ``[*B, T, n_agents, 1]``.
        """
        return {name: self._acting(policy, inputs[name], valid[name]) for name, policy in policies.items()}

    def _acting(self, policy: GroupPolicy, inputs: TensorDictBase, valid: Tensor) -> ActingGroup:
        assert policy.sample is not None
        count, own = self.latent_samples, policy.parameters
        latent = inputs.get(LATENT)
        many = inputs.expand(count, *inputs.shape).clone(recurse=False)
        many.set(LATENT, torch.randn(count, *latent.shape, dtype=latent.dtype, device=latent.device))
        written = single_steps(policy.actor.agent_network, many)
        keys = policy.actor.group.keys
        parameters = TensorDict({}, [count + 1, *inputs.shape])
        for key in (keys.logits,) if policy.actor.group.action.discrete else (keys.loc, keys.scale):
            parameters.set(key, torch.cat([own.get(key).unsqueeze(0), written.get(key)]))
        if policy.actor.group.action_mask:
            mask = own.get(keys.action_mask)
            parameters.set(keys.action_mask, mask.expand(count + 1, *mask.shape))
        return ActingGroup(policy.actor, policy.own, policy.sample, parameters, valid)

    def forward(self, tensordict: TensorDictBase, acting: Mapping[str, ActingGroup]) -> dict[str, Tensor]:
        """For each of an agent's own actions the sum of its bounds, ``[K, *B, T, n_agents, 1]`` by group.

        Gradients are those of the agent's own action and policy alone.

        Args:
            tensordict: the observations, ``[*B, T]``.
            acting: of each group.
        """
        with frozen(self.predictors):
            own = {name: Drawn(group.own.vector, group.own.unsquashed) for name, group in acting.items()}
            surprise = {name: -group.log_prob(own[name]) for name, group in acting.items()}
            with torch.no_grad():
                of_sample = {
                    name: -group.log_prob(group.drawn.unsqueeze(0)).squeeze(0) for name, group in acting.items()
                }
            bounds = {name: torch.zeros_like(value) for name, value in surprise.items()}
            for mine, theirs in self._pairs(acting):
                me, them = acting[mine], acting[theirs]
                of_me = self._log_prob(tensordict, them, them.drawn, me, own[mine])
                of_them = self._log_prob(tensordict, me, own[mine], them, them.drawn).transpose(-1, -2)
                bound = surprise[mine].unsqueeze(-2) + of_me + of_sample[theirs].unsqueeze(-1) + of_them
                bounds[mine] = bounds[mine] + 0.5 * bound.masked_fill(~_valid_pairs(them, me), 0).sum(-2)
        # Actions that a mask forbids have the probability 0, and no bound.
        return {
            name: bound.unsqueeze(-1).masked_fill(acting[name].own.probability == 0, 0)
            for name, bound in bounds.items()
        }

    def loss(self, tensordict: TensorDictBase, acting: Mapping[str, ActingGroup]) -> Tensor:
        """Minus the log-likelihood of the sampled actions, the mean over steps and ordered pairs of living agents."""
        losses, counts = [], []
        for given, predicted in self._pairs(acting):
            them, me = acting[given], acting[predicted]
            pairs = _valid_pairs(them, me)
            log_prob = self._log_prob(tensordict, them, them.drawn, me, me.drawn)
            losses.append(-log_prob.masked_fill(~pairs, 0).sum())
            counts.append(pairs.sum())
        return mean_of_all(torch.stack(losses).sum(), torch.stack(counts).sum())

    def _pairs(self, acting: Mapping[str, ActingGroup]) -> Iterator[tuple[str, str]]:
        """All ordered pairs of groups that hold a pair of different agents."""
        for one in acting:
            for other, group in acting.items():
                if one != other or group.actor.group.n_agents > 1:
                    yield one, other

    def _log_prob(
        self, tensordict: TensorDictBase, given: ActingGroup, taken: Drawn, predicted: ActingGroup, actions: Drawn
    ) -> Tensor:
        """log q of the predicted group's ``actions``, given those ``taken``: ``[*K, *B, T, n_given, n_predicted]``.

        Either of both may have leading dimensions ``K``.
        """
        group = predicted.actor.group
        output = self.predictors(tensordict, given.actor.group.name, group.name, taken.vector)
        parameters = TensorDict(self._by_key(group, output), output.shape[:-2])
        if group.action_mask:
            mask = predicted.parameters.get(group.keys.action_mask)[0].unsqueeze(-3)
            parameters.set(group.keys.action_mask, mask.expand(*output.shape[:-2], *mask.shape[-2:]))
        dist = predicted.actor.build_dist_from_params(parameters)
        predicted_actions = actions.unsqueeze(-3)
        scored = log_prob_of(dist, group.action, predicted_actions.vector, predicted_actions.unsquashed).clamp(
            min=LOWEST
        )
        if not group.action.discrete:
            return scored
        allowed = parameters.get(group.keys.action_mask) if group.action_mask else None
        uniform = math.log(UNIFORM_SHARE) - log_number_of_choices(group.action, allowed, scored.dtype)
        return torch.logaddexp(scored + math.log1p(-UNIFORM_SHARE), torch.zeros_like(scored) + uniform)

    def _by_key(self, group: GroupSpec, output: Tensor) -> dict[tuple[str, str], Tensor]:
        if group.action.discrete:
            return {group.keys.logits: output}
        loc, scale = self.split(output)
        return {group.keys.loc: loc, group.keys.scale: scale}


def _valid_pairs(rows: ActingGroup, columns: ActingGroup) -> Tensor:
    """Which pairs are two different agents that are both valid, bool ``[*B, T, n_rows, n_columns]``."""
    pairs = rows.valid & columns.valid.transpose(-1, -2)
    if rows.actor.group.name == columns.actor.group.name:
        pairs = pairs & ~torch.eye(pairs.shape[-1], dtype=torch.bool, device=pairs.device)
    return pairs


def check_read_latent(actors: Mapping[str, StochasticActor]) -> None:
    """Raise ``UserError`` unless all ``actors`` read the latent of their team: else no action tells of another."""
    for name, actor in actors.items():
        if LATENT not in actor.agent_network.in_keys:
            raise UserError(
                f"MASACLoss: mutual_information: the actor of group {name!r} reads no root key {LATENT!r}, so its "
                "actions depend on no other agent's; give it own_observation(group, latent_dim=...)"
            )
