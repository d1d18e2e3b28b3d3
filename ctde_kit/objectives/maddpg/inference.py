"""Each agent's beliefs about the other agents' policies (MADDPG): their loss, and the joint actions they predict."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from ctde_kit.entries import required_entry
from ctde_kit.errors import UserError
from ctde_kit.objectives.maddpg.joint_actions import DeterministicActor, own_rows, zero_dead
from ctde_kit.shards import mean_of_all
from ctde_kit.specs import GroupSpec


class PolicyInference(nn.Module):
    """Fits each agent's beliefs about the others' policies to their stored actions (Lowe et al. 2017, section 4.2).

    A belief's loss is minus the log-likelihood of the other agent's action, minus ``entropy_coeff`` times the belief's
    entropy. Discrete beliefs are categorical; continuous ones are Gaussians of the stated ``deviation`` around the
    squashed output, whose entropy is constant. Actors squash and mask the beliefs' outputs as they do their own. Agents
    have no beliefs about themselves.

    Args:
        networks: ``(tensordict, observer, other) -> [*B, n_observers, n_others, D]``, such as ``InferredPolicies``;
            ``observer`` and ``other`` are names of groups, which may be the same one.
        entropy_coeff: weight of the entropy.
        deviation: the standard deviation of Gaussian beliefs, in units of the action.

    Raises:
        UserError: for a deviation that is not above 0.

    >>> import ctde_kit as ck
    >>> from ctde_kit.objectives import PolicyInference
    >>> env = ck.VmasEnv("navigation", num_envs=2)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.vector_dim, group.n_agents)
    >>> actors = {"agents": ck.MultiAgentDeterministicActor(group, ck.own_observation(group), network)}
    >>> critics = {"agents": ck.action_value_critic(team, group, ck.MultiAgentMLP)}
    >>> inference = PolicyInference(ck.modules.InferredPolicies(team, ck.MultiAgentMLP))
    >>> loss = ck.MADDPGLoss(actors, critics, gamma=0.9, inference=inference)
    >>> loss(env.rollout(3, actors["agents"]))["loss_inference"].shape
    torch.Size([])
    """

    def __init__(self, networks: nn.Module, *, entropy_coeff: float = 1e-3, deviation: float = 0.1):
        super().__init__()
        if deviation <= 0:
            raise UserError(f"PolicyInference: deviation={deviation}: expected a number above 0")
        self.networks, self.entropy_coeff, self.deviation = networks, entropy_coeff, deviation

    def forward(
        self,
        actors: Mapping[str, DeterministicActor],
        steps: TensorDictBase,
        policies: Mapping[str, TensorDictBase],
        masks: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The loss and the divergence KL(policy, belief), as means over all steps and valid pairs of agents.

        Args:
            actors: of every group.
            steps: ``[*B, T]``, with ``(group, "action_vector")``.
            policies: of each group, its actor's network output and its action mask.
            masks: of each group, its ``valid_mask``, bool ``[*B, T, n_agents, 1]``.
        """
        losses, divergences, counts = [], [], []
        for observer in actors:
            for other, actor in actors.items():
                output = self.networks(steps, observer, other)
                vector = steps.get(actor.group.keys.action_vector).unsqueeze(-3)
                minus_likelihood, entropy = self._fit(actor, steps, output, vector)
                divergence = self._divergence(actor, policies[other], steps, output)
                pairs = _valid_pairs(masks[observer], masks[other], observer == other)
                losses.append((minus_likelihood - self.entropy_coeff * entropy).masked_fill(~pairs, 0).sum())
                divergences.append(divergence.detach().masked_fill(~pairs, 0).sum())
                counts.append(pairs.sum())
        count = torch.stack(counts).sum()
        return mean_of_all(torch.stack(losses).sum(), count), mean_of_all(torch.stack(divergences).sum(), count)

    def rows(
        self,
        actors: Mapping[str, DeterministicActor],
        tensordict: TensorDictBase,
        observer: GroupSpec,
        own_action: Tensor,
    ) -> dict[str, Tensor]:
        """What each observer believes each group's action to be, ``[*B, n_observers, n_others, D]`` by group.

        Each observer's own action is taken from ``own_action`` ``[*B, n_observers, D]``. Reads observations and, where
        groups have them, action masks and masks of living agents.
        """
        rows = {}
        for name, actor in actors.items():
            keys, group = actor.group.keys, actor.group
            beliefs = self._greedy(actor, tensordict, self.networks(tensordict, observer.name, name))
            if group.mask:
                beliefs = zero_dead(beliefs, tensordict.get(keys.mask).unsqueeze(-2))
            rows[name] = own_rows(beliefs, own_action) if name == observer.name else beliefs
        return rows

    @staticmethod
    def _greedy(actor: DeterministicActor, tensordict: TensorDictBase, output: Tensor) -> Tensor:
        """Beliefs ``[*B, n_observers, n_others, D]`` as actions: the best choice, or the squashed output."""
        belief = TensorDict({actor.output_key: output}, tensordict.batch_size)
        if actor.group.action_mask:
            belief.set(actor.group.keys.action_mask, _mask(actor, tensordict).unsqueeze(-3))
        return actor.greedy_vector(belief)

    def _fit(
        self, actor: DeterministicActor, steps: TensorDictBase, output: Tensor, vector: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Minus the log-likelihood of the stored action, and the entropy, ``[*B, T, n_observers, n_others, 1]``."""
        if not actor.group.action.discrete:
            square = ((vector - self._greedy(actor, steps, output)) / self.deviation).square()
            likelihood = -0.5 * square.sum(-1, keepdim=True)
            return -likelihood, torch.zeros_like(likelihood)
        log_probs = _log_probs(actor, steps, output)
        return -(vector * log_probs).sum(-1, keepdim=True), -(log_probs.exp() * log_probs).sum(-1, keepdim=True)

    @torch.no_grad()
    def _divergence(
        self, actor: DeterministicActor, policy: TensorDictBase, steps: TensorDictBase, output: Tensor
    ) -> Tensor:
        """KL(policy, belief) ``[*B, T, n_observers, n_others, 1]``."""
        if not actor.group.action.discrete:
            difference = actor.greedy_vector(policy).unsqueeze(-3) - self._greedy(actor, steps, output)
            return 0.5 * (difference / self.deviation).square().sum(-1, keepdim=True)
        log_probs = _log_probs(actor, steps, policy.get(actor.output_key).unsqueeze(-3))
        return (log_probs.exp() * (log_probs - _log_probs(actor, steps, output))).sum(-1, keepdim=True)


def _valid_pairs(observers: Tensor, others: Tensor, same_group: bool) -> Tensor:
    """Which pairs are two different agents that are both valid, bool ``[*B, T, n_observers, n_others, 1]``."""
    pairs = observers.unsqueeze(-2) & others.unsqueeze(-3)
    if same_group:
        pairs = pairs & ~torch.eye(others.shape[-2], dtype=torch.bool, device=others.device).unsqueeze(-1)
    return pairs


def _mask(actor: DeterministicActor, tensordict: TensorDictBase) -> Tensor:
    return required_entry(tensordict, actor.group.keys.action_mask, "the env must write it")


def _log_probs(actor: DeterministicActor, steps: TensorDictBase, logits: Tensor) -> Tensor:
    """Log-probabilities of all choices, ``[*B, T, n_observers, n_others, D]``; hugely negative where forbidden."""
    if actor.group.action_mask:
        logits = logits.masked_fill(~_mask(actor, steps).unsqueeze(-3), torch.finfo(logits.dtype).min)
    return torch.cat([part.log_softmax(-1) for part in logits.split(list(actor.group.action.sizes), -1)], -1)
