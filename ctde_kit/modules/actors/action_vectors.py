"""Conversions between logits, actions in the env's form, and the action vectors that critics read."""

from __future__ import annotations

import torch
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.specs import ActionSpec, one_hot


def as_action(spec: ActionSpec, vector: Tensor) -> Tensor:
    """The action in the env's form, from a vector as ``spec.vector`` gives it; of logits, the best choices.

    >>> as_action(ActionSpec("categorical", (3,)), torch.tensor([[0.0, 0.0, 1.0]]))
    tensor([2])
    """
    if spec.kind == "continuous":
        return vector
    choices = [part.argmax(-1) for part in vector.split(list(spec.sizes), -1)]
    if spec.kind == "one_hot":
        return one_hot(choices[0], spec.sizes[0]).long()
    return choices[0] if spec.kind == "categorical" else torch.stack(choices, -1)


def hard(spec: ActionSpec, logits: Tensor) -> Tensor:
    """The best choices by ``logits``, one-hot, in the dtype of the logits."""
    parts = [one_hot(part.argmax(-1), part.shape[-1]) for part in logits.split(list(spec.sizes), -1)]
    return torch.cat(parts, -1).to(logits.dtype)


def straight_through(spec: ActionSpec, logits: Tensor, temperature: float) -> Tensor:
    """The best choices, one-hot, with the gradient of the softmax at ``temperature`` (Jang et al. 2017)."""
    soft = torch.cat([(part / temperature).softmax(-1) for part in logits.split(list(spec.sizes), -1)], -1)
    return hard(spec, logits) + (soft - soft.detach())


def masked_logits(spec: ActionSpec, logits: Tensor, mask: Tensor | None) -> Tensor:
    """``logits`` with the lowest finite number where ``mask`` forbids a choice.

    Where it forbids all choices, choice 0, the no-op, stays allowed.
    """
    if mask is None:
        return logits
    if mask.shape[-2:] != logits.shape[-2:]:
        raise UserError(
            f"action_mask: expected [*B, {', '.join(map(str, logits.shape[-2:]))}], found {list(mask.shape)}; it must "
            "say which choices each agent has"
        )
    parts = []
    for part in mask.split(list(spec.sizes), -1):
        no_op = torch.zeros_like(part)
        no_op[..., 0] = True
        parts.append(torch.where(part.any(-1, keepdim=True), part, no_op))
    return logits.masked_fill(~torch.cat(parts, -1), torch.finfo(logits.dtype).min)


def gumbel_like(logits: Tensor) -> Tensor:
    """Standard Gumbel noise: the argmax of ``logits`` plus this noise is a sample of their softmax."""
    # Not `empty_like`: it keeps strides, so a graph would draw the numbers in another order.
    noise = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    return -noise.exponential_().log()
