"""The tensordict keys that the packages of the kit share."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GroupKeys", "next_key", "normalized_key"]

Key = str | tuple[str, ...]

DONE = "done"
TERMINATED = "terminated"
TRUNCATED = "truncated"
IS_INIT = "is_init"
STATE = "state"
LATENT = "latent"
NEXT = "next"
CHOSEN_ACTION_VALUE = "chosen_action_value"
PADDING_MASK = ("collector", "mask")
PRIORITY_WEIGHT = "priority_weight"
TD_ERROR = "td_error"


def next_key(key: Key) -> tuple[str, ...]:
    """The same entry one step later.

    >>> next_key(("agents", "reward"))
    ('next', 'agents', 'reward')
    """
    return (NEXT, key) if isinstance(key, str) else (NEXT, *key)


def normalized_key(key: Key) -> Key:
    """Where ``ObservationNorm`` writes the entry at ``key`` for networks that are not the kit's.

    >>> normalized_key(("agents", "observation"))
    ('agents', 'normalized_observation')
    """
    return f"normalized_{key}" if isinstance(key, str) else (*key[:-1], f"normalized_{key[-1]}")


@dataclass(frozen=True)
class GroupKeys:
    """The keys of one agent group, in TorchRL's multi-agent layout.

    Entries have shape ``[*B, T, n_agents, F]``; time is the last batch dimension.

    >>> from ctde_kit.keys import GroupKeys
    >>> keys = GroupKeys("predators")
    >>> keys.observation
    ('predators', 'observation')
    >>> keys.hidden("actor")
    ('predators', 'actor_hidden')
    """

    group: str = "agents"

    def __call__(self, name: str) -> tuple[str, str]:
        """The key of the entry ``name`` of this group."""
        return (self.group, name)

    def hidden(self, owner: str) -> tuple[str, str]:
        """The recurrent state of one network: no leading underscore, so that collectors keep it."""
        return self(f"{owner}_hidden")

    def team_hidden(self, owner: str) -> str:
        """The recurrent state of a network that sees the whole team; it is kept at the root, outside any group."""
        return f"{self.group}_{owner}_hidden"

    @property
    def observation(self) -> tuple[str, str]:
        return self("observation")

    @property
    def state(self) -> tuple[str, str]:
        """The agent-specific global state."""
        return self("state")

    @property
    def action(self) -> tuple[str, str]:
        return self("action")

    @property
    def action_vector(self) -> tuple[str, str]:
        """The action as a critic of actions reads it, unchanged where continuous and one-hot where discrete."""
        return self("action_vector")

    @property
    def last_action(self) -> tuple[str, str]:
        """The action of the step before, one-hot; only of discrete actions."""
        return self("last_action")

    @property
    def action_mask(self) -> tuple[str, str]:
        return self("action_mask")

    @property
    def mask(self) -> tuple[str, str]:
        """Which agents are alive."""
        return self("mask")

    @property
    def reward(self) -> tuple[str, str]:
        return self("reward")

    @property
    def episode_reward(self) -> tuple[str, str]:
        return self("episode_reward")

    @property
    def done(self) -> tuple[str, str]:
        return self(DONE)

    @property
    def terminated(self) -> tuple[str, str]:
        return self(TERMINATED)

    @property
    def truncated(self) -> tuple[str, str]:
        return self(TRUNCATED)

    @property
    def logits(self) -> tuple[str, str]:
        return self("logits")

    @property
    def loc(self) -> tuple[str, str]:
        return self("loc")

    @property
    def scale(self) -> tuple[str, str]:
        return self("scale")

    @property
    def action_log_prob(self) -> tuple[str, str]:
        return self("action_log_prob")

    @property
    def action_value(self) -> tuple[str, str]:
        """The value of every action."""
        return self("action_value")

    @property
    def chosen_action_value(self) -> tuple[str, str]:
        return self(CHOSEN_ACTION_VALUE)

    @property
    def max_action_value(self) -> tuple[str, str]:
        """The value of the best action that is allowed."""
        return self("max_action_value")

    @property
    def state_action_value(self) -> tuple[str, str]:
        """The value of the joint action, as a critic of actions writes it."""
        return self("state_action_value")

    @property
    def noise(self) -> tuple[str, str]:
        """The state of an exploration noise that is correlated over time."""
        return self("noise")

    @property
    def sub_policy(self) -> tuple[str, str]:
        """Which sub-policy of its ensemble each agent follows in this episode."""
        return self("sub_policy")

    @property
    def order(self) -> tuple[str, str]:
        """Which agent stands in each place where a critic sees the agents in another order than their own."""
        return self("order")

    @property
    def attention_weight(self) -> tuple[str, str]:
        """How much each agent's value attends to each agent of the team."""
        return self("attention_weight")

    @property
    def state_value(self) -> tuple[str, str]:
        return self("state_value")

    @property
    def advantage(self) -> tuple[str, str]:
        return self("advantage")

    @property
    def log_ratio_product(self) -> tuple[str, str]:
        """The logarithm of the product of the ratios of the agents that HAPPO updated before this one."""
        return self("log_ratio_product")

    @property
    def value_target(self) -> tuple[str, str]:
        return self("value_target")
