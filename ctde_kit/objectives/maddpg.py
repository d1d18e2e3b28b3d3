"""The deterministic policy gradient of many agents, each with a critic that sees them all."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives.common import LossModule

from ctde_kit.keys import CHOSEN_ACTION_VALUE, IS_INIT, PADDING_MASK, PRIORITY_WEIGHT, TD_ERROR, next_key
from ctde_kit.objectives.critic_targets import counted, learnt_by_group, learnt_by_team
from ctde_kit.objectives.ensembles import ensemble_mean, replays_of
from ctde_kit.objectives.inference import PolicyInference
from ctde_kit.objectives.joint_actions import zero_dead
from ctde_kit.objectives.learnt_values import LearntValues, joint_metrics
from ctde_kit.objectives.maddpg_parts import OtherActions, check_parts, read_keys, with_vectors
from ctde_kit.objectives.minimax import MinimaxAdversary
from ctde_kit.objectives.next_values import next_action_values, with_next_actions
from ctde_kit.objectives.policy_objectives import mixed_value, own_policy_loss, team_policy_loss
from ctde_kit.objectives.priorities import importance_weight, write_priority
from ctde_kit.objectives.q_targets import NStepReturn, ReturnEstimator
from ctde_kit.objectives.q_values import at_next
from ctde_kit.objectives.td_loss import LossFunction, check_loss_function
from ctde_kit.objectives.team_reward import REWARD
from ctde_kit.objectives.unroll import check_sequences, unroll
from ctde_kit.specs import GroupSpec


class MADDPGLoss(LossModule):
    """Actor and critic losses of MADDPG, of IDDPG (decentralized critics) and of FACMAC (with a mixer).

    Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments", section 4.1: the
    critics learn from targets with the target actors' next actions, the actors climb the critics: agent i's own action
    from its current policy, the others' from the replay buffer. All agents of a group are one vectorized pass. With a
    ``mixer`` it is FACMAC (Peng et al. 2021, "FACMAC: Factored Multi-Agent Centralised Policy Gradients"): the team's
    mixed value learns from the team's reward, and all actors climb it together, every action from the current policies.

    Reads transitions ``[B]`` or sequences ``[*B, T]``: of every group what its actor and critic read, at the root and
    under ``next``, ``action`` as it was executed; where they are ``action_mask`` and ``mask``; ``done`` and
    ``terminated`` under ``next``, the root's and the groups'; each agent's reward or, with a mixer, ``("next",
    "reward")`` ``[*B, T, 1]``, as ``TeamReward`` writes it. Where they are: ``("collector", "mask")`` bool ``[*B, T]``,
    false where a sequence is padded, and ``priority_weight``. What stands in padded steps and in dead agents' entries
    matters nowhere. For the critics it makes ``(group, "action_vector")`` float ``[*B, T, n_agents, D]``, one-hot where
    actions are discrete. Writes ``td_error`` into what it read, for prioritized replay, as ``QMixLoss`` does. Gives the
    scalars ``loss_actor`` and ``loss_value`` and, detached, ``td_error``, ``state_action_value`` and ``target_value``,
    with several groups ``{group}/...`` of each; they are means over agents and steps, and sums over groups.

    Each agent bootstraps unless it, or the whole team, has ``terminated``. Next values of recurrent networks come from
    one batched step after an unroll, as ``QMixLoss`` has it; critics' hidden states start from zero, and an actor's
    gradient passes the critic at one step alone, whose hidden state is the replay's.

    Of an actor with sub-policies (section 4.3) each agent's action is, now and next, of the sub-policy that acted in
    that transition, ``(group, "sub_policy")`` int64 ``[*B, T, n_agents]``, and ``loss_actor`` is the mean over
    sub-policies of the mean over the transitions of each: those are its own replay.

    Of opponents nothing is learnt and nothing delayed: their next action is what they do when they are called on the
    entries under ``next``, a recurrent one from the hidden state that is stored there, and their current action is the
    replay's, since they never change.

    Differs from TorchRL's ``DDPGLoss``: with a joint actor and critic that one moves every agent by every agent's
    value. From the paper's code: losses are means over agents and not sums; one step updates actors and critics at
    once.

    Args:
        actors: of every group. One without a critic is an opponent, such as a ``FrozenActor`` or ``RandomActor``: any
            TensorDict module with a ``group`` that writes its action.
        critics: of the groups that learn, ``state_action_value`` ``[*B, n_agents, 1]`` each.
        mixer: writes ``chosen_action_value`` ``[*B, 1]`` at the root; ``None`` for MADDPG.
        gamma: discount a step.
        other_actions: in agent i's actor loss the others' are those of the ``replay``, or of their ``current``
            policies, detached.
        returns: the targets' form, TD(0) by default.
        team_weight: the share of the group's mean in each agent's reward, from 0, its own alone, to 1; not with a
            mixer.
        action_regularization: weight of the mean square of the actors' outputs (logits, or actions before squashing) in
            ``loss_actor``, as in the paper's code.
        loss_function: of the critics: ``l2`` (half the squared error) or ``huber`` (with ``huber_delta``).
        huber_delta: where Huber's loss turns linear, in units of returns.
        adversary: moves others' actions against each agent, in targets and actor losses (M3DDPG).
        inference: what each agent believes of the others' policies: in its targets their next actions are those that it
            believes (section 4.2 of the paper).
        burn_in: steps before the first that is learnt.
        from_stored: recurrent actors start from the stored hidden state; else from zero.

    Raises:
        UserError: for a missing entry, entries that would broadcast over agents, single steps where sequences are
            needed, a mixer of values that no critic gives, options that a mixer would ignore.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import (
    ...     MultiAgentDeterministicActor, MultiAgentMLP, action_value_critic, own_observation
    ... )
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
    default_keys = _AcceptedKeys

    def __init__(
        self,
        actors: Mapping[str, Any],
        critics: Mapping[str, TensorDictModuleBase],
        mixer: TensorDictModuleBase | None = None,
        *,
        gamma: float,
        other_actions: OtherActions = "replay",
        returns: ReturnEstimator | None = None,
        team_weight: float = 0.0,
        action_regularization: float = 0.0,
        loss_function: LossFunction = "l2",
        huber_delta: float = 1.0,
        adversary: MinimaxAdversary | None = None,
        inference: PolicyInference | None = None,
        burn_in: int = 0,
        from_stored: bool = True,
    ):
        super().__init__()
        check_loss_function(loss_function)
        check_parts(actors, critics, mixer, adversary, inference, other_actions, team_weight)
        self.actors, self.critics, self.mixer = nn.ModuleDict(dict(actors)), nn.ModuleDict(dict(critics)), mixer
        self.gamma, self.other_actions, self.returns = gamma, other_actions, returns or NStepReturn()
        self.team_weight, self.action_regularization = team_weight, action_regularization
        self.loss_function: LossFunction = loss_function
        self.huber_delta = huber_delta
        self.adversary, self.inference = adversary, inference
        self.burn_in, self.from_stored = burn_in, from_stored
        # One copy of all, so that what the online networks share their targets share too.
        self.delayed = deepcopy(self.online_networks()).requires_grad_(False)

    def online_networks(self) -> nn.ModuleDict:
        """The learning groups' networks and the mixer; ``delayed`` holds their targets under these names."""
        learners = self._learners.items()
        networks: dict[str, nn.Module] = {f"actor_{name}": actor.agent_network for name, actor in learners}
        networks |= {f"critic_{name}": critic for name, critic in self._critics.items()}
        others = {"mixer": self.mixer, "inference": self.inference}
        return nn.ModuleDict(networks | {name: module for name, module in others.items() if module is not None})

    @property
    def _actors(self) -> dict[str, Any]:
        return dict(self.actors.items())

    @property
    def _critics(self) -> dict[str, Any]:
        return dict(self.critics.items())

    @property
    def _groups(self) -> dict[str, GroupSpec]:
        return {name: actor.group for name, actor in self._actors.items()}

    @property
    def _learners(self) -> dict[str, Any]:
        return {name: self._actors[name] for name in self._critics}

    @property
    def functional(self) -> bool:
        return False

    def _forward_value_estimator_keys(self, **kwargs: NestedKey) -> None:
        """No value estimator is held: ``returns`` reads no keys."""

    @property
    def out_keys(self) -> list[NestedKey]:
        names = ["td_error", "state_action_value", "target_value"]
        several = [f"{group}/{name}" for group in self._critics for name in names]
        names += ["loss_inference", "inference_kl"] * (self.inference is not None)
        return ["loss_actor", "loss_value", *names, *(several if self.mixer is None and len(self._critics) > 1 else [])]

    @property
    def in_keys(self) -> list[NestedKey]:
        return read_keys(self._actors, self._critics, self.mixer, self.tensor_keys.reward)

    @property
    def stored_keys(self) -> list[NestedKey]:
        """What a replay must keep: what is read, and what is read where it is there."""
        ends = [next_key(key) for a in self._actors.values() for key in (a.group.keys.done, a.group.keys.terminated)]
        return list(dict.fromkeys([*self.in_keys, *ends, IS_INIT]))

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        learners = self._learners
        networks = [*[actor.agent_network for actor in learners.values()], *self._critics.values()]
        check_sequences("MADDPGLoss", tensordict, networks, self.returns.needs_sequences, self.burn_in)
        data = with_vectors(self._groups, self._critics, tensordict)
        steps = data[..., self.burn_in :] if self.burn_in else data
        outputs = {
            name: unroll(actor.agent_network, data, self.burn_in, self.from_stored) for name, actor in learners.items()
        }
        values = {name: unroll(critic, data, self.burn_in, False) for name, critic in self._critics.items()}
        following = with_next_actions(self._actors, self.delayed, data, steps, self.burn_in, self.from_stored)
        of_each_agent = self.adversary if self.inference is None else self.inference
        next_values = next_action_values(learners, self.delayed, data, following, self.burn_in, of_each_agent)
        learnt = self._learnt(steps, values, next_values)
        weight = importance_weight(tensordict, self.tensor_keys.priority_weight, self.burn_in)
        losses = [part.loss(weight, self.loss_function, self.huber_delta) for part in learnt.values()]
        with torch.no_grad():
            errors, masks = zip(*[(part.delta.abs(), part.mask) for part in learnt.values()], strict=True)
            write_priority(tensordict, torch.cat(errors, -2), torch.cat(masks, -2), self.tensor_keys.priority)
            metrics = joint_metrics(learnt)
        policies = self._policies(steps, outputs)
        found = {"loss_actor": self._policy_loss(steps, values, policies), "loss_value": torch.stack(losses).sum()}
        if self.inference is not None:
            masks = {name: self._counted(steps, actor.group) for name, actor in learners.items()}
            found["loss_inference"], metrics["inference_kl"] = self.inference(learners, steps, policies, masks)
        return TensorDict({**found, **metrics})

    def _policies(self, steps: TensorDictBase, outputs: Mapping[str, TensorDictBase]) -> dict[str, TensorDictBase]:
        """What each actor chooses by: its network's output, and which actions are allowed."""
        policies = {}
        for name, actor in self._learners.items():
            policies[name] = outputs[name].select(actor.output_key)
            if actor.group.action_mask:
                policies[name].set(actor.group.keys.action_mask, steps.get(actor.group.keys.action_mask))
        return policies

    def _learnt(
        self, steps: TensorDictBase, values: Mapping[str, TensorDictBase], next_values: Mapping[str, Tensor]
    ) -> dict[str, LearntValues]:
        """What is learnt, by group, or of the team where there is a mixer."""
        groups, target = self._groups, partial(self.returns, self.gamma)
        own = {name: values[name].get(groups[name].keys.state_action_value) for name in values}
        if self.mixer is None:
            return {
                name: learnt_by_group(
                    target,
                    groups[name],
                    steps,
                    own[name],
                    next_values[name],
                    team_weight=self.team_weight,
                    mask=self._counted(steps, groups[name]),
                )
                for name in own
            }
        key, mixer = self.tensor_keys.chosen_action_value, dict(self.delayed.items())["mixer"]
        value = mixed_value(self.mixer, groups, steps.copy(), own, key)
        with torch.no_grad():
            next_value = mixed_value(mixer, groups, at_next(groups.values(), steps), next_values, key)
        mask = self._counted(steps, None)
        return {"team": learnt_by_team(target, steps, value, next_value, reward=self.tensor_keys.reward, mask=mask)}

    def _counted(self, steps: TensorDictBase, group: GroupSpec | None) -> Tensor:
        return counted(steps, group, self.tensor_keys.padding_mask)

    def _policy_loss(
        self, steps: TensorDictBase, values: Mapping[str, TensorDictBase], policies: Mapping[str, TensorDictBase]
    ) -> Tensor:
        vectors, replays, squares = {}, {}, []
        for name, actor in self._learners.items():
            group, alive = actor.group, steps.get(actor.group.keys.mask) if actor.group.mask else None
            replays[name] = replays_of(actor, steps, self._counted(steps, group))
            vectors[name] = zero_dead(actor.differentiable_vector(policies[name]), alive)
            square = policies[name].get(actor.output_key).square().mean(-1, keepdim=True)
            squares.append(ensemble_mean(square, replays[name]))
        parts = (self._groups, steps, values, vectors)
        if self.mixer is None:
            current = self.other_actions == "current"
            loss = own_policy_loss(self._critics, *parts, replays, current=current, adversary=self.adversary)
        else:
            mixed = self.tensor_keys.chosen_action_value
            loss = team_policy_loss(self._critics, self.mixer, *parts, self._counted(steps, None), mixed)
        return loss + self.action_regularization * torch.stack(squares).sum()
