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
from ctde_kit.keys import CHOSEN_ACTION_VALUE
from ctde_kit.objectives.maddpg.batch_entries import entries_of_parts, sub_policy_entries
from ctde_kit.objectives.maddpg.compatibility import OtherActions, check_matd3, check_parts
from ctde_kit.objectives.maddpg.ensembles import ensemble_mean, sub_policy_masks
from ctde_kit.objectives.maddpg.inference import PolicyInference
from ctde_kit.objectives.maddpg.joint_action_loss import JointActionLoss, smaller
from ctde_kit.objectives.maddpg.joint_actions import DeterministicActor, Opponent, zero_dead
from ctde_kit.objectives.maddpg.minimax import MinimaxAdversary
from ctde_kit.objectives.maddpg.next_values import next_action_values, target_actions, with_next_actions
from ctde_kit.objectives.maddpg.own_agents import computing_own_agents
from ctde_kit.objectives.maddpg.policy_losses import mixed_value, own_policy_loss, team_policy_loss
from ctde_kit.objectives.maddpg.target_smoothing import TargetPolicySmoothing
from ctde_kit.objectives.module_loss import target_copy
from ctde_kit.objectives.q_values import at_next
from ctde_kit.objectives.read_entries import replay_entries
from ctde_kit.objectives.return_estimators import ReturnEstimator
from ctde_kit.objectives.td_targets import team_td_targets
from ctde_kit.objectives.team_reward import REWARD
from ctde_kit.objectives.value_loss import ValueLoss
from ctde_kit.objectives.value_targets import ValueTargets
from ctde_kit.protocols import RewardScale
from ctde_kit.specs import GroupSpec


class MADDPGLoss(JointActionLoss):
    """Actor and critic losses of MADDPG, of IDDPG (decentralized critics) and of FACMAC (with a mixer).

    Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments", section 4.1: the
    critics learn from targets with the target actors' next actions. Each actor maximizes its critic's value of its own
    current action, given the other agents' stored actions. All agents of a group are computed in one pass.

    With a ``mixer`` it is FACMAC (Peng et al. 2021, "FACMAC: Factored Multi-Agent Centralised Policy Gradients"): the
    team's mixed value learns from the team's reward, and all actors maximize it together, with everyone's current
    actions.

    Reads transitions ``[B]`` or sequences ``[*B, T]``. Of every group it reads what actor and critic read, at the root
    and under ``next`` (what an opponent reads, under ``next`` alone); ``action`` as it was executed; ``action_mask``
    and ``mask`` where the group has them; and under ``next`` the ``reward`` of each agent that learns, and each agent's
    ``done`` and ``terminated`` where the env writes them. It reads the team's ``("next", "done")`` and ``("next",
    "terminated")``. With a mixer, ``("next", "reward")`` ``[*B, T, 1]``, as ``TeamReward`` writes it, takes the place
    of the agents' rewards. Where they are present, it also reads ``("collector", "mask")`` bool ``[*B, T]``, false
    where a sequence is padded; ``is_init`` bool ``[*B, T, 1]``, true where an episode begins; and ``priority_weight``.
    Entries of padded steps and of dead agents change nothing. For the critics it makes ``(group, "action_vector")``
    float ``[*B, T, n_agents, D]``, one-hot where actions are discrete.

    Writes ``td_error`` into the batch, for prioritized replay, as ``QMixLoss`` does. Gives the scalars ``loss_actor``
    and ``loss_value``, each a mean over agents and steps, summed over groups, and ``loss_value`` also over first and
    second critics; and, detached, ``td_error``, ``state_action_value`` and ``target_value``, which are means over
    groups, too. With several groups and no mixer it also gives each group's own metrics as ``{group}/...``; with
    ``inference``, ``loss_inference`` and ``inference_kl``.

    Each agent bootstraps unless it, or the whole team, has ``terminated``. Next values of recurrent networks come from
    one batched step after an unroll, as in ``QMixLoss``. Critics' hidden states start from zero. An actor's gradient
    passes through the critic at a single step, which starts from the hidden state that the stored actions led to.

    If an actor has sub-policies (section 4.3), each agent's current and next actions come from the sub-policy that
    acted in the transition, ``(group, "sub_policy")`` int64 ``[*B, T, n_agents]``. Each sub-policy learns from its own
    transitions alone: ``loss_actor`` is the mean over sub-policies of the mean over each one's transitions.

    Opponents learn nothing and have no target networks. Their next action is what they do when they are called on the
    entries under ``next``; a recurrent one starts from the hidden state that is stored there. Their current action is
    the stored one.

    Differs from TorchRL's ``DDPGLoss``, which with a joint actor and critic moves every agent by every agent's value.
    Differs from the paper's code in two points: losses are means over agents instead of sums, and actors and critics
    are updated in the same step.

    Args:
        actors: of every group. An actor without a critic is an opponent: any TensorDict module with a ``group`` that
            writes its action, such as a ``FrozenActor`` or ``RandomActor``.
        critics: of the groups that learn; each writes ``(group, "state_action_value")`` ``[*B, n_agents, 1]``.
        mixer: writes ``chosen_action_value`` ``[*B, 1]`` at the root; ``None`` for MADDPG.
        twin_critics: second critics of the same groups, with parameters of their own (MATD3); ``None``: each group has
            a single critic. Not with a mixer. ``td_error`` and the other metrics are the first critics'.
        smoothing: noise on target actors' continuous actions (MATD3); ``None`` for none.
        gamma: discount per step.
        other_actions: which actions the other agents take in agent i's actor loss: the stored ones (``replay``), or
            those of their ``current`` policies, detached.
        returns: which returns are the critics' targets, TD(0) by default.
        team_weight: the share of the group's mean in each agent's reward, from 0 (its own reward alone) to 1; not with
            a mixer.
        action_regularization: weight of the mean square of the actors' outputs (logits, or actions before squashing) in
            ``loss_actor``, as in the code of MADDPG and FACMAC; with 0, the papers' formula, tanh may saturate.
        value_loss: the critics' loss: ``l2`` (half the squared error) or ``huber`` (with ``huber_delta``).
        huber_delta: the error at which Huber's loss turns linear, in units of returns.
        adversary: moves the others' actions against each agent, in targets and actor losses (M3DDPG).
        inference: each agent's beliefs about the others' policies, from which its targets take the others' next actions
            (section 4.2 of the paper).
        burn_in: steps at the start of a sequence that only warm hidden states up.
        use_stored_hidden: recurrent actors start a sequence from the stored hidden state; else from zero.
        reward_norm: gives the rewards in the units that are learned; ``None``: as the env gave them.

    Raises:
        UserError: for a missing entry, entries that would broadcast over agents, single steps where sequences are
            needed, a mixer of values that no critic gives, or options that do not fit together.

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
    class _AcceptedKeys(JointActionLoss._AcceptedKeys):
        reward: NestedKey = REWARD
        chosen_action_value: NestedKey = CHOSEN_ACTION_VALUE

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys

    def __init__(
        self,
        actors: Mapping[str, DeterministicActor | Opponent],
        critics: Mapping[str, TensorDictModuleBase],
        mixer: TensorDictModuleBase | None = None,
        *,
        gamma: float,
        twin_critics: Mapping[str, TensorDictModuleBase] | None = None,
        smoothing: TargetPolicySmoothing | None = None,
        other_actions: OtherActions = "replay",
        returns: ReturnEstimator | None = None,
        team_weight: float = 0.0,
        action_regularization: float = 1e-3,
        value_loss: ValueLoss = "l2",
        huber_delta: float = 1.0,
        adversary: MinimaxAdversary | None = None,
        inference: PolicyInference | None = None,
        burn_in: int = 0,
        use_stored_hidden: bool = True,
        reward_norm: RewardScale | None = None,
    ):
        check_parts(actors, critics, mixer, adversary, inference, other_actions, team_weight)
        check_matd3(actors, critics, mixer, twin_critics, smoothing)
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
        self.mixer, self.other_actions, self.action_regularization = mixer, other_actions, action_regularization
        self.adversary, self.inference, self.smoothing = adversary, inference, smoothing
        self.target_networks = target_copy(self.online_networks())
        self.set_keys()

    def online_networks(self) -> nn.ModuleDict:
        """The networks that learn, including the mixer; ``target_networks`` has their targets by the same names."""
        learners = self._learners.items()
        networks: dict[str, nn.Module] = {f"actor_{name}": actor.agent_network for name, actor in learners}
        others = {"mixer": self.mixer, "inference": self.inference}
        networks |= self._critic_networks()
        return nn.ModuleDict(networks | {name: module for name, module in others.items() if module is not None})

    def _shared_critic_parts(self) -> dict[str, nn.Module]:
        return {} if self.mixer is None else {"mixer": self.mixer, "target_mixer": self.target_networks["mixer"]}

    @property
    def _learners(self) -> dict[str, DeterministicActor]:
        return {name: cast(DeterministicActor, self._actors[name]) for name in self._critics}

    @property
    def out_keys(self) -> list[NestedKey]:
        names = ["td_error", "state_action_value", "target_value"]
        per_group = [f"{group}/{name}" for group in self._critics for name in names]
        names += ["loss_inference", "inference_kl"] * (self.inference is not None)
        gives_per_group = self.mixer is None and len(self._critics) > 1
        return ["loss_actor", "loss_value", *names, *(per_group if gives_per_group else [])]

    def _table(self) -> list[Entry]:
        keys, critics = self.tensor_keys, [*self._critics.values(), *self._twins.values()]
        entries = entries_of_parts(self._actors, self._critics, critics, self.mixer, keys.reward)
        sub_policies = sub_policy_entries(self._learners.values())
        return [*entries, *sub_policies, *replay_entries(keys.padding_mask, keys.priority_weight)]

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        with computing_own_agents(self._networks_of_own_agents()):
            return self._losses(tensordict)

    @property
    def groups_by_agent(self) -> dict[str, GroupSpec]:
        return super().groups_by_agent if self.mixer is None and self.inference is None else {}

    def _networks_of_own_agents(self) -> list[tuple[GroupSpec, nn.Module]]:
        actors = [(actor.group, actor.agent_network) for actor in self._learners.values()]
        return super()._networks_of_own_agents() + (actors if self.other_actions == "replay" else [])

    def _losses(self, tensordict: TensorDictBase) -> TensorDict:
        learners, unrolled = self._learners, self._unrolled(tensordict)
        steps, values = unrolled.steps, unrolled.values
        targets = self._targets(steps, self._values(values), self._next_values(unrolled.data, steps))
        loss_value, metrics = self._critics_loss(tensordict, targets, self._values(unrolled.twin_values))
        policies = self._policies(steps, unrolled.outputs)
        losses = {"loss_actor": self._policy_loss(steps, values, policies), "loss_value": loss_value}
        if self.inference is not None:
            valid = {name: self._valid_mask(steps, actor.group) for name, actor in learners.items()}
            losses["loss_inference"], metrics["inference_kl"] = self.inference(learners, steps, policies, valid)
        return TensorDict({**losses, **metrics})

    def _next_values(self, data: TensorDictBase, steps: TensorDictBase) -> dict[str, Tensor]:
        """The target critics' values ``[*B, T, n_agents, 1]`` of the target actors' next actions, by group."""
        learners, targets = self._learners, self._targets_of("actor")
        vectors = target_actions(learners, targets, data, steps, self.burn_in, self.use_stored_hidden, self.smoothing)
        following = with_next_actions(self._actors, vectors, steps)
        others = self.adversary
        if self.inference is not None:
            others = cast(PolicyInference, self.target_networks["inference"])
        first, second = (
            next_action_values(self._targets_of(kind), learners, data, following, self.burn_in, others)
            for kind in ("critic", "twin_critic")
        )
        return smaller(first, second)

    def _targets(
        self, steps: TensorDictBase, values: Mapping[str, Tensor], next_values: Mapping[str, Tensor]
    ) -> dict[str, ValueTargets]:
        """Values and targets by group, or of the team where there is a mixer."""
        if self.mixer is None:
            return self._own_targets(steps, values, next_values)
        keys, groups, returns = self.tensor_keys, self._groups, partial(self.returns, self.gamma)
        if self.reward_norm is not None:
            steps = self.reward_norm.normalize(steps, read=[keys.reward])
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
