"""What a loss's gradients must be, whatever its parts."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import nn

from ctde_kit.training import GradientStep


def assert_every_parameter_learns(loss: nn.Module) -> None:
    """After ``backward`` every parameter that learns has a finite gradient that is not zero."""
    for name, parameter in loss.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def assert_the_graph_gives_the_eager_gradients(step: GradientStep, minibatch: TensorDictBase) -> None:
    """The one graph of a step and its eager form, with the same random numbers, have the same metrics and gradients."""
    torch.manual_seed(2)
    metrics, gradients = next(iter(step._compiled.values())).compiled(minibatch.clone())
    torch.manual_seed(2)
    plain_metrics, plain_gradients = step.gradients(minibatch.clone())
    for name, value in plain_metrics.items():
        torch.testing.assert_close(metrics[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    for found, expected in zip(gradients, plain_gradients, strict=True):
        if expected is None:
            assert found is None
        else:
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
