"""Tables of what a batch must hold: rows of key, shape and dtype, against which losses check what they read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tensordict.utils import NestedKey, unravel_key

from ctde_kit.keys import NEXT, GroupKeys, Key, next_key
from ctde_kit.specs import ActionSpec, GroupSpec

EntryDtype = Literal["float", "any float", "bool", "int64", "one-hot", "any"]


@dataclass(frozen=True)
class Entry:
    """One row of a table of the entries that a loss or a module reads.

    Args:
        key: the entry's key.
        shape: its axes by name, such as ``"*B n_agents F"``; ``...`` at the end stands for axes that are not known.
        sizes: the sizes of the axes after ``*B``; ``None`` for a size that is not known, on which all entries of a
            group must agree.
        dtype: ``float`` is the floating dtype of the parameters that learn from it, ``any float`` any floating dtype;
            ``one-hot`` is bool or an integer, with exactly one 1 along the last axis; ``any`` is not checked.
        optional: the entry may be missing.
        n_values: for an index, how many values it may take: one number, or one for each place of the last axis; empty
            for other entries.
        mask: the key of the mask of living agents; the indices of dead agents may be anything.
        advice: what an error says to do if the entry is missing.

    >>> from ctde_kit.entry_tables import Entry
    >>> Entry(("agents", "reward"), "*B n_agents 1", (3, 1), "float").axes
    '[*B, n_agents, 1]'
    """

    key: Key
    shape: str
    sizes: tuple[int | None, ...]
    dtype: EntryDtype
    optional: bool = False
    n_values: tuple[int, ...] = ()
    mask: Key | None = None
    advice: str = ""

    @property
    def axes(self) -> str:
        """The shape as documentation writes it."""
        return f"[{', '.join(self.shape.split())}]"

    @property
    def is_open(self) -> bool:
        """Whether the shape ends in axes that are not known here."""
        return self.shape.endswith("...")

    @property
    def group(self) -> str:
        """The name of the group that the entry belongs to; empty for an entry at the root."""
        path = (self.key,) if isinstance(self.key, str) else self.key
        path = path[1:] if path[0] == NEXT else path
        return path[0] if len(path) > 1 else ""

    @property
    def is_next_mask(self) -> bool:
        """Whether it says which agents of a group are alive after the step."""
        return bool(self.group) and self.key == next_key(GroupKeys(self.group).mask)

    @property
    def named_sizes(self) -> list[tuple[str, int | None]]:
        """The axes after ``*B`` with their sizes."""
        return list(zip(self.shape.split()[1:], self.sizes, strict=False))

    def at(self, key: Key) -> Entry:
        """The same entry under another key."""
        return replace(self, key=key)

    def next(self) -> Entry:
        """The same entry one step later."""
        return replace(self, key=next_key(self.key), mask=None if self.mask is None else next_key(self.mask))

    def if_present(self) -> Entry:
        """The same entry, which may be missing."""
        return replace(self, optional=True)


def as_key(key: NestedKey) -> Key:
    """A key of a tensordict as one string, or as a flat tuple of strings.

    >>> from ctde_kit.entry_tables import as_key
    >>> as_key(("next", ("agents", "reward")))
    ('next', 'agents', 'reward')
    """
    flat = unravel_key(key)
    return flat if isinstance(flat, str) else tuple(map(str, flat))


def unknown_entry(key: Key) -> Entry:
    """An entry of which only its key is known: it must be there."""
    return Entry(key, "*B ...", (), "any")


def root_entry(key: Key, dtype: EntryDtype, advice: str = "") -> Entry:
    """An entry ``[*B, 1]`` at the root, such as a flag or a reward of the whole team."""
    return Entry(key, "*B 1", (1,), dtype, advice=advice)


def one_per_step(key: Key, dtype: EntryDtype) -> Entry:
    """An entry ``[*B]`` that may be missing, such as the mask of padded steps."""
    return Entry(key, "*B", (), dtype, optional=True)


def state_entry(key: Key, features: int) -> Entry:
    """A global state ``[*B, S]``."""
    return Entry(key, "*B S", (features,), "float")


@dataclass(frozen=True)
class GroupEntries:
    """The entries of one group of agents: shape and dtype of what stands at each of its ``GroupKeys``.

    Args:
        keys: the group's keys.
        n_agents: how many agents it has; ``None`` where that is not known.
        action_spec: the agents' actions; ``None`` where that is not known.
        observation_dim: features of an observation; ``None`` where that is not known.
        state_dim: features of the agent-specific state; ``None`` where there is none or that is not known.
        agents_die: whether the env says which agents are alive.

    >>> from ctde_kit.entry_tables import GroupEntries
    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> entries = GroupEntries.of(GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,))))
    >>> entries.action.axes, entries.action.sizes, entries.action.dtype
    ('[*B, n_agents]', (3,), 'int64')
    """

    keys: GroupKeys
    n_agents: int | None = None
    action_spec: ActionSpec | None = None
    observation_dim: int | None = None
    state_dim: int | None = None
    agents_die: bool = False

    @classmethod
    def of(cls, group: GroupSpec) -> GroupEntries:
        """The entries of a group whose spec is known."""
        return cls(group.keys, group.n_agents, group.action, group.observation_dim, group.state_dim, group.mask)

    def by_key(self) -> dict[Key, Entry]:
        """All entries that networks read."""
        entries = [self.observation, self.state, self.last_action, self.action, self.action_vector, self.action_mask]
        return {entry.key: entry for entry in [*entries, self.mask, self.order]}

    @property
    def observation(self) -> Entry:
        return self._per_agent(self.keys.observation, "F", self.observation_dim, "float")

    @property
    def state(self) -> Entry:
        return self._per_agent(self.keys.state, "S", self.state_dim, "float")

    @property
    def action(self) -> Entry:
        """The action in the env's form."""
        key, spec, mask = self.keys.action, self.action_spec, self.keys.mask if self.agents_die else None
        if spec is None:
            return Entry(key, "*B n_agents ...", (self.n_agents,), "any")
        if spec.kind == "continuous":
            return self._per_agent(key, "D", spec.sizes[0], "float")
        if spec.kind == "one_hot":
            return replace(self._per_agent(key, "N", spec.sizes[0], "one-hot"), mask=mask)
        if spec.kind == "categorical":
            return Entry(key, "*B n_agents", (self.n_agents,), "int64", n_values=spec.sizes, mask=mask)
        sizes = (self.n_agents, len(spec.sizes))
        return Entry(key, "*B n_agents K", sizes, "int64", n_values=spec.sizes, mask=mask)

    @property
    def last_action(self) -> Entry:
        return self._per_agent(self.keys.last_action, "N", self._vector_dim, "float")

    @property
    def action_vector(self) -> Entry:
        return self._per_agent(self.keys.action_vector, "D", self._vector_dim, "float")

    @property
    def action_mask(self) -> Entry:
        return self._per_agent(self.keys.action_mask, "N", self._vector_dim, "bool")

    @property
    def mask(self) -> Entry:
        return Entry(self.keys.mask, "*B n_agents", (self.n_agents,), "bool", advice="the env must write it")

    @property
    def reward(self) -> Entry:
        """Each agent's reward, under ``next``."""
        return self.value(next_key(self.keys.reward), "the env must write it for each agent")

    @property
    def order(self) -> Entry:
        n_values = () if self.n_agents is None else (self.n_agents,)
        return Entry(self.keys.order, "*B n_agents", (self.n_agents,), "int64", n_values=n_values)

    @property
    def action_log_prob(self) -> Entry:
        return Entry(self.keys.action_log_prob, "*B n_agents", (self.n_agents,), "float")

    @property
    def ends(self) -> list[Entry]:
        """The flags of single agents, under ``next``; envs may write the team's alone."""
        keys = (next_key(self.keys.done), next_key(self.keys.terminated))
        return [self._per_agent(key, "1", 1, "bool").if_present() for key in keys]

    def value(self, key: Key, advice: str = "") -> Entry:
        """A number for each agent, such as a value or an advantage."""
        return replace(self._per_agent(key, "1", 1, "float"), advice=advice)

    def sub_policy(self, size: int) -> Entry:
        """Which of ``size`` sub-policies each agent follows."""
        advice = "store which sub-policy acted"
        shape = "*B n_agents"
        return Entry(self.keys.sub_policy, shape, (self.n_agents,), "int64", n_values=(size,), advice=advice)

    @property
    def _vector_dim(self) -> int | None:
        return None if self.action_spec is None else self.action_spec.vector_dim

    def _per_agent(self, key: Key, axis: str, size: int | None, dtype: EntryDtype) -> Entry:
        return Entry(key, f"*B n_agents {axis}", (self.n_agents, size), dtype)
