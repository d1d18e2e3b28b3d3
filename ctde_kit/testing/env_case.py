"""An env under examination: repeatable rollouts of it, with random actions that obey its masks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, MultiCategorical, OneHot, TensorSpec
from torchrl.envs import Compose, EnvBase, StepCounter, TransformedEnv
from torchrl.envs.batched_envs import BatchedEnvBase

from ctde_kit.keys import DONE, NEXT, TERMINATED, TRUNCATED
from ctde_kit.specs import one_hot
from ctde_kit.testing.entry_names import as_tuple, leaves
from ctde_kit.testing.findings import NotApplicable

LONGEST = 2000
# Float entries at the root that no agent sees.
UNSEEN = {"reward", "episode_reward", "action", "info"}


@runtime_checkable
class HasTimeLimit(Protocol):
    """An env that says how long its episodes can be."""

    max_steps: int | None


@runtime_checkable
class NotesWhoGoesOn(Protocol):
    """An env that masks agents which go on after their end, and says who they are, such as ``WorkerEnv``."""

    agents_after_their_end: list[str]


@dataclass(frozen=True)
class Step:
    """One step of an env: what the agents saw and did, and the root entries that the next step starts from."""

    data: TensorDictBase
    following: TensorDictBase
    elapsed: Tensor

    def flag(self, name: str) -> Tensor:
        """A flag of the team after the step, bool ``[n_envs]``."""
        return _rows(self.data.get((NEXT, name)), self.data.ndim).any(-1)


class EnvCase:
    """What the rules of envs check: an env, and rollouts of it.

    Args:
        env: the env, or a function that makes it and takes a seed or nothing.
        max_steps: steps of its time limit; ``None``: what the env says of itself.
        steps: how many steps to look at, at least.
        action_mask: the name of masks of allowed actions in a group.
        mask: the name of masks of living agents in a group.
    """

    def __init__(
        self, env: EnvBase | Callable[..., EnvBase], max_steps: int | None, steps: int, action_mask: str, mask: str
    ):
        self.make: Callable[[int | None], EnvBase] | None = None
        if not isinstance(env, EnvBase):
            self.make = _of_a_seed(env)
            env = env() if self.make is None else self.make(0)
        self.env, self.action_mask, self.mask = env, action_mask, mask
        self.limit = _limit(env) if max_steps is None else max_steps
        self.steps = steps

    @property
    def groups(self) -> list[str]:
        """Names of the agents' groups; none for a single agent."""
        return [str(key[0]) for key in self.env.action_keys if isinstance(key, tuple)]

    def act(self, root: TensorDictBase, seed: int) -> TensorDictBase:
        """Write random allowed actions; the program's generators stay as they are."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for key in self.env.action_keys:
                action = self.env.full_action_spec[key].rand()
                mask = root.get((*as_tuple(key)[:-1], self.action_mask), None)
                root.set(key, action if mask is None else allowed(self.env.full_action_spec[key], mask, action))
        return root

    def roll(self, steps: int, seed: int, action_seed: int = 0) -> list[Step]:
        """A rollout of ``steps`` steps after seeding and resetting all envs; envs that end on the way are reset."""
        self.env.set_seed(seed)
        root, rolled = self.env.reset(), []
        elapsed = torch.zeros(max(1, root.numel()), dtype=torch.long)
        for index in range(steps):
            data, following = self.env.step_and_maybe_reset(self.act(root.clone(), 1000 * action_seed + index))
            elapsed = elapsed + 1
            step = Step(data.clone(), following.clone(), elapsed)
            rolled.append(step)
            elapsed = elapsed.masked_fill(step.flag(DONE).cpu(), 0)
            root = following
        return rolled

    @cached_property
    def rolled(self) -> list[Step]:
        """The steps that most rules look at: more than an episode, where the time limit is known."""
        length = self.steps
        if self.limit is not None and self.limit <= LONGEST:
            length = max(length, self.limit + 3)
        return self.roll(length, seed=0)

    @cached_property
    def repeatable(self) -> bool:
        """Whether one seed gives the same data twice."""
        return torch.equal(fingerprint(self.roll(3, 0)), fingerprint(self.roll(3, 0)))

    @cached_property
    def random_resets(self) -> bool:
        """Whether episodes begin in different ways."""
        firsts = []
        for _ in range(4):
            firsts += list(observed(self.env.reset()))
        return any(not torch.equal(first, firsts[0]) for first in firsts)

    @property
    def masked_after_their_end(self) -> list[str]:
        """Agents that went on after their end and that the env masks, so that the data do not show it."""
        *_, base = _layers(self.env)
        # See ``_limit`` for batches of envs.
        return (
            base.agents_after_their_end
            if not isinstance(base, BatchedEnvBase) and isinstance(base, NotesWhoGoesOn)
            else []
        )

    def endings(self) -> list[Step]:
        """Steps after which an env is done."""
        found = [step for step in self.rolled if step.flag(DONE).any()]
        if not found:
            raise NotApplicable(f"no episode ended in {len(self.rolled)} steps; give max_steps, or more steps")
        return found


def _of_a_seed(make: Callable[..., EnvBase]) -> Callable[[int | None], EnvBase] | None:
    """``make`` as a function of a seed: its argument ``seed``, else the only one that must be given; else ``None``."""
    # The metaclass of TorchRL's envs hides what a class takes.
    parameters = inspect.signature(make.__init__ if isinstance(make, type) else make).parameters
    named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if "seed" in named:
        return lambda seed: make(seed=seed)
    required = [name for name, p in named.items() if p.default is p.empty and name != "self"]
    return make if len(required) == 1 else None


def _layers(env: EnvBase) -> Iterator[EnvBase]:
    """An env, what its transforms are around, and so on to one without transforms."""
    yield env
    while isinstance(env, TransformedEnv):
        env = env.base_env
        yield env


def _limit(env: EnvBase) -> int | None:
    counted: list[int] = []
    *transformed, base = _layers(env)
    for layer in transformed:
        assert isinstance(layer, TransformedEnv)
        parts = layer.transform if isinstance(layer.transform, Compose) else [layer.transform]
        counted += [part.max_steps for part in parts if isinstance(part, StepCounter) and part.max_steps is not None]
    # Attributes of a batch of envs are lists, and asking for one that they lack before they start never ends.
    if not isinstance(base, BatchedEnvBase) and isinstance(base, HasTimeLimit) and isinstance(base.max_steps, int):
        counted.append(base.max_steps)
    return min(counted, default=None)


def _rows(flags: Tensor, batch_dims: int) -> Tensor:
    """A flag with one row per env, ``[n_envs, ...]``."""
    return flags.reshape(max(1, flags.shape[:batch_dims].numel()), -1)


def allowed(spec: TensorSpec, mask: Tensor, otherwise: Tensor) -> Tensor:
    """Random actions under a mask; the first one where nothing is allowed, ``otherwise`` for specs without choices."""
    if isinstance(spec, MultiCategorical):
        sizes = [int(n) for n in torch.as_tensor(spec.nvec).reshape(-1, spec.shape[-1])[0]]
        return torch.stack([_choice(part) for part in mask.split(sizes, -1)], -1).to(spec.dtype)
    if isinstance(spec, OneHot):
        return one_hot(_choice(mask), spec.shape[-1]).to(spec.dtype)
    return _choice(mask).to(spec.dtype) if isinstance(spec, Categorical) else otherwise


def _choice(mask: Tensor) -> Tensor:
    return torch.rand(mask.shape, device=mask.device).masked_fill(~mask.bool(), -1).argmax(-1)


def observed(root: TensorDictBase) -> Tensor:
    """All float entries of a root as one vector for each env, ``[n_envs, F]``."""
    rows = max(1, root.numel())
    parts = [
        value.reshape(rows, -1).double()
        for key, value in leaves(root).items()
        if value.is_floating_point() and key[0] != NEXT and not {*key} & UNSEEN
    ]
    return torch.cat(parts, -1) if parts else torch.zeros(rows, 0)


def fingerprint(steps: list[Step]) -> Tensor:
    """Observations, rewards and flags of a rollout as one tensor."""
    parts = [observed(steps[0].data).flatten()]
    for step in steps:
        parts.append(observed(step.data.get(NEXT)).flatten())
        parts += [value.double().flatten() for key, value in leaves(step.data).items() if key[-1] == "reward"]
        parts += [
            step.flag(name).double() for name in (DONE, TERMINATED, TRUNCATED) if (NEXT, name) in leaves(step.data)
        ]
        parts.append(observed(step.following).flatten())
    return torch.cat(parts)
