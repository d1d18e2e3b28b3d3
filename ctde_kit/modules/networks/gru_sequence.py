"""A GRU's hidden states along time as one operation with a backward pass of its own.

Autograd would keep a graph of some forty operations per step. Here the backward pass goes through the steps once, and
the gradient of the weights is one product over all of them. ``torch.compile`` and the kit's graphs take the operation
as it is, so that a graph is as long for a thousand steps as for one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def gru_states(gates: Tensor, hidden: Tensor, resets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The hidden states ``[G, T, R, H]`` of a GRU after each step.

    Inside ``torch.func``'s transforms, which do not accept ``gru_sequence``, it runs a loop of single steps.

    Args:
        gates: ``[G, T, R, 3 * H]``: what the inputs add to the gates (reset, update, new) of G groups of R rows.
        hidden: ``[G, R, H]``, before the first step.
        resets: bool ``[G, T, R]``: the state before the step is zero; the first step's are not read.
        weight: ``[G, 3 * H, H]``, of the hidden state.
        bias: ``[G, 3 * H]``.

    >>> import torch
    >>> from ctde_kit.modules.networks.gru_sequence import gru_states
    >>> gates, hidden, resets = torch.zeros(1, 7, 5, 12), torch.ones(1, 5, 4), torch.zeros(1, 7, 5, dtype=torch.bool)
    >>> gru_states(gates, hidden, resets, torch.zeros(1, 12, 4), torch.zeros(1, 12))[0, :3, 0, 0]
    tensor([0.5000, 0.2500, 0.1250])
    """
    if torch._C._are_functorch_transforms_active():
        return step_by_step(gates, hidden, resets, weight, bias)
    return gru_sequence(gates, hidden, resets, weight, bias, torch.is_grad_enabled())[0]


def step_by_step(gates: Tensor, hidden: Tensor, resets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``gru_states`` as a loop of single steps, which supports every transform and derivative."""
    states: list[Tensor] = []
    for t, (gate, reset) in enumerate(zip(gates.unbind(1), resets.unsqueeze(-1).unbind(1), strict=True)):
        if t > 0:
            hidden = hidden.masked_fill(reset, 0)
        hidden = gru_cell(gate, torch.baddbmm(bias.unsqueeze(1), hidden, weight.transpose(1, 2)), hidden)
        states.append(hidden)
    return torch.stack(states, 1)


def gru_cell(from_input: Tensor, from_hidden: Tensor, hidden: Tensor) -> Tensor:
    """The next hidden state, from what input and hidden state add to the gates: reset, update, new."""
    reset_in, update_in, new_in = from_input.chunk(3, -1)
    reset_hidden, update_hidden, new_hidden = from_hidden.chunk(3, -1)
    reset = torch.sigmoid(reset_in + reset_hidden)
    update = torch.sigmoid(update_in + update_hidden)
    new = torch.tanh(new_in + reset * new_hidden)
    return new + update * (hidden - new)


@torch.library.custom_op("ctde_kit::gru_sequence", mutates_args=())
def gru_sequence(
    gates: Tensor, hidden: Tensor, resets: Tensor, weight: Tensor, bias: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    """The states that ``gru_states`` gives, and the activations that ``gru_sequence_backward`` needs.

    ``keep`` says whether there is to be a backward pass; without one, the second result is empty.
    """
    size = hidden.shape[-1]
    states, kept = empty_results(gates, hidden, keep)
    # A mode that counts or watches calls of torch sees this one call, however many steps there are.
    with torch._C.DisableTorchFunction():
        by_state, bias = weight.transpose(1, 2), bias.unsqueeze(1)
        product, activations = torch.empty_like(gates[:, 0]), gates.new_empty(*hidden.shape[:-1], 4 * size)
        for t, (gate, reset_state) in enumerate(zip(gates.unbind(1), resets.unsqueeze(-1).unbind(1), strict=True)):
            if t > 0:
                hidden = hidden.masked_fill(reset_state, 0)
            if keep:
                activations = kept[:, t]
            torch.baddbmm(bias, hidden, by_state, out=product)
            reset, update, new, from_hidden = activations.chunk(4, -1)
            torch.add(gate[..., : 2 * size], product[..., : 2 * size], out=activations[..., : 2 * size]).sigmoid_()
            from_hidden.copy_(product[..., 2 * size :])
            torch.addcmul(gate[..., 2 * size :], reset, from_hidden, out=new).tanh_()
            hidden = torch.lerp(new, hidden, update, out=states[:, t])
    return states, kept


@torch.library.custom_op("ctde_kit::gru_sequence_backward", mutates_args=())
def gru_sequence_backward(
    grad: Tensor, hidden: Tensor, resets: Tensor, weight: Tensor, states: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of ``gates``, of what the hidden states add to them (also ``[G, T, R, 3 * H]``), and of ``hidden``.

    Its arguments are the gradient of ``states``, and inputs and outputs of ``gru_sequence``.
    """
    with torch._C.DisableTorchFunction():
        reset, update, new, from_hidden = kept.chunk(4, -1)
        of_new = (1 - update) * (1 - new * new)
        of_update = (states_before(states, hidden, resets) - new) * update * (1 - update)
        factors = torch.stack([of_new * from_hidden * reset * (1 - reset), of_update, of_new * reset], -2)
        grad_products, totals = torch.empty_like(factors), torch.empty_like(states)
        carried = torch.zeros_like(hidden)
        for t in reversed(range(grad.shape[1])):
            total = torch.add(grad[:, t], carried, out=totals[:, t])
            torch.mul(factors[:, t], total.unsqueeze(-2), out=grad_products[:, t])
            carried = torch.baddbmm(total * update[:, t], grad_products[:, t].flatten(-2), weight)
            if t > 0:
                carried.masked_fill_(resets[:, t].unsqueeze(-1), 0)
        grad_gates = torch.cat([grad_products[..., :2, :].flatten(-2), totals * of_new], -1)
    return grad_gates, grad_products.flatten(-2), carried


def states_before(states: Tensor, hidden: Tensor, resets: Tensor) -> Tensor:
    """The hidden states ``[G, T, R, H]`` that the steps of ``gru_sequence`` began with."""
    later = states[:, :-1].masked_fill(resets[:, 1:].unsqueeze(-1), 0)
    return torch.cat([hidden.unsqueeze(1), later], 1)


def empty_results(gates: Tensor, hidden: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    """Empty tensors for the results of ``gru_sequence``."""
    size = hidden.shape[-1]
    return gates.new_empty(*gates.shape[:-1], size), gates.new_empty(*gates.shape[:-1], 4 * size if keep else 0)


def empty_gradients(grad: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Empty tensors for the results of ``gru_sequence_backward``."""
    gates = (*grad.shape[:-1], 3 * grad.shape[-1])
    return grad.new_empty(gates), grad.new_empty(gates), grad.new_empty(hidden.shape)


@gru_sequence.register_fake
def _(gates: Tensor, hidden: Tensor, resets: Tensor, weight: Tensor, bias: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    return empty_results(gates, hidden, keep)


@gru_sequence_backward.register_fake
def _(
    grad: Tensor, hidden: Tensor, resets: Tensor, weight: Tensor, states: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_gradients(grad, hidden)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, hidden, resets, weight, _, _ = inputs
    ctx.save_for_backward(hidden, resets, weight, *output)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    hidden, resets, weight, states, kept = ctx.saved_tensors
    grad_gates, grad_products, grad_hidden = gru_sequence_backward(grad, hidden, resets, weight, states, kept)
    rows, of_weight, of_bias = grad_products.flatten(1, 2), None, None
    if ctx.needs_input_grad[3]:
        of_weight = rows.transpose(1, 2) @ states_before(states, hidden, resets).flatten(1, 2)
    if ctx.needs_input_grad[4]:
        of_bias = rows.sum(1)
    return grad_gates, grad_hidden, None, of_weight, of_bias, None


def _no_second_derivative(*_: Any) -> Any:
    raise NotImplementedError(
        "a GRU's sequence has no second derivatives: take its gradient with create_graph=False, or run single steps"
    )


gru_sequence.register_autograd(_backward, setup_context=_save_for_backward)
gru_sequence_backward.register_autograd(_no_second_derivative)
for device in ("cpu", "cuda"):  # autocast gives gates of a lower precision than weights and states
    gru_sequence.register_autocast(device, torch.float32)
