"""MADDPG's loss: deterministic actors, and critics that see the joint action; IDDPG and FACMAC are variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from ctde_kit.entry_tables import Entry
from ctde_kit.errors import check_choice
from ctde_kit.keys import CHOSEN_ACTION_VALUE, PADDING_MASK, PRIORITY_WEIGHT, TD_ERROR
from ctde_kit.objectives.entry_checks import EntryCheck, parameter_dtype
from ctde_kit.objectives.maddpg.batch_entries import entries_of_parts, with_vectors
from ctde_kit.objectives.maddpg.compatibility import OtherActions, check_parts
from ctde_kit.objectives.maddpg.ensembles import ensemble_mean, sub_policy_masks
from ctde_kit.objectives.maddpg.inference import PolicyInference
from ctde_kit.objectives.maddpg.joint_actions import DeterministicActor, Opponent, zero_dead
from ctde_kit.objectives.maddpg.minimax import MinimaxAdversary
from ctde_kit.objectives.maddpg.next_values import next_action_values, with_next_actions
from ctde_kit.objectives.maddpg.policy_losses import mixed_value, own_policy_loss, team_policy_loss
from ctde_kit.objectives.module_loss import ModuleLoss, target_copy
from ctde_kit.objectives.priorities import importance_weight, write_priority
from ctde_kit.objectives.q_values import at_next
from ctde_kit.objectives.read_entries import needed_keys, replay_entries, stored_keys
from ctde_kit.objectives.return_estimators import NStepReturn, ReturnEstimator
from ctde_kit.objectives.td_targets import td_targets, team_td_targets, valid_mask
from ctde_kit.objectives.team_reward import REWARD
from ctde_kit.objectives.unroll import check_sequences, unroll
from ctde_kit.objectives.value_loss import VALUE_LOSSES, ValueLoss
from ctde_kit.objectives.value_targets import ValueTargets, joint_metrics
from ctde_kit.protocols import RewardScale
from ctde_kit.specs import GroupSpec


class MADDPGLoss(ModuleLoss):
    """Actor and critic losses of MADDPG, of IDDPG (decentralized critics) and of FACMAC (with a mixer).

    Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments", section 4.1: the
    critics learn from targets with the target actors' next actions. Each actor maximizes its critic's value of its own
    current action among the others' actions of the replay buffer. All agents of a group are one vectorized pass.

    With a ``mixer`` it is FACMAC (Peng et al. 2021, "FACMAC: Factored Multi-Agent Centralised Policy Gradients"): the
    team's mixed value learns from the team's reward, and all actors maximize it together, with everyone's current
    actions.

    Reads transitions ``[B]`` or sequences ``[*B, T]``: of every group what its actor and critic read, at the root and
    under ``next``, ``action`` as it was executed; where they are ``action_mask`` and ``mask``; ``done`` and
    ``terminated`` under ``next``, the root's and the groups'; each agent's reward or, with a mixer, ``("next",
    "reward")`` ``[*B, T, 1]``, as ``TeamReward`` writes it. Where they are: ``("collector", "mask")`` bool ``[*B, T]``,
    false where a sequence is padded, ``is_init`` bool ``[*B, T, 1]``, true where an episode begins, and
    ``priority_weight``. Entries of padded steps and of dead agents change nothing. For the critics it makes ``(group,
    "action_vector")`` float ``[*B, T, n_agents, D]``, one-hot where actions are discrete. Writes ``td_error`` into what
    it read, for prioritized replay, as ``QMixLoss`` does. Gives the scalars ``loss_actor`` and ``loss_value`` and,
    detached, ``td_error``, ``state_action_value`` and ``target_value``, with several groups ``{group}/...`` of each;
    they are means over agents and steps, and sums over groups.

    Each agent bootstraps unless it, or the whole team, has ``terminated``. Next values of recurrent networks come from
    one batched step after an unroll, as ``QMixLoss`` has it; critics' hidden states start from zero, and an actor's
    gradient passes the critic at one step alone, whose hidden state is the replay's.

    Of an actor with sub-policies (section 4.3) each agent's action is, now and next, of the sub-policy that acted in
    that transition, ``(group, "sub_policy")`` int64 ``[*B, T, n_agents]``, and ``loss_actor`` is the mean over
    sub-policies of the mean over the transitions of each: those are its own replay.

    Opponents learn nothing and have no target networks: their next action is what they do when they are called on the
    entries under ``next``, a recurrent one from the hidden state that is stored there, and their current action is the
    replay's, since they never change.

    Differs from TorchRL's ``DDPGLoss``: with a joint actor and critic, ``DDPGLoss`` moves every agent by every agent's
    value. From the paper's code: losses are means over agents and not sums; one step updates actors and critics at
    once.

    Args:
        actors: of every group. An actor without a critic is an opponent: any TensorDict module with a ``group`` that
            writes its action, such as a ``FrozenActor`` or ``RandomActor``.
        critics: of the groups that learn, ``state_action_value`` ``[*B, n_agents, 1]`` each.
        mixer: writes ``chosen_action_value`` ``[*B, 1]`` at the root; ``None`` for MADDPG.
        gamma: discount per step.
        other_actions: in agent i's actor loss the others' are those of the ``replay``, or of their ``current``
            policies, detached.
        returns: the targets' form, TD(0) by default.
        team_weight: the share of the group's mean in each agent's reward, from 0, its own alone, to 1; not with a
            mixer.
        action_regularization: weight of the mean square of the actors' outputs (logits, or actions before squashing) in
            ``loss_actor``, as in the paper's code.
        value_loss: the critics' loss: ``l2`` (half the squared error) or ``huber`` (with ``huber_delta``).
        huber_delta: where Huber's loss turns linear, in units of returns.
        adversary: moves others' actions against each agent, in targets and actor losses (M3DDPG).
        inference: each agent's beliefs of the others' policies; its targets take their next actions from them
            (section 4.2 of the paper).
        burn_in: steps at the start of a sequence that only warm hidden states up.
        use_stored_hidden: recurrent actors start a sequence from the stored hidden state; else from zero.
        reward_norm: gives the rewards in the units that are learned; ``None``: as the env gave them.

    Raises:
        UserError: for a missing entry, entries that would broadcast over agents, single steps where sequences are
            needed, a mixer of values that no critic gives, options that a mixer would ignore.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import (
    ...     MultiAgentDeterministicActor, MultiAgentMLP, action_value_critic, own_observation
    ... )
    >>> from ctde_kit.objectives import MADDPGLoss
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("navigation", num_envs=5)
    >>> team = TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = MultiAgentMLP(group.observation_dim, group.action.vector_dim, group.n_agents)
    >>> actor = MultiAgentDeterministicActor(group, own_observation(group), network)
    >>> critic = action_value_critic(team, group, MultiAgentMLP)
    >>> loss = MADDPGLoss({"agents": actor}, {"agents": critic}, gamma=0.9)
    >>> loss(env.rollout(2, actor))["loss_actor"].shape
    torch.Size([])
    """

    @dataclass
    class _AcceptedKeys:
        reward: NestedKey = REWARD
        chosen_action_value: NestedKey = CHOSEN_ACTION_VALUE
        padding_mask: NestedKey = PADDING_MASK
        priority: NestedKey = TD_ERROR
        priority_weight: NestedKey = PRIORITY_WEIGHT

    tensor_keys: _AcceptedKeys
    reward_norm: RewardScale | None
    returns_advice = "gamma=..., returns=NStepReturn(n) or TDLambdaReturn(lmbda) say which returns the loss estimates"
    default_keys = _AcceptedKeys

    def __init__(
        self,
        actors: Mapping[str, DeterministicActor | Opponent],
        critics: Mapping[str, TensorDictModuleBase],
        mixer: TensorDictModuleBase | None = None,
        *,
        gamma: float,
        other_actions: OtherActions = "replay",
        returns: ReturnEstimator | None = None,
        team_weight: float = 0.0,
        action_regularization: float = 0.0,
        value_loss: ValueLoss = "l2",
        huber_delta: float = 1.0,
        adversary: MinimaxAdversary | None = None,
        inference: PolicyInference | None = None,
        burn_in: int = 0,
        use_stored_hidden: bool = True,
        reward_norm: RewardScale | None = None,
    ):
        super().__init__()
        check_parts(actors, critics, mixer, adversary, inference, other_actions, team_weight)
        self.actors = nn.ModuleDict(cast("dict[str, nn.Module]", dict(actors)))
        self.critics, self.mixer = nn.ModuleDict(dict(critics)), mixer
        self.gamma, self.other_actions, self.returns = gamma, other_actions, returns or NStepReturn()
        self.team_weight, self.action_regularization = team_weight, action_regularization
        self.value_loss: ValueLoss = check_choice("MADDPGLoss", "value_loss", value_loss, VALUE_LOSSES)
        self.huber_delta = huber_delta
        self.adversary, self.inference = adversary, inference
        self.burn_in, self.use_stored_hidden, self.reward_norm = burn_in, use_stored_hidden, reward_norm
        self.target_networks = target_copy(self.online_networks())
        self.set_keys()

    def online_networks(self) -> nn.ModuleDict:
        """The networks that learn, the mixer among them; ``target_networks`` has their targets by the same names."""
        learners = self._learners.items()
        networks: dict[str, nn.Module] = {f"actor_{name}": actor.agent_network for name, actor in learners}
        networks |= {f"critic_{name}": critic for name, critic in self._critics.items()}
        others = {"mixer": self.mixer, "inference": self.inference}
        return nn.ModuleDict(networks | {name: module for name, module in others.items() if module is not None})

    @property
    def _actors(self) -> dict[str, DeterministicActor | Opponent]:
        return cast("dict[str, DeterministicActor | Opponent]", dict(self.actors.items()))

    @property
    def _critics(self) -> dict[str, TensorDictModuleBase]:
        return cast("dict[str, TensorDictModuleBase]", dict(self.critics.items()))

    @property
    def _groups(self) -> dict[str, GroupSpec]:
        return {name: actor.group for name, actor in self._actors.items()}

    @property
    def _learners(self) -> dict[str, DeterministicActor]:
        return {name: cast(DeterministicActor, self._actors[name]) for name in self._critics}

    def _forward_value_estimator_keys(self, **kwargs: NestedKey) -> None:
        """No value estimator is held: ``returns`` reads no keys."""
        self._check_entries = EntryCheck("MADDPGLoss", self._table(), self.tensor_keys.padding_mask)

    @property
    def out_keys(self) -> list[NestedKey]:
        names = ["td_error", "state_action_value", "target_value"]
        several = [f"{group}/{name}" for group in self._critics for name in names]
        names += ["loss_inference", "inference_kl"] * (self.inference is not None)
        return ["loss_actor", "loss_value", *names, *(several if self.mixer is None and len(self._critics) > 1 else [])]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What it reads of a batch: each batch is checked against this table."""
        return self._check_entries.entries

    def _table(self) -> list[Entry]:
        keys = self.tensor_keys
        entries = entries_of_parts(self._actors, self._learners, self._critics, self.mixer, keys.reward)
        return [*entries, *replay_entries(keys.padding_mask, keys.priority_weight)]

    @property
    def in_keys(self) -> list[NestedKey]:
        return needed_keys(self.entries)

    @property
    def stored_keys(self) -> list[NestedKey]:
        """What a replay must keep: the entries that are read, those that may be missing among them."""
        return stored_keys(self.in_keys, self._groups.values())

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        self._check_entries(tensordict, parameter_dtype(self))
        learners = self._learners
        networks = [*[actor.agent_network for actor in learners.values()], *self._critics.values()]
        check_sequences("MADDPGLoss", tensordict, networks, self.returns.needs_sequences, self.burn_in)
        data = with_vectors(self._groups, self._critics, tensordict)
        steps = data[..., self.burn_in :] if self.burn_in else data
        outputs = {
            name: unroll(actor.agent_network, data, self.burn_in, self.use_stored_hidden)
            for name, actor in learners.items()
        }
        values = {name: unroll(critic, data, self.burn_in, False) for name, critic in self._critics.items()}
        targets = self._targets(steps, values, self._next_values(data, steps))
        weight = importance_weight(tensordict, self.tensor_keys.priority_weight, self.burn_in)
        value_losses = [part.loss(weight, self.value_loss, self.huber_delta) for part in targets.values()]
        with torch.no_grad():
            errors, masks = zip(*[(part.delta.abs(), part.mask) for part in targets.values()], strict=True)
            write_priority(tensordict, torch.cat(errors, -2), torch.cat(masks, -2), self.tensor_keys.priority)
            metrics = joint_metrics(targets, "state_action_value")
        policies = self._policies(steps, outputs)
        losses = {
            "loss_actor": self._policy_loss(steps, values, policies),
            "loss_value": torch.stack(value_losses).sum(),
        }
        if self.inference is not None:
            valid = {name: self._valid_mask(steps, actor.group) for name, actor in learners.items()}
            losses["loss_inference"], metrics["inference_kl"] = self.inference(learners, steps, policies, valid)
        return TensorDict({**losses, **metrics})

    def _next_values(self, data: TensorDictBase, steps: TensorDictBase) -> dict[str, Tensor]:
        """The target critics' values ``[*B, T, n_agents, 1]`` of the target actors' next actions, by group."""
        following = with_next_actions(
            self._actors, self.target_networks, data, steps, self.burn_in, self.use_stored_hidden
        )
        others = self.adversary if self.inference is None else self.inference
        return next_action_values(self._learners, self.target_networks, data, following, self.burn_in, others)

    def _targets(
        self, steps: TensorDictBase, unrolled: Mapping[str, TensorDictBase], next_values: Mapping[str, Tensor]
    ) -> dict[str, ValueTargets]:
        """Values and targets by group, or of the team where there is a mixer."""
        keys, groups, returns = self.tensor_keys, self._groups, partial(self.returns, self.gamma)
        values = {name: unrolled[name].get(groups[name].keys.state_action_value) for name in unrolled}
        if self.reward_norm is not None:
            own = [groups[name].keys.reward for name in values]
            steps = self.reward_norm.normalize(steps, read=own if self.mixer is None else [keys.reward])
        if self.mixer is None:
            learning = [groups[name] for name in values]
            padding, weight = keys.padding_mask, self.team_weight
            return td_targets(returns, learning, steps, values, next_values, padding_mask=padding, team_weight=weight)
        mixed, mixer = keys.chosen_action_value, cast(TensorDictModuleBase, self.target_networks["mixer"])
        value = mixed_value(self.mixer, groups, steps.copy(), values, mixed)
        with torch.no_grad():
            next_value = mixed_value(mixer, groups, at_next(groups.values(), steps), next_values, mixed)
        return {
            "team": team_td_targets(
                returns, steps, value, next_value, reward=keys.reward, padding_mask=keys.padding_mask
            )
        }

    def _policies(self, steps: TensorDictBase, outputs: Mapping[str, TensorDictBase]) -> dict[str, TensorDictBase]:
        """Each actor's network output, and which actions are allowed."""
        policies = {}
        for name, actor in self._learners.items():
            policies[name] = outputs[name].select(actor.output_key)
            if actor.group.action_mask:
                policies[name].set(actor.group.keys.action_mask, steps.get(actor.group.keys.action_mask))
        return policies

    def _policy_loss(
        self, steps: TensorDictBase, values: Mapping[str, TensorDictBase], policies: Mapping[str, TensorDictBase]
    ) -> Tensor:
        vectors, masks, squares = {}, {}, []
        for name, actor in self._learners.items():
            group, alive = actor.group, steps.get(actor.group.keys.mask) if actor.group.mask else None
            masks[name] = sub_policy_masks(actor, steps, self._valid_mask(steps, group))
            vectors[name] = zero_dead(actor.differentiable_vector(policies[name]), alive)
            square = policies[name].get(actor.output_key).square().mean(-1, keepdim=True)
            squares.append(ensemble_mean(square, masks[name]))
        parts = (self._groups, steps, values, vectors)
        if self.mixer is None:
            current = self.other_actions == "current"
            loss = own_policy_loss(self._critics, *parts, masks, current=current, adversary=self.adversary)
        else:
            mixed = self.tensor_keys.chosen_action_value
            loss = team_policy_loss(self._critics, self.mixer, *parts, self._valid_mask(steps, None), mixed)
        return loss + self.action_regularization * torch.stack(squares).sum()

    def _valid_mask(self, steps: TensorDictBase, group: GroupSpec | None) -> Tensor:
        return valid_mask(steps, group, self.tensor_keys.padding_mask)
