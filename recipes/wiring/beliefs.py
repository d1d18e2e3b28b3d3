"""MADDPG's options about what agents know and believe of the others' actions."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.modules import InferredPolicies, MultiAgentMLP
from ctde_kit.objectives import PolicyInference
from ctde_kit.protocols import SaysDecentralized
from ctde_kit.recipes.configs.networks import NetworkConfig, activation_class
from ctde_kit.specs import TeamSpec


class WithBeliefs(Protocol):
    """A recipe whose agents infer the others' policies."""

    actor: NetworkConfig
    inference_entropy: float
    inference_deviation: float


def policy_inference(cfg: WithBeliefs, team: TeamSpec, device: str) -> PolicyInference:
    """The inference of policies: for each pair of agents a perceptron with the widths and activation of the actors."""
    make_network = partial(
        MultiAgentMLP,
        share_params=False,
        num_cells=cfg.actor.num_cells,
        activation_class=activation_class(cfg.actor.activation),
    )
    networks = InferredPolicies(team, make_network)
    inference = PolicyInference(networks, entropy_coeff=cfg.inference_entropy, deviation=cfg.inference_deviation)
    return inference.to(device)


def check_sees_others(
    critics: Iterable[nn.Module],
    *,
    other_actions: str,
    minimax_epsilon: float | None = None,
    infer_policies: bool = False,
) -> None:
    """Raise ``UserError`` for options about the others' actions where no critic sees them."""
    asked = {
        "other_actions=current": other_actions == "current",
        "minimax_epsilon": minimax_epsilon is not None,
        "infer_policies=true": infer_policies,
    }
    blind = all(isinstance(critic, SaysDecentralized) and critic.decentralized for critic in critics)
    if any(asked.values()) and blind:
        name = next(name for name, is_asked in asked.items() if is_asked)
        raise UserError(
            f"{name}: these critics do not see the others' actions; leave it out, or use critic=centralized with "
            "ctde-maddpg or ctde-masac"
        )
