"""Critics as configurations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import CheckedConfig, check_choice, check_part, check_positive
from ctde_kit.recipes.configs.networks import MLPNetwork, NetworkConfig

if TYPE_CHECKING:
    from tensordict.nn import TensorDictModuleBase

    from ctde_kit.modules import AttentionCritic, CounterfactualCritic
    from ctde_kit.modules.networks.sharing import ShareParams
    from ctde_kit.specs import GroupSpec, TeamSpec


@dataclass
class CriticConfig(CheckedConfig):
    """A critic of states (MAPPO) or of joint actions (MADDPG); this is the base of all critics' configurations.

    Args:
        average_every: where each agent has a critic of its own: updates from one averaging of parameters to the next;
            null for never.
        network: its network.
    """

    average_every: int | None = None
    network: NetworkConfig = field(default_factory=MLPNetwork)

    @property
    def builds_state(self) -> bool:
        """Whether the agent-specific state that it reads must be added to the environment."""
        return False

    @property
    def choice(self) -> str:
        """How ``critic=...`` names it."""
        return type(self).__name__.removesuffix("CriticConfig").lower()

    @property
    def shares_actor(self) -> bool:
        """Whether it is the actor's own network."""
        return False

    def build(self, team: TeamSpec, group: GroupSpec) -> TensorDictModuleBase:
        """A critic of states."""
        raise NotImplementedError

    def build_action_value(self, team: TeamSpec, group: GroupSpec) -> TensorDictModuleBase:
        """A critic that sees actions, too."""
        raise NotImplementedError


@dataclass
class ValueCriticConfig(CriticConfig):
    """A critic of states (MAPPO) or of joint actions (MADDPG), by what it sees and how many heads it has.

    Args:
        sees: each agent's own `observation`, all observations of the `team`, the root `state`, or `agent_state`.
        heads: for team and state: `one` value for all, one output per `agent`, or a `network` that gives each agent's
            value from a row of its own; network.share_params says which agents share its weights.
        ordering: how a critic that sees the team stacks the agents: in a `fixed` order, each agent's `own_first`, or in
            a `random` order per sample in updates.
        build_state: for `agent_state` in tasks that write none: build it, from the global state (or all observations
            where there is none) and the agent's own observation.
        average_every: where each agent has a critic of its own: updates from one averaging of parameters to the next;
            null for never.
        network: its network.

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import ValueCriticConfig
    >>> env = ck.VmasEnv("navigation", num_envs=2)
    >>> team = ck.TeamSpec.from_env(env)
    >>> critic = ValueCriticConfig(sees="team", heads="agent").build(team, team["agents"])
    >>> critic(env.reset())["agents", "state_value"].shape
    torch.Size([2, 4, 1])
    """

    sees: str = "team"
    heads: str = "agent"
    ordering: str = "fixed"
    build_state: bool = False

    @property
    def builds_state(self) -> bool:
        return self.build_state

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("critic.sees", self.sees, ("observation", "team", "state", "agent_state"))
        check_choice("critic.heads", self.heads, ("one", "agent", "network"))
        if self.sees in ("observation", "agent_state") and self.heads != "agent":
            raise UserError(
                f"critic.heads={self.heads}: it is for critics that see team or state; use "
                "critic=centralized or critic=state, or critic.heads=agent"
            )
        shared = self.network.weight_sharing is True
        if self.sees in ("team", "state") and self.heads != "network" and not shared and not self.network.agent_id:
            raise UserError("critic.network.share_params: one network serves all agents here; use critic.heads=network")
        check_builds_state(self.build_state, self.sees)
        check_ordering(self.ordering, self.sees, self.heads, self.network.agent_id)
        check_averaging(self.average_every, self.network.weight_sharing)
        if self.heads == "network" and shared and not self.network.agent_id and self.ordering != "own_first":
            raise UserError(
                "critic.heads=network: through one network all agents' rows are alike, so are their values; use "
                "critic.network.share_params=false, critic.network.agent_id=true, critic.ordering=own_first, or "
                "critic.heads=one"
            )

    def build(self, team: TeamSpec, group: GroupSpec) -> TensorDictModuleBase:
        """A critic of states."""
        critic = ck.value_critic(
            team,
            group,
            self.network.build,
            sees=self.sees,  # pyright: ignore[reportArgumentType]  # a checked choice
            heads=self.heads,  # pyright: ignore[reportArgumentType]  # a checked choice
            agent_id=self.network.agent_id,
            normalize=self.network.normalize,
            own_first=self.ordering == "own_first",
        )
        return ck.modules.RandomOrderCritic(team, critic) if self.ordering == "random" else critic

    def build_action_value(self, team: TeamSpec, group: GroupSpec) -> TensorDictModuleBase:
        """A critic that sees actions, too: everyone's, or each agent's own where it sees its own observation."""
        check_takes_actions(self.network)
        critic = ck.action_value_critic(
            team,
            group,
            self.network.build,
            sees=self.sees,  # pyright: ignore[reportArgumentType]  # a checked choice
            heads=self.heads,  # pyright: ignore[reportArgumentType]  # a checked choice
            agent_id=self.network.agent_id,
            own_first=self.ordering == "own_first",
        )
        return ck.modules.RandomOrderCritic(team, critic) if self.ordering == "random" else critic


@dataclass
class AttentionCriticConfig(CriticConfig):
    """A critic of states (MAPPO) or of joint actions (MADDPG) in which agents attend to one another.

    Args:
        embed_dim: features of each agent's embedding.
        n_heads: of the attention, a divisor of embed_dim.
        average_every: where each agent has a critic of its own: updates from one averaging of parameters to the next;
            null for never.
        network: what follows the attention, a perceptron; its share_params, agent_id and normalize hold for the
            encoders before it, too.

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import AttentionCriticConfig, MLPNetwork
    >>> team = ck.TeamSpec.from_env(ck.VmasEnv("simple_tag", num_envs=2))
    >>> critic = AttentionCriticConfig(embed_dim=8, n_heads=2, network=MLPNetwork([16])).build(team, team["agent"])
    >>> critic.out_keys
    [('agent', 'state_value'), ('agent', 'attention_weight')]
    """

    embed_dim: int = 64
    n_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(**{"critic.embed_dim": self.embed_dim, "critic.n_heads": self.n_heads})
        if self.embed_dim % self.n_heads:
            raise UserError(
                f"critic.n_heads={self.n_heads}: expected a divisor of critic.embed_dim={self.embed_dim}; change one"
            )
        if not isinstance(self.network, MLPNetwork):
            raise UserError(
                "critic=attention: expected a feed-forward network without a channel; use network@critic.network=mlp"
            )
        check_averaging(self.average_every, self.network.weight_sharing)

    def build(self, team: TeamSpec, group: GroupSpec) -> AttentionCritic:
        """A critic of states."""
        return self._critic(team, group, of_actions=False)

    def build_action_value(self, team: TeamSpec, group: GroupSpec) -> AttentionCritic:
        """A critic of the team's actions."""
        check_takes_actions(self.network)
        return self._critic(team, group, of_actions=True)

    def _critic(self, team: TeamSpec, group: GroupSpec, *, of_actions: bool) -> AttentionCritic:
        return ck.modules.AttentionCritic(
            team,
            group,
            self.network.build,
            of_actions=of_actions,
            embed_dim=self.embed_dim,
            n_heads=self.n_heads,
            share_params=self.network.weight_sharing,
            agent_id=self.network.agent_id,
            normalize=self.network.normalize,
        )


@dataclass
class CounterfactualCriticConfig(CriticConfig):
    """A critic of every action of each agent, given the other agents' actions (COMA): each agent has a row of its own.

    Args:
        sees: all observations of the `team`, the root `state`, or `agent_state`; and always the others' actions.
        ordering: how a critic that sees the team stacks the agents: in a `fixed` order, or each agent's `own_first`.
        build_state: for `agent_state` in tasks that write none: build it, from the global state (or all observations
            where there is none) and the agent's own observation.
        average_every: where each agent has a critic of its own: updates from one averaging of parameters to the next;
            null for never.
        network: its network, a perceptron.

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import CounterfactualCriticConfig
    >>> env = ck.VmasEnv("navigation", num_envs=2, continuous_actions=False)
    >>> team = ck.TeamSpec.from_env(env)
    >>> critic = CounterfactualCriticConfig().build_counterfactual(team, team["agents"])
    >>> critic(env.rollout(1)[:, 0])["agents", "action_value"].shape
    torch.Size([2, 4, 9])
    """

    sees: str = "team"
    ordering: str = "fixed"
    build_state: bool = False
    network: NetworkConfig = field(default_factory=lambda: MLPNetwork(activation="relu", agent_id=True))

    @property
    def builds_state(self) -> bool:
        return self.build_state

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("critic.sees", self.sees, ("team", "state", "agent_state"))
        check_choice("critic.ordering", self.ordering, ("fixed", "own_first"))
        check_ordering(self.ordering, self.sees, "network", self.network.agent_id)
        check_builds_state(self.build_state, self.sees)
        check_averaging(self.average_every, self.network.weight_sharing)
        check_takes_actions(self.network)
        if not isinstance(self.network, MLPNetwork):
            raise UserError(
                "critic=counterfactual: expected a feed-forward network without a channel; use "
                "network@critic.network=mlp"
            )
        told_apart = self.network.agent_id or self.ordering == "own_first" or self.sees == "agent_state"
        if self.network.weight_sharing is not False and not told_apart:
            raise UserError(
                "critic.network.agent_id=false: agents that share a critic's weights must be told apart; use "
                "critic.network.agent_id=true, critic.network.share_params=false or critic.ordering=own_first"
            )

    def build(self, team: TeamSpec, group: GroupSpec) -> TensorDictModuleBase:
        """Refused: it is no critic of states."""
        raise UserError("critic=counterfactual: this recipe learns values of states; use critic=centralized")

    def build_action_value(self, team: TeamSpec, group: GroupSpec) -> TensorDictModuleBase:
        """Refused: it does not value the joint action that it sees."""
        raise UserError("critic=counterfactual: this recipe learns values of joint actions; use critic=centralized")

    def build_counterfactual(self, team: TeamSpec, group: GroupSpec) -> CounterfactualCritic:
        """The critic of the actions of ``group``."""
        return ck.modules.counterfactual_critic(
            team,
            group,
            self.network.build,
            sees=self.sees,  # pyright: ignore[reportArgumentType]  # a checked choice
            agent_id=self.network.agent_id,
            own_first=self.ordering == "own_first",
        )


def own_first_critic() -> ValueCriticConfig:
    """One shared critic that sees the team, each agent's own observation and action first."""
    return ValueCriticConfig(heads="network", ordering="own_first", network=MLPNetwork(activation="relu"))


def check_decentralized(algorithm: str, critic: CriticConfig) -> None:
    """Raise ``UserError`` where a recipe of decentralized critics has another one."""
    fits = isinstance(critic, ValueCriticConfig) and critic.sees == "observation"
    found = f"critic.sees={critic.sees}" if isinstance(critic, ValueCriticConfig) else f"critic={critic.choice}"
    python = "critic=ValueCriticConfig(sees='observation')"
    check_part(algorithm, fits, expected="critic=decentralized", python=python, found=found)


def check_one_value(algorithm: str, critic: CriticConfig) -> None:
    """Raise ``UserError`` where a recipe whose agents have one value together has a critic with several."""
    is_value = isinstance(critic, ValueCriticConfig)
    check_part(
        algorithm,
        is_value and critic.heads == "one" and not critic.network.agent_id,
        expected="critic.heads=one without critic.network.agent_id, one value per group",
        python="critic=ValueCriticConfig(heads='one')",
        found=f"critic.heads={critic.heads}, critic.network.agent_id={critic.network.agent_id}"
        if is_value
        else f"critic={critic.choice}",
    )


def check_takes_actions(network: NetworkConfig) -> None:
    """Raise ``UserError`` where actions would be normalized."""
    if network.normalize:
        raise UserError("critic.network.normalize=true: a critic of actions takes them as they are; leave it out")


def check_builds_state(build_state: bool, sees: str) -> None:
    """Raise ``UserError`` where a state would be built that the critic does not see."""
    if build_state and sees != "agent_state":
        raise UserError(f"critic.build_state=true: it is for critic=agent_state, found critic.sees={sees}")


def check_averaging(average_every: int | None, share_params: ShareParams) -> None:
    """Raise ``UserError`` where parameters are to be averaged and agents share them, all or in clusters."""
    check_positive(**{"critic.average_every": average_every})
    if average_every is not None and share_params is not False:
        raise UserError(
            f"critic.average_every={average_every}: it averages critics that are one per agent, found critic.network."
            f"share_params={str(share_params).lower()}; use critic.heads=network critic.network.share_params=false"
        )


def check_ordering(ordering: str, sees: str, heads: str, agent_id: bool) -> None:
    """Raise ``UserError`` for an unknown ordering, and for one that means nothing for such a critic."""
    check_choice("critic.ordering", ordering, ("fixed", "own_first", "random"))
    if ordering != "fixed" and sees != "team":
        raise UserError(
            f"critic.ordering={ordering}: a critic with critic.sees={sees} stacks no observations; leave it out, or "
            "use critic=centralized"
        )
    if ordering == "own_first" and heads != "network" and not agent_id:
        raise UserError(
            f"critic.ordering=own_first: with critic.heads={heads} one row serves all agents; use critic.heads=network "
            "or critic.ordering=fixed"
        )
    if ordering == "random" and heads == "network" and agent_id:
        raise UserError(
            "critic.ordering=random: with critic.heads=network an agent id would name a place, and places change; use "
            "critic.network.agent_id=false, or critic.heads=agent"
        )
