"""A transform between an env's entries of any shape and dtype and the flat float vectors of networks."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, MultiCategorical, OneHot, TensorSpec, Unbounded
from torchrl.envs import EnvBase, TransformedEnv
from torchrl.envs.transforms import Transform

from ctde_kit.bounds import round_inward
from ctde_kit.errors import UserError
from ctde_kit.keys import STATE, GroupKeys, Key
from ctde_kit.specs import choice_sizes, one_hot

MOST_FEATURES = 20_000
"""The most features of one entry; a larger one is a picture, which no network here is made for."""


class FlatVectors(Transform):
    """Observations, states and bounded actions as flat float vectors, whatever their shape and dtype are in the env.

    ``(group, "observation")`` and ``(group, "state")`` become ``[*B, n_agents, F]`` and the root ``state`` ``[*B, S]``:
    dimensions after the agents are flattened, a missing feature dimension is added, flags and whole numbers are cast
    as they are (a ``uint8`` picture has values up to 255), and choices (``Categorical``, ``MultiCategorical``) become
    one-hot. A ``Bounded`` action is ``[*B, n_agents, D]`` to the policy, its bounds rounded inward, and of its own
    shape and dtype to the env, as are observations and states that the env reads in a step. Entries that are flat
    vectors of ``dtype`` already stay as they are.

    TorchRL's ``FlattenObservation``, ``UnsqueezeTransform`` and ``DTypeCastTransform`` each do one of these, for keys
    and dtypes that the caller must know; ``UnsqueezeTransform`` does not reach nested actions.

    Args:
        env: whose entries they are.
        dtype: of the vectors; ``None``: PyTorch's default.

    Raises:
        UserError: for an observation, state or action of more than 20,000 features, and for choices whose numbers of
            options differ between agents.

    >>> from torchrl.envs import TransformedEnv, UnsqueezeTransform
    >>> from ctde_kit.envs.transforms import FlatVectors
    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> key = ("agents", "observation")
    >>> grid = TransformedEnv(VmasEnv("navigation", num_envs=2), UnsqueezeTransform(-1, in_keys=[key]))
    >>> grid.reset()[key].shape
    torch.Size([2, 4, 18, 1])
    >>> TransformedEnv(grid, FlatVectors(grid), auto_unwrap=True).reset()[key].shape
    torch.Size([2, 4, 18])
    """

    stateless = True

    def __init__(self, env: EnvBase, dtype: torch.dtype | None = None):
        self._batch_dims, dtype = len(env.batch_size), dtype or torch.get_default_dtype()
        groups = [GroupKeys(str(key[0])) for key in env.action_keys if not isinstance(key, str)]
        candidates: list[Key] = [STATE, *(key for keys in groups for key in (keys.observation, keys.state))]
        specs: dict[Key, Any] = {key: spec for key, spec in _leaves(env.observation_spec) if key in candidates}
        observations = [key for key, spec in specs.items() if not self._is_vector(key, spec, dtype)]
        bounded: dict[Key, Any] = {
            key: spec
            for key, spec in _leaves(env.full_action_spec)
            if key in [keys.action for keys in groups]
            and isinstance(spec, Bounded)
            and spec.dtype.is_floating_point
            and not self._is_vector(key, spec, dtype)
        }
        changed = [*observations, *bounded]
        super().__init__(in_keys=observations, out_keys=observations, in_keys_inv=changed, out_keys_inv=changed)
        self.dtype = dtype
        self._sizes: dict[Key, tuple[int, ...]] = {key: _choices(key, specs[key]) for key in observations}
        self._own = {
            key: (spec.shape[self._leading(key) :], spec.dtype)
            for key, spec in [*((key, specs[key]) for key in observations), *bounded.items()]
        }
        self._actions = [*bounded]
        self.changes = [*self._describe({key: specs[key] for key in observations}), *self._describe(bounded)]
        """What is changed, in words: a line per entry."""

    def _leading(self, key: Key) -> int:
        """Dimensions before an entry's own: the batch, and the agents where it is a group's."""
        return self._batch_dims + (not isinstance(key, str))

    def _is_vector(self, key: Key, spec: TensorSpec, dtype: torch.dtype) -> bool:
        return len(spec.shape) == self._leading(key) + 1 and spec.dtype == dtype and not _choices(key, spec)

    def _describe(self, specs: dict[Key, Any]) -> Iterator[str]:
        for key, spec in specs.items():
            own = list(spec.shape[self._leading(key) :])
            name = key if isinstance(key, str) else " ".join(key)
            found = str(spec.dtype).removeprefix("torch.")
            count = self._n_features(key, spec)
            if count > MOST_FEATURES:
                raise UserError(
                    f"key {key}: expected at most {MOST_FEATURES} features, found shape {own}, {count} of them; make "
                    "it smaller with a transform or wrapper, or leave it out"
                )
            yield f"{name}: {found} {own} as {count} floats"

    def _n_features(self, key: Key, spec: TensorSpec) -> int:
        own, sizes = spec.shape[self._leading(key) :], _choices(key, spec)
        if isinstance(spec, MultiCategorical):
            return prod(own[:-1]) * sum(sizes)
        return prod(own) * (sizes[0] if sizes else 1)

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        for key, sizes in self._sizes.items():
            value = next_tensordict.get(key)
            leading = next_tensordict.batch_dims + (not isinstance(key, str))
            next_tensordict.set(key, self._vector(value, sizes, leading))
        return next_tensordict

    def _vector(self, value: Tensor, sizes: tuple[int, ...], leading: int) -> Tensor:
        if len(sizes) == 1:
            value = one_hot(value, sizes[0])
        elif sizes:
            value = torch.cat([one_hot(part, size) for part, size in zip(value.unbind(-1), sizes, strict=True)], -1)
        value = value.unsqueeze(-1) if value.ndim == leading else value.flatten(leading)
        return value.to(self.dtype)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The same for data that the env itself wrote."""
        return self._call(tensordict)

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        # After a partial reset TorchRL takes over only the rows that were reset.
        return self._call(tensordict_reset)

    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase:
        for key, (shape, dtype) in self._own.items():
            value = tensordict.get(key, None)
            if value is not None:  # the root of a step may hold the action alone
                tensordict.set(key, _of_shape(value, shape, self._sizes.get(key, ())).to(dtype))
        return tensordict

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        spec: Any = observation_spec
        for key in self._sizes:
            shape = (*spec[key].shape[: self._leading(key)], self._n_features(key, spec[key]))
            spec[key] = Unbounded(torch.Size(shape), dtype=self.dtype, device=spec.device)
        return spec

    def transform_input_spec(self, input_spec: TensorSpec) -> TensorSpec:
        spec: Any = input_spec
        for key in self._actions:
            own = spec["full_action_spec"][key]
            shape = (*own.shape[: self._leading(key)], prod(own.shape[self._leading(key) :]))
            low, high = round_inward(own.space.low.reshape(shape), own.space.high.reshape(shape), self.dtype)
            spec["full_action_spec"][key] = Bounded(low, high, torch.Size(shape), dtype=self.dtype, device=own.device)
        read = [key for key, _ in _leaves(spec["full_state_spec"]) if key in self._sizes]
        for key in read:
            own = spec["full_state_spec"][key]
            shape = (*own.shape[: self._leading(key)], self._n_features(key, own))
            spec["full_state_spec"][key] = Unbounded(torch.Size(shape), dtype=self.dtype, device=own.device)
        return spec


def flat_vectors(env: EnvBase) -> EnvBase:
    """``env`` with ``FlatVectors`` where it needs it, else ``env`` itself.

    >>> from ctde_kit.envs.transforms import flat_vectors
    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> env = VmasEnv("navigation", num_envs=2)
    >>> flat_vectors(env) is env
    True
    """
    transform = FlatVectors(env)
    return TransformedEnv(env, transform, auto_unwrap=True) if transform.changes else env


def _of_shape(vector: Tensor, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Tensor:
    """The entry that ``vector`` was made of: each agent's of ``shape``, the number of a choice where it is one-hot."""
    leading = vector.shape[:-1]
    if not sizes:
        return vector.reshape(*leading, *shape)
    if len(sizes) == 1:
        return vector.reshape(*leading, *shape, sizes[0]).argmax(-1)
    parts = vector.reshape(*leading, *shape[:-1], sum(sizes)).split(sizes, -1)
    return torch.stack([part.argmax(-1) for part in parts], -1)


def _leaves(spec: Any) -> Iterator[tuple[Key, Any]]:
    return spec.items(True, True)


def _choices(key: Key, spec: Any) -> tuple[int, ...]:
    """How many options each choice of an entry has, where choices are stored as indices; flags do not count."""
    if isinstance(spec, MultiCategorical):
        return choice_sizes(f"key {key}", spec)
    is_number = isinstance(spec, Categorical) and not isinstance(spec, OneHot)
    return (int(spec.space.n),) if is_number and spec.dtype != torch.bool else ()
