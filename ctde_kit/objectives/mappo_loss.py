"""MAPPO's loss: PPO of one group of agents, with any critic of states."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from ctde_kit.entries import check_same_shape, required_entry, valid_agents, valid_entry
from ctde_kit.entry_tables import Entry, GroupEntries, as_key, one_per_step
from ctde_kit.errors import UserError, check_choice
from ctde_kit.keys import PADDING_MASK, GroupKeys
from ctde_kit.objectives.entry_checks import parameter_dtype
from ctde_kit.objectives.masking import masked_mean
from ctde_kit.objectives.module_loss import ModuleLoss
from ctde_kit.objectives.orders import order_keys, with_orders
from ctde_kit.objectives.part_checks import check_critic_of_states, check_policy, is_part_of
from ctde_kit.objectives.policy_entropy import entropy_of
from ctde_kit.objectives.read_entries import entries_read_by, keys_of
from ctde_kit.objectives.unroll import check_time_axis
from ctde_kit.objectives.value_loss import VALUE_LOSSES, ValueLoss, distance_to_target
from ctde_kit.protocols import HasGroup, ReturnScale
from ctde_kit.shards import average_of_all

ESTIMATOR_ADVICE = "AdvantageEstimator writes it, or change its key with set_keys"


class MAPPOLoss(ModuleLoss):
    """MAPPO's loss for one group: clipped policy loss, value loss on normalized values, and entropy bonus.

    Unlike TorchRL's ``MAPPOLoss``, the critic's target is normalized and its output is not, so values really are
    learned in normalized units; dead agents are masked; and modules are held as they are, not as functional parameters,
    so that the loss compiles as one graph and shared layers stay shared.

    Yu et al. 2022, "The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games", eqs. 1 and 2 (appendix A),
    with a log-probability, a ratio and an advantage for each agent. IPPO is the same loss with a decentralized critic.

    Reads what actor and critic read, including the group's ``action_mask`` where it has one, and ``is_init`` at the
    root where they are recurrent. Of the group it reads ``action``; ``action_log_prob`` ``[*B, n_agents]``; and, each
    ``[*B, n_agents, 1]``, ``advantage``, ``value_target`` (in units of returns) and ``state_value`` (in the units that
    the critic had when the batch was fresh). Where agents die, it reads the group's ``mask`` ``[*B, n_agents]``, and
    where sequences are padded, ``("collector", "mask")`` ``[*B]``: entries of dead agents and of padding change
    nothing. Gives the scalars ``loss_objective``, ``loss_critic`` and ``loss_entropy``, whose sum is to be minimized,
    and, detached, ``entropy``, ``approx_kl``, ``clip_fraction`` and ``explained_variance``.

    The critic may be the actor's own network: ``agent_network`` of a ``MultiAgentActor`` with ``value_head=True``. Then
    one pass gives distributions and values, and the parameters are the actor's alone.

    Args:
        actor: has ``get_dist``; writes the action.
        critic: writes ``state_value``.
        keys: the group's keys; ``None``: those of the actor's group, or of the one group whose action it writes; else
            TorchRL's ``agents``. ``set_keys`` changes single ones.
        clip_epsilon: the policy loss rewards no ratio that is further than this from 1.
        entropy_coeff: weight of the entropy bonus.
        critic_coeff: weight of the value loss.
        value_loss: ``huber`` (Huber loss with ``huber_delta``) or ``l2`` (half the squared error).
        huber_delta: the error at which Huber's loss turns linear, in the critic's units.
        clip_value: the largest change of a value that the value loss rewards, in the critic's units; ``None`` for no
            limit.
        samples_mc_entropy: samples for the entropy of distributions without a closed form.
        value_norm: normalizes the targets; give ``AdvantageEstimator`` the same object. ``None``: the critic learns in
            units of returns.

    Raises:
        UserError: for clipped values of a critic that sees random orders, a missing entry, entries that would broadcast
            over agents, or single steps for recurrent networks.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, continuous_actions=False)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, group.n_agents)
    >>> actor = ck.MultiAgentActor(group, ck.own_observation(group), network)
    >>> critic = ck.value_critic(team, group, ck.MultiAgentMLP)
    >>> loss = ck.MAPPOLoss(actor, critic)
    >>> estimator = ck.AdvantageEstimator(critic, group.keys, gamma=0.99, lmbda=0.95)
    >>> losses = loss(estimator(env.rollout(5, actor)))
    >>> losses["loss_objective"].shape, losses["clip_fraction"].item()  # no ratio has moved yet
    (torch.Size([]), 0.0)
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = ("agents", "action")
        sample_log_prob: NestedKey = ("agents", "action_log_prob")
        advantage: NestedKey = ("agents", "advantage")
        value_target: NestedKey = ("agents", "value_target")
        value: NestedKey = ("agents", "state_value")
        mask: NestedKey = ("agents", "mask")
        padding_mask: NestedKey = PADDING_MASK

    tensor_keys: _AcceptedKeys
    returns_advice = (
        "ck.AdvantageEstimator(critic, keys, gamma=..., lmbda=...)(batch) or TorchRL's GAE(value_network=...) reads "
        "rewards and flags, and writes advantages and targets"
    )
    critic_network: TensorDictModuleBase
    value_norm: ReturnScale | None
    default_keys = _AcceptedKeys
    out_keys: list[NestedKey] = [  # noqa: RUF012
        "loss_objective",
        "loss_critic",
        "loss_entropy",
        "entropy",
        "approx_kl",
        "clip_fraction",
        "explained_variance",
    ]

    def __init__(
        self,
        actor: ProbabilisticTensorDictSequential,
        critic: TensorDictModuleBase,
        *,
        keys: GroupKeys | None = None,
        clip_epsilon: float = 0.2,
        entropy_coeff: float = 0.01,
        critic_coeff: float = 1.0,
        value_loss: ValueLoss = "huber",
        huber_delta: float = 10.0,
        clip_value: float | None = None,
        samples_mc_entropy: int = 1,
        value_norm: ReturnScale | None = None,
    ):
        super().__init__()
        check_policy(type(self).__name__, actor)
        check_critic_of_states(type(self).__name__, critic)
        if clip_value is not None and order_keys(critic):
            raise UserError(
                f"clip_value={clip_value}: stored values are of a fixed order of agents, but this critic sees "
                "random orders; use clip_value=None"
            )
        self.actor_network, self.value_norm = actor, value_norm
        self.shares_actor = is_part_of(critic, actor)
        self._group_keys = keys = keys or keys_of(actor)
        if self.shares_actor and keys.state_value not in critic.out_keys:
            raise UserError(
                f"{type(self).__name__}: critic is the actor's own network, which writes no value; make the actor with "
                "value_head=True"
            )
        if self.shares_actor:
            # Kept out of the module tree, where its parameters would be clipped and saved twice.
            object.__setattr__(self, "critic_network", critic)
        else:
            self.critic_network = critic
        self.clip_epsilon, self.clip_value = clip_epsilon, clip_value
        self.entropy_coeff, self.critic_coeff = entropy_coeff, critic_coeff
        self.value_loss: ValueLoss = check_choice(type(self).__name__, "value_loss", value_loss, VALUE_LOSSES)
        self.huber_delta = huber_delta
        self.samples_mc_entropy = samples_mc_entropy
        self.set_keys(
            action=keys.action,
            sample_log_prob=keys.action_log_prob,
            advantage=keys.advantage,
            value_target=keys.value_target,
            value=keys.state_value,
            mask=keys.mask,
        )

    def critics_by_group(self) -> dict[str, nn.ModuleDict]:
        """The critic, and the units in which it learns returns; none where it is the actor's own network."""
        if self.shares_actor:
            return {}
        actor = self.actor_network
        parts: dict[str, nn.Module] = {"critic": self.critic_network}
        if isinstance(self.value_norm, nn.Module):
            parts["value_norm"] = self.value_norm
        return {actor.group.name if isinstance(actor, HasGroup) else self._group_keys.group: nn.ModuleDict(parts)}

    def _table(self) -> list[Entry]:
        return [*self.policy_entries(self.actor_network), *self.value_entries()]

    def policy_entries(self, actor: ProbabilisticTensorDictSequential) -> list[Entry]:
        """What ``policy_terms`` reads for this actor."""
        keys, group = self.tensor_keys, self._group_entries(actor)
        mask = group.mask.at(as_key(keys.mask))
        return [
            *entries_read_by(actor, [actor.group] if isinstance(actor, HasGroup) else []),
            *self._masks(group),
            replace(group.action, key=as_key(keys.action), mask=mask.key, advice="store the action that was taken"),
            replace(group.action_log_prob, key=as_key(keys.sample_log_prob), advice="the actor writes it"),
            group.value(as_key(keys.advantage), ESTIMATOR_ADVICE),
        ]

    def value_entries(self) -> list[Entry]:
        """What ``value_terms`` reads."""
        keys, actor = self.tensor_keys, self.actor_network
        group = self._group_entries(actor)
        return [
            *entries_read_by(self.critic_network, [actor.group] if isinstance(actor, HasGroup) else []),
            *self._masks(group),
            *(group.value(as_key(key), ESTIMATOR_ADVICE) for key in (keys.value_target, keys.value)),
        ]

    def _masks(self, group: GroupEntries) -> list[Entry]:
        mask = group.mask.at(as_key(self.tensor_keys.mask))
        padding_mask = one_per_step(as_key(self.tensor_keys.padding_mask), "bool")
        return [mask if group.agents_die else mask.if_present(), padding_mask]

    def _group_entries(self, actor: ProbabilisticTensorDictSequential) -> GroupEntries:
        return GroupEntries.of(actor.group) if isinstance(actor, HasGroup) else GroupEntries(self._group_keys)

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        self._check_entries(tensordict, parameter_dtype(self))
        check_time_axis(type(self).__name__, tensordict, self.in_keys)
        outputs = tensordict.copy().exclude(self.tensor_keys.value, inplace=True)
        terms = self.policy_terms(tensordict, self.actor_network, outputs)
        terms |= self.value_terms(tensordict, outputs if self.shares_actor else None)
        return TensorDict({name: terms[str(name)] for name in self.out_keys})

    def policy_terms(
        self,
        tensordict: TensorDictBase,
        actor: ProbabilisticTensorDictSequential,
        outputs: TensorDictBase | None = None,
    ) -> dict[str, Tensor]:
        """``loss_objective``, ``loss_entropy`` and the policy's metrics, of the group whose policy ``actor`` is.

        ``outputs`` is a copy of ``tensordict``, into which the actor's network writes.
        """
        alive = self._alive(tensordict)
        advantage = self._advantage(tensordict, alive)
        dist, log_ratio = self._dist_and_log_ratio(tensordict, actor, alive, outputs)
        check_same_shape(log_ratio=log_ratio, advantage=advantage)
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - self.clip_epsilon, 1 + self.clip_epsilon)
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        entropy = masked_mean(entropy_of(dist, self.samples_mc_entropy), alive)
        with torch.no_grad():
            approx_kl = masked_mean(ratio - 1 - log_ratio, alive)
            clip_fraction = masked_mean(((ratio - 1).abs() > self.clip_epsilon).to(ratio.dtype), alive)
        return {
            "loss_objective": -masked_mean(gain, alive),
            "loss_entropy": -self.entropy_coeff * entropy,
            "entropy": entropy.detach(),
            "approx_kl": approx_kl,
            "clip_fraction": clip_fraction,
        }

    def log_ratio(self, tensordict: TensorDictBase, actor: ProbabilisticTensorDictSequential) -> Tensor:
        """How far the logarithm of the stored actions' probability has moved, ``[*B, n_agents]``; 0 for the dead."""
        return self._dist_and_log_ratio(tensordict, actor, self._alive(tensordict))[1]

    def _alive(self, tensordict: TensorDictBase) -> Tensor | None:
        """Whose actions count, bool ``[*B, n_agents]``; ``None`` for all."""
        keys = self.tensor_keys
        return valid_agents(tensordict, keys.mask, keys.padding_mask, keys.advantage)

    def _valued(self, tensordict: TensorDictBase) -> Tensor | None:
        """Whose values count, likewise."""
        keys = self.tensor_keys
        return valid_agents(tensordict, keys.mask, keys.padding_mask, keys.value_target)

    def _advantage(self, tensordict: TensorDictBase, alive: Tensor | None) -> Tensor:
        """What each agent's ratio is multiplied with, ``[*B, n_agents]``."""
        return valid_entry(tensordict, self.tensor_keys.advantage, alive).squeeze(-1)

    def _dist_and_log_ratio(
        self,
        tensordict: TensorDictBase,
        actor: ProbabilisticTensorDictSequential,
        alive: Tensor | None,
        outputs: TensorDictBase | None = None,
    ) -> tuple[torch.distributions.Distribution, Tensor]:
        """The distribution of actions, and their ``log_ratio``."""
        action = valid_entry(tensordict, self.tensor_keys.action, alive)
        old_log_prob = valid_entry(tensordict, self.tensor_keys.sample_log_prob, alive)
        dist = actor.get_dist(tensordict.copy() if outputs is None else outputs)
        log_prob = dist.log_prob(action)
        check_same_shape(log_prob=log_prob, sample_log_prob=old_log_prob)
        log_ratio = log_prob - old_log_prob
        return dist, log_ratio if alive is None else log_ratio.masked_fill(~alive, 0)

    def _value_of(self, value: Tensor) -> Tensor:
        """What learns the target, of the critic's values ``[*B, n_agents, 1]``, in the same shape."""
        return value

    def value_terms(self, tensordict: TensorDictBase, outputs: TensorDictBase | None = None) -> dict[str, Tensor]:
        """``loss_critic`` and ``explained_variance``; ``outputs`` is what the critic wrote, ``None``: it is run."""
        keys, valued = self.tensor_keys, self._valued(tensordict)
        target = valid_entry(tensordict, keys.value_target, valued)
        stored = required_entry(tensordict, keys.value)
        old_value = valid_entry(tensordict.copy().set(keys.value, self._value_of(stored)), keys.value, valued)
        if outputs is None:
            outputs = self.critic_network(
                with_orders([self.critic_network], tensordict.copy().exclude(keys.value, inplace=True))
            )
        value = self._value_of(required_entry(outputs, keys.value, "the critic writes it"))
        check_same_shape(state_value=value, value_target=target, old_state_value=old_value)
        if self.value_norm is not None:
            target = self.value_norm.normalize(target)
        mask = None if valued is None else valued.unsqueeze(-1)
        loss = self._distance(value, target)
        if self.clip_value is not None:
            near = old_value + (value - old_value).clamp(-self.clip_value, self.clip_value)
            loss = torch.maximum(loss, self._distance(near, target))
        with torch.no_grad():
            spread = masked_mean((target - average_of_all(masked_mean(target, mask))).square(), mask)
            error = target - value
            unexplained = masked_mean((error - average_of_all(masked_mean(error, mask))).square(), mask)
            explained_variance = 1 - average_of_all(unexplained) / average_of_all(spread).clamp(min=1e-8)
        return {
            "loss_critic": self.critic_coeff * masked_mean(loss, mask),
            "explained_variance": explained_variance,
        }

    def _distance(self, value: Tensor, target: Tensor) -> Tensor:
        return distance_to_target(value - target, self.value_loss, self.huber_delta)
