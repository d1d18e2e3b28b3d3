"""What a network builder must know of an environment: groups, sizes, action kinds, masks, states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, MultiOneHot, OneHot, TensorSpec
from torchrl.data.tensor_specs import Stacked, StackedComposite
from torchrl.envs import EnvBase

from ctde_kit.bounds import round_inward
from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, IS_INIT, LATENT, NEXT, PADDING_MASK, STATE, TERMINATED, TRUNCATED, GroupKeys

__all__ = ["ActionSpec", "GroupSpec", "TeamSpec"]

ActionKind = Literal["continuous", "categorical", "one_hot", "multi_discrete"]

# Names of the root entries of a step; no group may have one of them.
_ROOT = (NEXT, STATE, DONE, TERMINATED, TRUNCATED, IS_INIT, LATENT, PADDING_MASK[0], "reward")

_LIKE_AGENTS = "pad them to one size, or split the group with `group_map`"


def one_hot(index: Tensor, size: int) -> Tensor:
    """One-hot vectors, bool ``[..., size]``; torch's own ``one_hot`` reads the data, which no graph can."""
    return index.unsqueeze(-1) == torch.arange(size, device=index.device)


def choice_sizes(name: str, spec: MultiCategorical) -> tuple[int, ...]:
    """How many options each choice of an agent has; raises ``UserError``, by ``name``, where agents differ in it."""
    sizes = torch.as_tensor(spec.nvec).reshape(-1, spec.shape[-1])
    if (sizes != sizes[0]).any():
        raise UserError(
            f"{name}: expected as many options for all agents, found {sizes.unique(dim=0).tolist()}; {_LIKE_AGENTS}"
        )
    return tuple(int(n) for n in sizes[0])


@dataclass(frozen=True)
class ActionSpec:
    """The action of each agent of a group.

    Args:
        kind: how the action is stored: ``continuous`` float ``[n_agents, D]``; ``categorical`` int ``[n_agents]``;
            ``one_hot`` ``[n_agents, N]``; ``multi_discrete`` int ``[n_agents, K]``.
        sizes: ``(D,)``, ``(N,)``, ``(N,)`` or one size for each of the K choices.
        low: lower bounds ``[n_agents][D]`` of a continuous action, else empty. Those of an env that are more precise
            than PyTorch's default dtype are rounded inward, so that actions are within both.
        high: upper bounds, likewise.
    """

    kind: ActionKind
    sizes: tuple[int, ...]
    low: tuple[tuple[float, ...], ...] = ()
    high: tuple[tuple[float, ...], ...] = ()

    @property
    def discrete(self) -> bool:
        return self.kind != "continuous"

    @property
    def vector_dim(self) -> int:
        """Size of one agent's action as a vector: D, or all choices one-hot side by side."""
        return sum(self.sizes)

    @property
    def n_parameters(self) -> int:
        """Outputs that a policy network needs for each agent: logits, or location and scale."""
        return sum(self.sizes) if self.discrete else 2 * self.sizes[0]

    def tensor_spec(self, n_agents: int | None) -> TensorSpec:
        """The spec of the actions ``[n_agents, ...]`` of a group, as TorchRL has it; ``None``: of one agent's action.

        >>> ActionSpec("categorical", (4,)).tensor_spec(3).shape
        torch.Size([3])
        """
        batch = () if n_agents is None else (n_agents,)
        if self.kind == "categorical":
            return Categorical(self.sizes[0], shape=torch.Size(batch))
        if self.kind == "one_hot":
            return OneHot(self.sizes[0], shape=torch.Size([*batch, self.sizes[0]]))
        if self.kind == "multi_discrete":
            return MultiCategorical(list(self.sizes), shape=torch.Size([*batch, len(self.sizes)]))
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        return Bounded(low, high) if batch else Bounded(low[0], high[0])

    def vector(self, action: Tensor) -> Tensor:
        """Float vectors ``[*B, n_agents, vector_dim]`` of actions in the env's form.

        >>> ActionSpec("multi_discrete", (2, 3)).vector(torch.tensor([[1, 2]]))
        tensor([[0., 1., 0., 0., 1.]])
        """
        if self.kind == "continuous":
            return action
        if self.kind == "one_hot":
            return action.to(torch.get_default_dtype())
        choices = action.unsqueeze(-1) if self.kind == "categorical" else action
        parts = [one_hot(choices[..., k], n) for k, n in enumerate(self.sizes)]
        return torch.cat(parts, -1).to(torch.get_default_dtype())


@dataclass(frozen=True)
class GroupSpec:
    """One group of like agents: ``observation`` is ``[*B, n_agents, observation_dim]``.

    Args:
        name: the group's name, the first part of its keys.
        n_agents: how many agents it has.
        observation_dim: features of one agent's observation.
        action: what the agents do.
        action_mask: whether the env says which actions are allowed.
        mask: whether the env says which agents are alive.
        state_dim: features of the agent-specific global state, ``None`` where there is none.

    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> group = GroupSpec("agents", n_agents=3, observation_dim=5, action=ActionSpec("categorical", (4,)))
    >>> group.keys.observation, group.action.n_parameters
    (('agents', 'observation'), 4)
    """

    name: str
    n_agents: int
    observation_dim: int
    action: ActionSpec
    action_mask: bool = False
    mask: bool = False
    state_dim: int | None = None

    @property
    def keys(self) -> GroupKeys:
        return GroupKeys(self.name)

    @property
    def action_spec(self) -> Composite:
        """The spec of ``(name, "action")`` ``[n_agents, ...]`` as TorchRL has it, without batch dimensions."""
        actions = Composite({"action": self.action.tensor_spec(self.n_agents)}, shape=torch.Size([self.n_agents]))
        return Composite({self.name: actions})

    def check_agent(self, agent: int) -> None:
        """Raise ``UserError`` unless the group has the agent that ``for_agent`` was asked for."""
        if not 0 <= agent < self.n_agents:
            raise UserError(f"for_agent({agent}): group {self.name!r} has agents 0 to {self.n_agents - 1}")

    def check_one_choice(self, algorithm: str) -> None:
        """Raise ``UserError`` unless each agent picks one of N actions, as an algorithm needs."""
        kind = self.action.kind
        if kind == "continuous":
            raise UserError(
                f"group {self.name!r} has continuous actions: {algorithm} needs discrete actions; use an env "
                "that has them"
            )
        if kind == "multi_discrete":
            raise UserError(
                f"group {self.name!r} has actions of kind {kind!r}: {algorithm} needs one choice per agent, "
                "categorical or one_hot; use another env, or MultiAgentActor"
            )

    def for_agent(self, agent: int) -> GroupSpec:
        """The spec of a group of this agent alone, under the same name.

        Raises:
            UserError: for an index that the group lacks.
        """
        self.check_agent(agent)
        low, high = self.action.low[agent : agent + 1], self.action.high[agent : agent + 1]
        return replace(self, n_agents=1, action=replace(self.action, low=low, high=high))


@dataclass(frozen=True)
class TeamSpec:
    """All groups of an environment and the global ``state`` ``[*B, state_dim]``, if it has one.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.specs import TeamSpec
    >>> team = TeamSpec.from_env(VmasEnv("simple_tag", num_envs=2))
    >>> [(group.name, group.n_agents, group.observation_dim) for group in team]
    [('adversary', 3, 16), ('agent', 1, 14)]
    """

    groups: tuple[GroupSpec, ...]
    state_dim: int | None = None

    def __iter__(self) -> Iterator[GroupSpec]:
        return iter(self.groups)

    def __getitem__(self, name: str) -> GroupSpec:
        for group in self.groups:
            if group.name == name:
                return group
        raise UserError(f"no group {name!r}: this team has {[group.name for group in self.groups]}")

    @property
    def observation_dim(self) -> int:
        """Features of all agents' observations, concatenated."""
        return sum(group.n_agents * group.observation_dim for group in self.groups)

    @classmethod
    def from_env(cls, env: EnvBase) -> TeamSpec:
        """Read groups and sizes off a TorchRL env whose action keys are ``(group, "action")``.

        Raises:
            UserError: for a single-agent env, a group that is named like another entry or whose agents differ in their
                spaces, observations that are not flat vectors, or actions of an unknown kind.
        """
        batch_dims = len(env.batch_size)
        observation_spec: Composite = env.observation_spec
        groups = []
        for key in env.action_keys:
            if isinstance(key, str):
                raise UserError(
                    f"the env {type(env).__name__} has the root action {key!r}, so it has a single agent: "
                    "expected actions under (group, 'action'); use a multi-agent env"
                )
            _check_name(str(key[0]))
            groups.append(_group_spec(str(key[0]), env.full_action_spec[key], observation_spec, batch_dims))
        return cls(tuple(groups), _flat_dim(observation_spec, STATE, batch_dims))


def _check_name(name: str) -> None:
    """Raise ``UserError`` for a name that another entry has, or that no module and no file can have."""
    if name in _ROOT or {".", "/"} & {*name}:
        raise UserError(
            f"group {name!r}: expected a name that is none of {', '.join(_ROOT)} and has no '.' or '/' in it; rename "
            "the group, such as with `group_map`"
        )


def _group_spec(name: str, action: TensorSpec, observation_spec: Composite, batch_dims: int) -> GroupSpec:
    keys = GroupKeys(name)
    if name not in observation_spec.keys():  # noqa: SIM118  # a spec looks for values
        raise UserError(
            f"group {name!r} has actions and no observations: expected the key {keys.observation}, found "
            f"{list(observation_spec.keys(True, True))}; rename it with the transform RenameTransform"
        )
    composite = observation_spec[name]
    if isinstance(composite, StackedComposite) or not isinstance(action, TensorSpec) or isinstance(action, Stacked):
        raise UserError(f"the agents of group {name!r} differ in their spaces: expected like agents; {_LIKE_AGENTS}")
    observation_dim = _flat_dim(observation_spec, keys.observation, batch_dims + 1)
    if observation_dim is None:
        raise UserError(
            f"key {keys.observation}: expected a flat observation [n_agents, F], found the entries "
            f"{list(composite.keys())}; make one of them with the transform CatTensors"
        )
    names = set(composite.keys())
    return GroupSpec(
        name=name,
        n_agents=action.shape[batch_dims],
        observation_dim=observation_dim,
        action=_action_spec(name, action, batch_dims),
        action_mask="action_mask" in names,
        mask="mask" in names,
        state_dim=_flat_dim(observation_spec, keys.state, batch_dims + 1),
    )


def _flat_dim(spec: Composite, key: str | tuple[str, str], leading: int) -> int | None:
    if key not in spec.keys(True, True):
        if key in spec.keys(True):
            raise UserError(
                f"key {key}: expected one tensor, found the entries {list(spec[key].keys())}; concatenate them with "
                "the transform CatTensors"
            )
        return None
    shape, dtype = spec[key].shape[leading:], spec[key].dtype
    if len(shape) != 1:
        raise UserError(
            f"key {key}: expected one feature dimension, found shape {list(shape)}; flatten it with the transform "
            "FlatVectors"
        )
    if dtype != torch.get_default_dtype():
        raise UserError(
            f"key {key}: expected {torch.get_default_dtype()}, found {dtype}; cast it with the transform FlatVectors"
        )
    return shape[0]


def _action_spec(name: str, spec: TensorSpec, batch_dims: int) -> ActionSpec:
    shape = spec.shape[batch_dims:]
    # They are subclasses of Categorical and OneHot, but mean several choices at once.
    if isinstance(spec, Binary | MultiOneHot):
        sizes = [2] * shape[-1] if isinstance(spec, Binary) else list(spec.nvec)
        raise UserError(
            f"the actions of group {name!r} are {type(spec).__name__}, several choices at once: expected "
            f"MultiCategorical({sizes}), int64 [n_agents, {len(sizes)}]; convert them with a transform"
        )
    if isinstance(spec, Categorical) and not isinstance(spec, OneHot | MultiCategorical):
        _check_dims(name, spec, shape, "")
        return ActionSpec("categorical", (int(spec.space.n),))
    _check_dims(name, spec, shape, ", F")
    if isinstance(spec, OneHot):
        return ActionSpec("one_hot", (shape[-1],))
    if isinstance(spec, MultiCategorical):
        return ActionSpec("multi_discrete", choice_sizes(f"the actions of group {name!r}", spec))
    if isinstance(spec, Bounded):
        first_env = (0,) * batch_dims
        space: Any = spec.space
        if not spec.dtype.is_floating_point:
            raise UserError(
                f"the actions of group {name!r} are Bounded of {spec.dtype}: expected floats, or whole numbers as "
                "Categorical or MultiCategorical; convert them with a transform"
            )
        exact, dtype = (space.low[first_env], space.high[first_env]), torch.get_default_dtype()
        low, high = round_inward(*exact, dtype)
        if not (torch.isfinite(low).all() and torch.isfinite(high).all() and (low < high).all()):
            raise UserError(
                f"the actions of group {name!r} have the bounds {exact[0].tolist()} and {exact[1].tolist()}: expected "
                f"finite ones, low < high, in {dtype}; set them in the env"
            )
        return ActionSpec("continuous", (shape[-1],), _as_tuple(low), _as_tuple(high))
    raise UserError(
        f"the actions of group {name!r} are {type(spec).__name__}: expected Bounded, Categorical, OneHot or "
        "MultiCategorical; convert them with a transform"
    )


def _check_dims(name: str, spec: TensorSpec, shape: torch.Size, features: str) -> None:
    """Raise ``UserError`` unless ``shape``, without the batch, is ``[n_agents]`` with or without one dimension more."""
    if len(shape) != 1 + bool(features):
        hint = "FlatVectors" if isinstance(spec, Bounded) else "SqueezeTransform or FlattenAction"
        raise UserError(
            f"the actions of group {name!r} are {type(spec).__name__} of shape {list(shape)}: expected "
            f"[n_agents{features}]; change them with a transform such as {hint}"
        )


def _as_tuple(bounds: torch.Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in bounds.tolist())
