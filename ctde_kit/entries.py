"""Functions that read entries of a tensordict, with errors that name the key."""

from __future__ import annotations

from typing import Literal

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, TERMINATED, GroupKeys, Key, next_key


def required_entry(tensordict: TensorDictBase, key: NestedKey, advice: str | None = None) -> Tensor:
    """The entry at ``key``.

    Args:
        tensordict: where to read.
        key: which entry.
        advice: what the error tells the caller to do; ``None`` lists the entries that are there.

    Raises:
        UserError: where the entry is missing.
    """
    value = tensordict.get(key, None)
    if value is None:
        advice = advice or f"found {sorted(map(str, tensordict.keys(True, True)))}"
        raise UserError(f"key {key!r} is missing: {advice}")
    return value


def device_of(tensordict: TensorDictBase) -> torch.device | None:
    """Where the entries lie; a tensordict that was made from tensors knows it only if it was told."""
    if tensordict.device is not None:
        return tensordict.device
    leaves = tensordict.values(include_nested=True, leaves_only=True)
    return next((leaf.device for leaf in leaves), None)


def check_same_shape(**tensors: Tensor) -> None:
    """Raise ``UserError`` unless all tensors have one shape: a silent broadcast over agents is a wrong loss."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"expected one shape for {', '.join(shapes)}, found {shapes}; expand them over agents first")


def check_dtypes(expected: Literal["float", "bool"], **tensors: Tensor) -> None:
    """Raise ``UserError`` unless all tensors are bool, or of one floating dtype."""
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    first = torch.bool if expected == "bool" else next(iter(dtypes.values()))
    for name, dtype in dtypes.items():
        if dtype != first or (expected == "float" and not dtype.is_floating_point):
            words = [f"{other}: {str(found).removeprefix('torch.')}" for other, found in dtypes.items()]
            one = "bool" if expected == "bool" else "one floating dtype"
            raise UserError(f"{name}: expected {one}, found {{{', '.join(words)}}}")


def check_mask(mask: Tensor, **like: Tensor) -> None:
    """Raise ``UserError`` unless ``mask`` is bool and of the shape of what it masks."""
    check_dtypes("bool", mask=mask)
    check_same_shape(**like, mask=mask)


def valid_agents(
    tensordict: TensorDictBase, mask: NestedKey | None, padding_mask: NestedKey, like: NestedKey
) -> Tensor | None:
    """Whose entries count, bool ``[*B, n_agents]``: those of living agents in steps that are not padding.

    Args:
        tensordict: a batch ``[*B]``.
        mask: which agents are alive, bool ``[*B, n_agents]``; the entry may be missing, or ``None``.
        padding_mask: false in steps that are padding, bool ``[*B]``; the entry may be missing.
        like: an entry ``[*B, n_agents, F]``, which says how many agents there are.

    Returns:
        ``None`` where both entries are missing: everything counts.
    """
    alive = None if mask is None else tensordict.get(mask, None)
    valid = tensordict.get(padding_mask, None)
    if valid is None:
        return alive
    valid = valid.reshape(*tensordict.shape, 1)
    return valid & alive if alive is not None else valid.expand(*tensordict.get(like).shape[:-1])


def valid_entry(tensordict: TensorDictBase, key: NestedKey, valid: Tensor | None) -> Tensor:
    """The entry at ``key`` without a gradient, 0 outside ``valid`` (bool ``[*B, n_agents]``; ``None``: all of it)."""
    value = tensordict.get(key).detach()
    if valid is None:
        return value
    return value.masked_fill(~valid.reshape(*valid.shape, *[1] * (value.ndim - valid.ndim)), 0)


def agent_flags(tensordict: TensorDictBase, keys: GroupKeys, like: Tensor) -> tuple[Tensor, Tensor]:
    """``done`` and ``terminated`` of each agent after this step, in the shape of ``like`` ``[*B, n_agents, 1]``.

    An agent is done when the team is (root entry ``[*B, 1]``) or when it is done by itself (the group's entry
    ``[*B, n_agents, 1]``, which not all envs write); it is terminated likewise. Where the env writes no flags of single
    agents, those that are ``gone_next`` have terminated.
    """
    done, terminated = _flag(tensordict, DONE, keys.done, like), _flag(tensordict, TERMINATED, keys.terminated, like)
    gone = gone_next(tensordict, keys)
    if gone is None:
        return done, terminated
    check_same_shape(reward=like, **{str(keys.mask): gone.unsqueeze(-1)})
    return done | gone.unsqueeze(-1), terminated | gone.unsqueeze(-1)


def _flag(tensordict: TensorDictBase, root_key: str, group_key: Key, like: Tensor) -> Tensor:
    root_flag = required_entry(tensordict, next_key(root_key), "the env must write it, shape [*B, 1]")
    flag = root_flag.unsqueeze(-2).expand_as(like)
    group_flag = tensordict.get(next_key(group_key), None)
    if group_flag is None:
        return flag
    check_same_shape(reward=like, **{str(group_key): group_flag})
    return flag | group_flag


def gone_next(tensordict: TensorDictBase, keys: GroupKeys) -> Tensor | None:
    """Which agents died in this step while the team goes on, bool ``[*B, n_agents]``, by their next ``mask``.

    ``None`` where the env writes no mask, and where it writes each agent's own ``terminated``, which says the same.
    """
    next_mask = tensordict.get(next_key(keys.mask), None)
    if next_mask is None or tensordict.get(next_key(keys.terminated), None) is not None:
        return None
    team_done = required_entry(tensordict, next_key(DONE), "the env must write it, shape [*B, 1]")
    return ~next_mask & ~team_done


def alive_next(tensordict: TensorDictBase, keys: GroupKeys) -> Tensor:
    """Which agents are bootstrapped after the step, bool ``[*B, n_agents]``.

    They are the agents whose next ``mask`` is true, and those that were alive and did not terminate: envs call agents
    dead once their time is up, yet their last observation has a value. Where the env writes no ``terminated`` of
    single agents, those whose next mask is false are gone, unless the team is done.
    """
    alive = required_entry(tensordict, keys.mask, "the env must write it, shape [*B, n_agents]")
    terminated = _flag(tensordict, TERMINATED, keys.terminated, alive.unsqueeze(-1))
    stays = alive & ~terminated.squeeze(-1)
    next_mask = tensordict.get(next_key(keys.mask), None)
    if next_mask is None:
        return stays
    check_same_shape(**{str(keys.mask): alive, str(next_key(keys.mask)): next_mask})
    gone = gone_next(tensordict, keys)
    return (stays if gone is None else stays & ~gone) | next_mask
