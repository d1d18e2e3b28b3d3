"""Weighted QMIX's central value of the team, and the weights by which the monotonic value learns from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast, get_args

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from ctde_kit.errors import UserError, check_choice
from ctde_kit.objectives.part_checks import check_mixer
from ctde_kit.objectives.q_values import QActor, team_value, write_values
from ctde_kit.objectives.unroll import unroll
from ctde_kit.objectives.value_targets import ValueTargets

Weighting = Literal["optimistic", "central"]
WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)


class CentralValue(nn.Module):
    """The unrestricted value of the team that Weighted QMIX learns beside the monotonic one (Rashid et al. 2020).

    ``QMixLoss(..., central=CentralValue(...))`` takes its targets from this value's target networks, at the joint
    action that the agents choose; both values learn these targets. The monotonic value may be unable to represent all
    of them, so its errors get the weight ``alpha`` instead of 1, except where they matter: with
    ``optimistic``, where the monotonic value is below its target; with ``central``, where the stored joint action is
    the agents' best, or where the target is above the central value of their best one.

    Recurrent networks start each sequence from a hidden state of zero: the stored one is the actors'.

    Args:
        networks: of every group, a network like its actor's, which writes ``(group, "action_value")``
            ``[*B, n_agents, A]``.
        mixer: writes ``chosen_action_value`` ``[*B, 1]`` at the root; it need not be monotonic.
        weighting: ``optimistic`` (OW-QMIX) or ``central`` (CW-QMIX).
        alpha: the weight of errors that matter less, a ratio above 0.

    Raises:
        UserError: for another ``weighting``, an ``alpha`` that is not above 0 and at most 1, or a critic in the place
            of the mixer.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=5, continuous_actions=False)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> def new_actor():
    ...     network = ck.MultiAgentMLP(group.observation_dim, group.action.sizes[0], group.n_agents)
    ...     return ck.MultiAgentQActor(group, ck.own_observation(group), network)
    >>> actor = new_actor()
    >>> networks = {"agents": new_actor().agent_network}
    >>> central = ck.objectives.CentralValue(networks, ck.modules.FeedForwardMixer(team), "optimistic", alpha=0.1)
    >>> loss = ck.QMixLoss({"agents": actor}, ck.QMixer(team), gamma=0.9, central=central)
    >>> loss(ck.TeamReward(team, "mean")(env.rollout(7, actor)))["loss_central"].shape
    torch.Size([])
    """

    def __init__(
        self,
        networks: Mapping[str, TensorDictModuleBase],
        mixer: TensorDictModuleBase,
        weighting: Weighting = "optimistic",
        *,
        alpha: float = 0.1,
    ):
        super().__init__()
        check_mixer("CentralValue", mixer)
        self.networks = nn.ModuleDict(cast("dict[str, nn.Module]", dict(networks)))
        self.mixer = mixer
        self.weighting: Weighting = check_choice("CentralValue", "weighting", weighting, WEIGHTINGS)
        if not 0 < alpha <= 1:
            raise UserError(f"CentralValue: alpha={alpha}: expected a weight above 0 and at most 1")
        self.alpha = alpha

    def of_groups(self) -> dict[str, TensorDictModuleBase]:
        """The networks, by group."""
        return cast("dict[str, TensorDictModuleBase]", dict(self.networks.items()))

    def check_fits(self, actors: Mapping[str, QActor], mixer: nn.Module | None, use_target_networks: bool) -> None:
        """Raise ``UserError`` unless a loss of these parts can learn by this value."""
        if mixer is None or not use_target_networks:
            given = "mixer=None" if mixer is None else "use_target_networks=False"
            raise UserError(f"QMixLoss: central is given with {given}: it needs a mixer and target networks")
        if set(actors) != set(self.networks):
            raise UserError(
                f"QMixLoss: central has networks of {', '.join(self.networks)}: expected one of every group that "
                f"learns, {', '.join(actors)}"
            )

    def learned(
        self, actors: Mapping[str, QActor], data: TensorDictBase, current: TensorDictBase, mixed: NestedKey
    ) -> Tensor:
        """This value ``[*B, T, 1, 1]`` of the joint actions in ``current``, the steps of ``data`` after the burn-in."""
        index = {name: actor.index(current.get(actor.group.keys.action)) for name, actor in actors.items()}
        burn_in = data.shape[-1] - current.shape[-1]
        unrolled = {
            name: unroll(part, data, burn_in, use_stored_hidden=False) for name, part in self.of_groups().items()
        }
        return _joint_value(actors, unrolled, self.mixer, current, index, mixed)

    @property
    def weighs_by_target_networks(self) -> bool:
        """Whether the weights need the target networks' values of the stored steps, not of the next ones alone."""
        return self.weighting == "central"

    @torch.no_grad()
    def weights(
        self,
        actors: Mapping[str, QActor],
        target_networks: nn.ModuleDict,
        target_unrolled: Mapping[str, TensorDictBase],
        current: TensorDictBase,
        targets: ValueTargets,
        mixed: NestedKey,
    ) -> Tensor:
        """The weight ``[*B, T, 1, 1]`` of each error in ``targets``, those of the monotonic value.

        Args:
            actors: of every group.
            target_networks: of the loss, the mixer's among them.
            target_unrolled: what each group's target network wrote along the steps of ``current``; read only where
                ``weighs_by_target_networks``.
            current: the steps after the burn-in, with the agents' values and the actions that they took.
            targets: of the monotonic value.
            mixed: the key at which mixers write.
        """
        if not self.weighs_by_target_networks:
            return self._weight(targets.value < targets.target)
        best = {name: actor.greedy(current) for name, actor in actors.items()}
        mixer = cast(TensorDictModuleBase, target_networks[central_name("mixer")])
        best_value = _joint_value(actors, target_unrolled, mixer, current, best, mixed)
        return self._weight(_took(actors, current, best) | (targets.target > best_value))

    def _weight(self, matters: Tensor) -> Tensor:
        return torch.where(matters, 1.0, self.alpha)


def central_name(part: str) -> str:
    """The name, among the networks of a loss, of a group's central network, or of the central ``mixer``."""
    return f"central_{part}"


def _joint_value(
    actors: Mapping[str, QActor],
    unrolled: Mapping[str, TensorDictBase],
    mixer: TensorDictModuleBase,
    current: TensorDictBase,
    index: Mapping[str, Tensor],
    mixed: NestedKey,
) -> Tensor:
    """The central value ``[*B, T, 1, 1]`` of the actions ``index`` in the steps ``current``.

    ``unrolled`` is what each group's central network wrote along these steps.
    """
    entries = current.copy()
    for name, actor in actors.items():
        write_values(actor, entries, unrolled[name].get(actor.group.keys.action_value), index[name])
    return team_value(mixer, entries, mixed)


def _took(actors: Mapping[str, QActor], current: TensorDictBase, index: Mapping[str, Tensor]) -> Tensor:
    """Where all agents took the actions ``index``, bool ``[*B, T, 1, 1]``; of dead agents both are the no-op."""
    took = [
        (actor.index(current.get(actor.group.keys.action)) == index[name]).all(-1) for name, actor in actors.items()
    ]
    return torch.stack(took).all(0).unsqueeze(-1).unsqueeze(-1)
