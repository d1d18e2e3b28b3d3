"""MAPPO's loss: PPO of one group of agents, with any critic of states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.objectives.common import LossModule

from ctde_kit.entries import check_same_shape, required_entry
from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, GroupKeys
from ctde_kit.objectives.masking import masked_mean
from ctde_kit.objectives.orders import order_keys, with_orders
from ctde_kit.objectives.part_checks import check_critic_of_states
from ctde_kit.objectives.value_loss import ValueLoss, check_value_loss, distance_to_target
from ctde_kit.protocols import ReturnScale, SamplesEntropy


class MAPPOLoss(LossModule):
    """MAPPO's loss for one group: clipped policy loss, value loss on normalized values, and entropy bonus.

    Unlike TorchRL's ``MAPPOLoss``, the critic's target is normalized and its output is not, so values really are
    learned in normalized units; dead agents are masked; and modules are held as they are, not as functional parameters,
    so that the loss compiles as one graph and shared layers stay shared.

    Yu et al. 2022, "The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games", eqs. 1 and 2 (appendix A),
    with a log-probability, a ratio and an advantage for each agent. IPPO is the same loss with a decentralized critic.

    Reads ``[*B, n_agents, ...]`` under the group: what actor and critic read, ``action``, ``action_log_prob``
    ``[*B, n_agents]``, ``advantage``, ``value_target`` (units of returns) and ``state_value`` (the critic's units when
    the batch was fresh) ``[*B, n_agents, 1]``; ``mask`` ``[*B, n_agents]`` where agents die: dead agents'
    entries change nothing. Gives scalars ``loss_objective``, ``loss_critic``, ``loss_entropy`` (their sum is
    to be minimized) and, detached, ``entropy``, ``approx_kl``, ``clip_fraction``, ``explained_variance``.

    Args:
        actor: has ``get_dist``; writes the action.
        critic: writes ``state_value``.
        keys: the group's keys; ``set_keys`` changes single ones.
        clip_epsilon: PPO's clip of the ratio.
        entropy_coeff: weight of the entropy bonus.
        critic_coeff: weight of the value loss.
        value_loss: ``huber`` (Huber loss with ``huber_delta``) or ``l2`` (half the squared error).
        huber_delta: where Huber's loss turns linear, in normalized units.
        clip_value: largest change of a value that the value loss rewards, in normalized units; ``None`` for no limit.
        samples_mc_entropy: samples for the entropy of distributions without a closed form.
        value_norm: normalizes the targets; the same object that the advantages were made with.

    Raises:
        UserError: for clipped values of a critic that sees random orders, a missing entry, entries that would broadcast
            over agents, or recurrent networks' single steps.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, continuous_actions=False)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, group.n_agents)
    >>> actor = ck.MultiAgentActor(group, ck.own_observation(group), network)
    >>> critic = ck.value_critic(team, group, ck.MultiAgentMLP)
    >>> loss = ck.MAPPOLoss(actor, critic, keys=group.keys)
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

    tensor_keys: _AcceptedKeys
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
        check_value_loss(value_loss)
        check_critic_of_states("MAPPOLoss", critic)
        if clip_value is not None and order_keys(critic):
            raise UserError(
                f"clip_value={clip_value}: stored values are of a fixed order of agents, this critic's of drawn ones; "
                "use clip_value=None"
            )
        self.actor_network, self.critic_network, self.value_norm = actor, critic, value_norm
        self.clip_epsilon, self.clip_value = clip_epsilon, clip_value
        self.entropy_coeff, self.critic_coeff = entropy_coeff, critic_coeff
        self.value_loss: ValueLoss = value_loss
        self.huber_delta = huber_delta
        self.samples_mc_entropy = samples_mc_entropy
        keys = keys or GroupKeys()
        self.set_keys(
            action=keys.action,
            sample_log_prob=keys.action_log_prob,
            advantage=keys.advantage,
            value_target=keys.value_target,
            value=keys.state_value,
            mask=keys.mask,
        )

    @property
    def functional(self) -> bool:
        return False

    def _forward_value_estimator_keys(self, **kwargs: NestedKey) -> None:
        """No value estimator is held: ``AdvantageEstimator`` or TorchRL's GAE writes the advantages."""

    @property
    def in_keys(self) -> list[NestedKey]:
        keys = self.tensor_keys
        stored = [keys.action, keys.sample_log_prob, keys.advantage, keys.value_target, keys.value]
        drawn = order_keys(self.critic_network)
        read = [key for key in self.critic_network.in_keys if key not in drawn]
        return list(dict.fromkeys([*self.actor_network.in_keys, *read, *stored]))

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        keys = self.tensor_keys
        if tensordict.ndim < 2 and IS_INIT in self.in_keys:
            raise UserError(
                f"MAPPOLoss: recurrent networks learn sequences [*B, T], found single steps {list(tensordict.shape)}; "
                "give the buffer a sequence_length, or unsqueeze(0) a single sequence"
            )
        alive = tensordict.get(keys.mask, None)
        advantage = self._entry(tensordict, keys.advantage, alive).squeeze(-1)
        action = self._entry(tensordict, keys.action, alive)
        old_log_prob = self._entry(tensordict, keys.sample_log_prob, alive)

        dist = self.actor_network.get_dist(tensordict.copy())
        log_prob = dist.log_prob(action)
        check_same_shape(log_prob=log_prob, sample_log_prob=old_log_prob, advantage=advantage)
        if action.shape[: log_prob.ndim] != log_prob.shape:
            raise UserError(
                f"key {keys.action}: expected {list(log_prob.shape)} and the action's own dimensions, found "
                f"{list(action.shape)}; expand it over the agents first"
            )
        log_ratio = log_prob - old_log_prob
        if alive is not None:
            log_ratio = log_ratio.masked_fill(~alive, 0)
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - self.clip_epsilon, 1 + self.clip_epsilon)
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        entropy = masked_mean(self._entropy(dist), alive)

        loss_critic, explained_variance = self._critic_loss(tensordict, alive)
        with torch.no_grad():
            approx_kl = masked_mean(ratio - 1 - log_ratio, alive)
            clip_fraction = masked_mean(((ratio - 1).abs() > self.clip_epsilon).to(ratio.dtype), alive)
        return TensorDict(
            {
                "loss_objective": -masked_mean(gain, alive),
                "loss_critic": self.critic_coeff * loss_critic,
                "loss_entropy": -self.entropy_coeff * entropy,
                "entropy": entropy.detach(),
                "approx_kl": approx_kl,
                "clip_fraction": clip_fraction,
                "explained_variance": explained_variance,
            }
        )

    def _critic_loss(self, tensordict: TensorDictBase, alive: Tensor | None) -> tuple[Tensor, Tensor]:
        keys = self.tensor_keys
        target = self._entry(tensordict, keys.value_target, alive)
        old_value = self._entry(tensordict, keys.value, alive)
        inputs = with_orders([self.critic_network], tensordict.copy())
        value = self.critic_network(inputs).get(keys.value)
        check_same_shape(state_value=value, value_target=target, old_state_value=old_value)
        if self.value_norm is not None:
            target = self.value_norm.normalize(target)
        mask = None if alive is None else alive.unsqueeze(-1)
        loss = self._distance(value, target)
        if self.clip_value is not None:
            near = old_value + (value - old_value).clamp(-self.clip_value, self.clip_value)
            loss = torch.maximum(loss, self._distance(near, target))
        with torch.no_grad():
            spread = masked_mean((target - masked_mean(target, mask)).square(), mask)
            error = target - value
            unexplained = masked_mean((error - masked_mean(error, mask)).square(), mask)
            explained_variance = 1 - unexplained / spread.clamp(min=1e-8)
        return masked_mean(loss, mask), explained_variance

    def _distance(self, value: Tensor, target: Tensor) -> Tensor:
        return distance_to_target(value - target, self.value_loss, self.huber_delta)

    def _entropy(self, dist: torch.distributions.Distribution) -> Tensor:
        if isinstance(dist, SamplesEntropy):
            return dist.sampled_entropy(self.samples_mc_entropy)
        try:
            return dist.entropy()
        except NotImplementedError:
            samples = dist.rsample((self.samples_mc_entropy,))
            return -dist.log_prob(samples).mean(0)

    def _entry(self, tensordict: TensorDictBase, key: NestedKey, alive: Tensor | None) -> Tensor:
        value = required_entry(tensordict, key, "prepare the batch for MAPPOLoss, or change it with set_keys").detach()
        if alive is None:
            return value
        if value.shape[: alive.ndim] != alive.shape:
            raise UserError(
                f"key {key}: expected {list(alive.shape)}, the mask's shape, and the entry's own dimensions, found "
                f"{list(value.shape)}; expand it over the agents first"
            )
        return value.masked_fill(~alive.reshape(*alive.shape, *[1] * (value.ndim - alive.ndim)), 0)
