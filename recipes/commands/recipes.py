"""The recipes that a command or a run directory can name."""

from __future__ import annotations

from dataclasses import dataclass

from ctde_kit.recipes.coma import COMAConfig
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.happo import HAPPOConfig
from ctde_kit.recipes.maddpg import MADDPGConfig
from ctde_kit.recipes.mappo import MAPPOConfig
from ctde_kit.recipes.masac import MASACConfig
from ctde_kit.recipes.pqn import PQNConfig
from ctde_kit.recipes.qmix import QMIXConfig


@dataclass(frozen=True)
class Recipe:
    """A recipe: ``conf/NAME.yaml`` holds the options that set it apart from others of the same configuration.

    Args:
        config: its configuration, which builds the parts.
        summary: what it is, in one line.
        critics: what ``critic`` can choose; empty where the recipe has none.
    """

    config: type[RecipeConfig]
    summary: str
    critics: tuple[str, ...] = ()


_OF_ACTIONS = ("agent_state", "attention", "centralized", "decentralized", "own_first", "state")
_OF_STATES = (*_OF_ACTIONS, "shared")
_OF_EACH_ALONE = ("decentralized", "shared")

RECIPES = {
    "mappo": Recipe(MAPPOConfig, "PPO with a centralized critic", _OF_STATES),
    "ippo": Recipe(MAPPOConfig, "PPO with a decentralized critic", _OF_EACH_ALONE),
    "a2c": Recipe(
        MAPPOConfig, "advantage actor-critic with a centralized critic: one gradient step per batch", _OF_STATES
    ),
    "happo": Recipe(
        HAPPOConfig,
        "PPO of one agent after the other, each with the ratios of those before it",
        ("centralized", "state"),
    ),
    "qmix": Recipe(QMIXConfig, "double Q-learning of a team value, mixed by a monotonic network"),
    "vdn": Recipe(QMIXConfig, "double Q-learning of the sum of the agents' values"),
    "iql": Recipe(QMIXConfig, "double Q-learning, each agent for itself"),
    "qplex": Recipe(QMIXConfig, "double Q-learning of a team value, mixed by a duplex dueling network"),
    "pqn": Recipe(PQNConfig, "Q-learning without replay and target networks, from many parallel environments"),
    "maddpg": Recipe(MADDPGConfig, "deterministic actors, critics of joint actions", _OF_ACTIONS),
    "iddpg": Recipe(MADDPGConfig, "deterministic actors, decentralized critics", ("decentralized",)),
    "facmac": Recipe(MADDPGConfig, "deterministic actors, decentralized critics whose values are mixed", _OF_ACTIONS),
    "masac": Recipe(MASACConfig, "stochastic actors that are paid for entropy, critics of joint actions", _OF_ACTIONS),
    "isac": Recipe(
        MASACConfig, "stochastic actors that are paid for entropy, decentralized critics", ("decentralized",)
    ),
    "coma": Recipe(
        COMAConfig, "policy gradients with a counterfactual baseline, from critics of every action", ("counterfactual",)
    ),
}
