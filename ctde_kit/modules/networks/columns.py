"""How an input reads its parts: entries of agents and of the team, and the latent that a team shares in training."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.entries import required_entry
from ctde_kit.entry_tables import Entry
from ctde_kit.errors import UserError
from ctde_kit.keys import LATENT, Key


def part_columns(
    tensordict: TensorDictBase, key: Key, mask_key: Key | None, dims: int, normalizer: nn.Module | None
) -> Tensor:
    """The entry at ``key`` as features ``[*B, n, F]``; entries of dead agents are zero.

    Args:
        tensordict: where to read.
        key: of the entry.
        mask_key: of the mask of living agents, or ``None``.
        dims: how many of the last dimensions are flattened into one row of features; 0 keeps one row per agent.
        normalizer: what the entry goes through, or ``None``.
    """
    value = required_entry(tensordict, key)
    if normalizer is not None:
        value = normalizer(value)
    if mask_key is not None:
        mask = required_entry(tensordict, mask_key)
        if mask.shape != value.shape[:-1]:
            raise UserError(f"key {mask_key}: expected {list(value.shape[:-1])} like {key}, found {list(mask.shape)}")
        value = value.masked_fill(~mask.unsqueeze(-1), 0)
    if dims == 0:
        return value
    return value.flatten(-dims).unsqueeze(-2)


def latent_entry(size: int) -> Entry:
    """The root entry ``latent`` ``[*B, latent_dim]``, which execution does not have."""
    return Entry(LATENT, "*B latent_dim", (size,), "float", optional=True)


def latent_columns(tensordict: TensorDictBase, x: Tensor, size: int, *, use_mean: bool) -> Tensor:
    """The team's latent in every agent's row, ``[*B, n, size]``.

    Args:
        tensordict: holds ``latent`` ``[*B, size]``; where it does not, the latent is its mean, zero.
        x: the features ``[*B, n, F]`` that it stands beside.
        size: of the latent.
        use_mean: take the mean whatever ``tensordict`` holds.

    Raises:
        UserError: for a latent of another shape.
    """
    latent = None if use_mean else tensordict.get(LATENT, None)
    if latent is None:
        return x.new_zeros(*x.shape[:-1], size)
    if latent.shape != (*x.shape[:-2], size):
        raise UserError(f"key {LATENT!r}: expected {[*x.shape[:-2], size]}, found {list(latent.shape)}")
    return latent.unsqueeze(-2).expand(*x.shape[:-1], size)


def wrong_sizes(tensordict: TensorDictBase, keys: Sequence[Key], entries: Sequence[Entry], width: int) -> UserError:
    """The error for entries that do not have the sizes that a network was made for.

    Args:
        tensordict: holds the entries.
        keys: of the entries that are read as features.
        entries: the shapes that are known of them.
        width: how many features are expected of all keys together.
    """
    advice = "make the network with the spec of this env, TeamSpec.from_env"
    for entry in entries:
        found = required_entry(tensordict, entry.key) if entry.key in keys else None
        if found is not None and None not in entry.sizes and found.shape[-len(entry.sizes) :] != entry.sizes:
            axes = ", ".join(f"{name}={size}" for name, size in entry.named_sizes)
            return UserError(f"key {entry.key}: expected [*B, {axes}], found {list(found.shape)}; {advice}")
    shapes = ", ".join(f"{key} {list(required_entry(tensordict, key).shape)}" for key in keys)
    return UserError(f"{shapes}: expected {width} features in all; {advice}")


def wrong_agents(key: Key, n_agents: int, x: Tensor, batch_dims: int) -> UserError:
    """The error for features ``x`` that are not those of ``n_agents`` agents."""
    expected = f"key {key}: expected [*B, n_agents={n_agents}, F], found features of shape {list(x.shape)}"
    if x.ndim < batch_dims + 2:
        return UserError(f"{expected}, without an agent axis; expand it over the agents first")
    return UserError(
        f"{expected}, of {x.shape[-2]} agents; make the network with the spec of this env, TeamSpec.from_env, and load "
        "the state_dict of this one, which fits where the agents share parameters"
    )
