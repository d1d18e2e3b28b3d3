"""Converts arrays of JAX to tensors of torch and back: in the same memory on one device, or copied for checkpoints."""

from __future__ import annotations

from typing import Any

import jax  # pyright: ignore[reportMissingImports]  # an extra
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]  # an extra
import numpy as np
import torch
from torch import Tensor


def to_torch(array: Any, device: torch.device) -> Tensor:
    """The tensor of an array that a compiled function gave, and that nothing else writes."""
    return torch.from_dlpack(array).to(device)


def to_jax(tensor: Tensor) -> Any:
    """The array of a tensor, in the same memory; a tensor of bools is copied."""
    if tensor.dtype == torch.bool:
        # JAX may read it after this returns, when the caller's tensor has changed.
        return jnp.asarray(tensor.cpu().numpy().copy())
    return jnp.from_dlpack(tensor.contiguous())


def saved(keys: Any, state: Any) -> dict[str, Tensor]:
    """Random keys and a state, any tree of arrays, as copies by number."""
    leaves = [jax.random.key_data(keys), *jax.tree.leaves(state)]
    return {str(number): torch.from_numpy(np.array(leaf)) for number, leaf in enumerate(leaves)}


def restored(tensors: dict[str, Tensor], like: Any) -> tuple[Any, Any]:
    """The keys and the state that ``saved`` was given, where ``like`` is a state of the same kind."""
    olds, tree = jax.tree.flatten(like)
    key_data, *leaves = [jnp.asarray(tensors[str(number)].cpu().numpy()) for number in range(len(tensors))]
    leaves = [leaf.astype(old.dtype) for leaf, old in zip(leaves, olds, strict=True)]
    return jax.random.wrap_key_data(key_data), jax.tree.unflatten(tree, leaves)
