"""Runs a network along stored sequences, and on each step's next observation."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.modules import set_recurrent_mode

from ctde_kit.entries import alive_next, required_entry
from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, NEXT, GroupKeys, Key, next_key
from ctde_kit.protocols import KeepsHiddenState


def hidden_key(network: TensorDictModuleBase) -> Key | None:
    """Where a recurrent network, such as ``AgentNetwork``, keeps its hidden state; ``None`` for a feed-forward one."""
    return network.hidden_key if isinstance(network, KeepsHiddenState) else None


def unroll(
    network: TensorDictModuleBase, tensordict: TensorDictBase, burn_in: int = 0, use_stored_hidden: bool = True
) -> TensorDictBase:
    """What ``network`` reads and writes along ``tensordict`` ``[*B, T]``, after the burn-in ``[*B, T - burn_in]``.

    A recurrent network starts from the hidden state that is stored in the first step, or from zero, runs over the
    first ``burn_in`` steps without a gradient, and goes on from there (Kapturowski et al. 2019, section 3). The result
    also holds the hidden state after each step under ``next``, for ``next_outputs``.
    """
    inputs = tensordict.select(*network.in_keys, strict=False)
    key = hidden_key(network)
    if key is None:
        with set_recurrent_mode(True):
            return network(_steps(inputs, burn_in, None))
    time = inputs.ndim - 1
    hidden = required_entry(inputs, key, "append the actor's make_tensordict_primer() to the env")
    if not use_stored_hidden:
        inputs.set(key, torch.zeros_like(hidden))
    with set_recurrent_mode(True):
        if burn_in == 0:
            return network(inputs)
        with torch.no_grad():
            warm = network(_steps(inputs, 0, burn_in)).get(next_key(key)).select(time, -1)
        later = _steps(inputs, burn_in, None)
        # An unroll takes the hidden state of its first step as it is, so a reset at that step must be done here.
        is_reset = later.get(IS_INIT).select(time, 0).unsqueeze(-1)
        warm = warm.masked_fill(is_reset, 0).unsqueeze(time)
        later.set(key, warm.expand_as(later.get(key)))
        return network(later)


def _steps(tensordict: TensorDictBase, start: int, stop: int | None) -> TensorDictBase:
    """The steps from ``start`` to ``stop`` along time, as views."""
    steps = tensordict[..., start:stop]
    assert isinstance(steps, TensorDictBase)
    return steps


@torch.no_grad()
def next_outputs(network: TensorDictModuleBase, tensordict: TensorDictBase, unrolled: TensorDictBase) -> TensorDictBase:
    """What ``network`` writes on the observations under ``next``, all steps at once, each from its own hidden state.

    ``unrolled`` is what ``unroll`` gave for the same steps ``tensordict``. Each output is computed from the observation
    before any reset; an unroll over T + 1 steps would take the observation after it.
    """
    return single_steps(network, next_inputs(network, tensordict, unrolled))


def single_steps(network: Callable[[TensorDictBase], TensorDictBase], tensordict: TensorDictBase) -> TensorDictBase:
    """What ``network`` writes when each item is a single step, even inside TorchRL's recurrent mode."""
    with set_recurrent_mode(False):
        return network(tensordict)


def next_inputs(network: TensorDictModuleBase, tensordict: TensorDictBase, unrolled: TensorDictBase) -> TensorDictBase:
    """What ``network`` reads of each step's next observation, with the hidden state after that step."""
    inputs = tensordict.get(NEXT).select(*network.in_keys, strict=False)
    hidden = hidden_key(network)
    if hidden is not None:
        inputs.set(hidden, unrolled.get(next_key(hidden)).detach())
        inputs.set(IS_INIT, torch.zeros_like(unrolled.get(IS_INIT)))
    for key in network.in_keys:
        if key[-1] == "mask":
            inputs.set(key, alive_next(tensordict, GroupKeys(str(key[0]))))
    return inputs


def trace_ends(tensordict: TensorDictBase, done: Tensor, padding_mask: NestedKey) -> Tensor:
    """``done`` ``[*B, T, n, 1]``, also where the step after it begins an episode, or is padding.

    A checkpoint may reset an env in the middle of an episode, and TorchRL's ``split_trajectories`` pads what a batch
    cut off: no ``done`` marks either.
    """
    is_init, valid = tensordict.get(IS_INIT, None), tensordict.get(padding_mask, None)
    if done.shape[-3] == 1:
        return done
    if is_init is not None:
        done = done | _one_step_later(is_init.unsqueeze(-2))
    return done if valid is None else done | _one_step_later(~valid.reshape(*tensordict.shape, 1, 1))


def _one_step_later(flag: Tensor) -> Tensor:
    """``flag`` ``[*B, T, n, 1]`` of the step after; false at the last."""
    return torch.cat([flag.narrow(-3, 1, flag.shape[-3] - 1), torch.zeros_like(flag.narrow(-3, 0, 1))], -3)


def check_time_axis(loss: str, tensordict: TensorDictBase, in_keys: Iterable[NestedKey]) -> None:
    """Raise ``UserError`` for single steps where a network is recurrent: then ``is_init`` is among ``in_keys``."""
    if tensordict.ndim < 2 and IS_INIT in in_keys:
        raise UserError(
            f"{loss}: recurrent networks learn sequences [*B, T], found single steps {list(tensordict.shape)}; "
            "give the buffer a sequence_length, or unsqueeze(0) a single sequence"
        )


def check_sequences(
    loss: str, tensordict: TensorDictBase, networks: Iterable[TensorDictModuleBase], returns_need: bool, burn_in: int
) -> None:
    """Raise ``UserError`` for single steps where sequences are needed, or if no step is left after the burn-in."""
    recurrent = any(hidden_key(network) is not None for network in networks)
    if tensordict.ndim < 2 and (recurrent or returns_need or burn_in):
        reason = "recurrent networks learn" if recurrent else "these returns need"
        raise UserError(
            f"{loss}: {reason} sequences [*B, T], found single steps {list(tensordict.shape)}; use a replay of "
            "sequences or episodes, or unsqueeze(0) a single sequence"
        )
    if tensordict.ndim > 1 and burn_in >= tensordict.shape[-1]:
        raise UserError(f"{loss}: burn_in={burn_in}, expected less than the {tensordict.shape[-1]} steps of a sequence")
