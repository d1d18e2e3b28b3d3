"""On a CUDA device: the same losses and gradients as on the CPU, compiled updates and rollouts, and bit-equal resumes.

``nox -s gpu``; skipped where there is no device.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctde_kit.recipes import QPLEXMixerConfig, RecipeConfig, iterate
from tests.gpu.test_rehearsal import minibatch_of
from tests.recipes.resuming import check_resumed_equals_uninterrupted
from tests.recipes.small import network, small_config
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.small_q import navigation, small_pqn_config, small_q_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]
DEVICE = "cuda"
# Losses that draw no random numbers: devices have generators of their own.
CASES: dict[str, Callable[..., RecipeConfig]] = {
    "mappo": lambda **options: small_config(task=navigation(), **options),
    "mappo, GRU": lambda **options: small_config("gru", task=navigation(), **options),
    "mappo, BiCNet": lambda **options: small_config(actor=network("bicnet"), task=navigation(), **options),
    "qmix": small_q_config,
    "qmix, GRU": lambda **options: small_q_config("gru", "sequences", **options),
    "qplex": lambda **options: small_q_config(algorithm="qplex", mixer=QPLEXMixerConfig(), **options),
    "pqn": small_pqn_config,
    "maddpg": small_maddpg_config,
}


def losses_and_gradients(losses: nn.ModuleDict, minibatch: Any) -> dict[str, Tensor]:
    """What an update computes, on the CPU."""
    found: dict[str, Tensor] = {}
    for group, loss in losses.items():
        values = dict(loss(minibatch.copy()).items())
        total = torch.stack([value for name, value in values.items() if name.startswith("loss_")]).sum()
        named = [(name, parameter) for name, parameter in loss.named_parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(total, [parameter for _, parameter in named], allow_unused=True)
        found |= {f"{group} {name}": value for name, value in values.items()}
        found |= {
            f"{group} {name}": gradient
            for (name, _), gradient in zip(named, gradients, strict=True)
            if gradient is not None
        }
    return {name: value.detach().cpu() for name, value in found.items()}


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_the_cpu(case: str) -> None:
    sides = []
    for device in ("cpu", DEVICE):
        parts = CASES[case](device=device, compile="off").build()
        update: Any = parts.update
        sides.append((parts, getattr(update, "step", update)))
    (here, step), (_, on_device) = sides
    here.buffer.extend(here.prepare(next(iter(here.collector))))
    minibatch = minibatch_of(here.buffer)
    on_device.losses.load_state_dict(step.losses.state_dict())
    expected = losses_and_gradients(step.losses, minibatch)
    found = losses_and_gradients(on_device.losses, minibatch.to(DEVICE))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=1e-5, msg=lambda told, name=name: f"{name}: {told}"
        )


@pytest.mark.parametrize("case", CASES)
def test_compiled_runs_train(case: str) -> None:
    parts = CASES[case](device=DEVICE, compile="on").build()
    iterations = list(iterate(parts))
    assert iterations[-1].frames == 240
    assert {str(iteration.batch.device).partition(":")[0] for iteration in iterations} == {DEVICE}


@pytest.mark.parametrize("compiled", ["off", "on"])
@pytest.mark.parametrize("case", ["mappo", "mappo, GRU", "qmix", "maddpg"])
def test_a_resumed_run_ends_as_one_that_never_stopped(case: str, compiled: str, tmp_path: Path) -> None:
    algorithm = case.partition(",")[0]
    check_resumed_equals_uninterrupted(
        lambda: CASES[case](device=DEVICE, compile=compiled).build(), algorithm, tmp_path / "checkpoint.pt"
    )
