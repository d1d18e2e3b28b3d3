"""Statistics over the entries that count."""

from __future__ import annotations

from typing import Literal, get_args

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, TERMINATED, GroupKeys, Key, next_key

AdvantageNormalization = Literal["joint", "agent", "none"]


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of ``x`` where ``mask`` (bool, same shape) is true; 0 where it is true nowhere.

    >>> import torch
    >>> masked_mean(torch.tensor([1.0, 3.0, torch.inf]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    if mask is None:
        return x.mean()
    check_same_shape(x=x, mask=mask)
    return x.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def normalize_advantage(
    advantage: Tensor, mask: Tensor | None = None, over: AdvantageNormalization = "joint", epsilon: float = 1e-8
) -> Tensor:
    """Zero mean and unit deviation of ``[*B, n_agents, 1]`` over all entries, or over each agent's own.

    Entries outside ``mask`` (bool, same shape) count nowhere and become 0.
    """
    if over not in get_args(AdvantageNormalization):
        raise UserError(f"normalize={over!r}: expected one of {', '.join(get_args(AdvantageNormalization))}")
    if mask is not None:
        check_same_shape(advantage=advantage, mask=mask)
    if over == "none":
        return advantage if mask is None else advantage.masked_fill(~mask, 0)
    dims = tuple(d for d in range(advantage.ndim) if over == "joint" or d != advantage.ndim - 2)
    keep = advantage.new_ones(advantage.shape) if mask is None else mask.to(advantage.dtype)
    kept = advantage if mask is None else advantage.masked_fill(~mask, 0)
    count = keep.sum(dims, keepdim=True).clamp(min=1)
    mean = kept.sum(dims, keepdim=True) / count
    centered = (kept - mean) * keep
    deviation = (centered.square().sum(dims, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return centered / (deviation + epsilon)


def required_entry(tensordict: TensorDictBase, key: NestedKey, what_to_do: str) -> Tensor:
    """The entry at ``key``; a ``UserError`` that names it where it is missing."""
    value = tensordict.get(key, None)
    if value is None:
        raise UserError(f"key {key!r} is missing: {what_to_do}")
    return value


def check_same_shape(**tensors: Tensor) -> None:
    """Raise ``UserError`` unless all tensors have one shape: a silent broadcast over agents is a wrong loss."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"expected one shape for {', '.join(shapes)}, found {shapes}; expand them over agents first")


def agent_flags(tensordict: TensorDictBase, keys: GroupKeys, like: Tensor) -> tuple[Tensor, Tensor]:
    """``done`` and ``terminated`` of each agent after this step, in the shape of ``like`` ``[*B, n_agents, 1]``.

    An agent is done with the team or by itself, and terminated likewise (root entries ``[*B, 1]``, and the group's
    ``[*B, n_agents, 1]`` where the env writes them).
    """
    return _flag(tensordict, DONE, keys.done, like), _flag(tensordict, TERMINATED, keys.terminated, like)


def _flag(tensordict: TensorDictBase, root_key: str, group_key: Key, like: Tensor) -> Tensor:
    team = required_entry(tensordict, next_key(root_key), "the env must write it, shape [*B, 1]")
    flag = team.unsqueeze(-2).expand_as(like)
    own = tensordict.get(next_key(group_key), None)
    if own is None:
        return flag
    check_same_shape(reward=like, **{str(group_key): own})
    return flag | own


def alive_next(tensordict: TensorDictBase, keys: GroupKeys) -> Tensor:
    """Who is there after the step ``[*B, n_agents]``, also those whose time is up.

    Envs call agents dead once their time is up, yet they are bootstrapped.
    """
    alive = required_entry(tensordict, keys.mask, "the env must write it, shape [*B, n_agents]")
    _, terminated = agent_flags(tensordict, keys, alive.unsqueeze(-1))
    stays = alive & ~terminated.squeeze(-1)
    arrives = tensordict.get(next_key(keys.mask), None)
    if arrives is None:
        return stays
    check_same_shape(**{str(keys.mask): alive, str(next_key(keys.mask)): arrives})
    return stays | arrives
