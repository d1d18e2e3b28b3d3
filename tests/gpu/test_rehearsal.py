"""Rehearsal without a GPU: policies, estimators and losses of all recipes keep to one device and never wait for it.

Needs a CUDA build of PyTorch, and no device: ``nox -s gpu_rehearsal``. Backward passes, random generators, Triton and
CUDA graphs do not run that way; ``test_parity`` runs them on a device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.data import OnPolicyBuffer
from ctde_kit.recipes import (
    AttentionCriticConfig,
    CentralWeighting,
    QMixerConfig,
    QPLEXMixerConfig,
    RecipeConfig,
    VariationalInformation,
)
from tests.gpu.fake_cuda import devices, fake_mode, move, moved
from tests.recipes.small import NORMALIZED, network, small_config
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.small_masac import small_masac_config
from tests.recipes.small_q import small_pqn_config, small_q_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.version.cuda is None, reason="this is no CUDA build of PyTorch"),
]
CASES: dict[str, Callable[[], RecipeConfig]] = {
    "mappo": small_config,
    "mappo, GRU": lambda: small_config("gru"),
    "mappo, BiCNet": lambda: small_config(actor=network("bicnet")),
    "mappo, TarMAC with a GRU": lambda: small_config(actor=network("tarmac gru"), sequence_length=5),
    "mappo, attention": lambda: small_config(critic=AttentionCriticConfig()),
    "mappo, normalized": lambda: small_config(**NORMALIZED),
    "qmix": small_q_config,
    "qmix, GRU": lambda: small_q_config("gru", "sequences"),
    "qplex": lambda: small_q_config(algorithm="qplex", mixer=QPLEXMixerConfig()),
    "qmix, weighted": lambda: small_q_config(weighting=CentralWeighting()),
    "pqn": small_pqn_config,
    "maddpg": small_maddpg_config,
    "maddpg, GRU": lambda: small_maddpg_config("gru", "sequences"),
    "maddpg, CommNet": lambda: small_maddpg_config(actor=network("commnet")),
    "facmac": lambda: small_maddpg_config(algorithm="facmac", mixer=QMixerConfig(embed_dim=5)),
    "masac": small_masac_config,
    "masac, information": lambda: small_masac_config(mutual_information=VariationalInformation()),
    "masac, information of choices": lambda: small_masac_config(
        continuous=False, mutual_information=VariationalInformation()
    ),
}


def minibatch_of(buffer: Any) -> Any:
    """One minibatch of whatever buffer."""
    return next(iter(buffer)) if hasattr(buffer, "__iter__") else next(iter(buffer.samples(1)))


@pytest.mark.parametrize("case", CASES)
def test_nothing_leaves_the_device(case: str) -> None:
    parts = CASES[case]().build()
    batch = next(iter(parts.collector))
    parts.buffer.extend(parts.prepare(batch.copy()))
    minibatch = minibatch_of(parts.buffer)
    update: Any = parts.update
    step = getattr(update, "step", update)
    mode = fake_mode()
    for module in (step.losses, parts.policy, *([parts.prepare] if isinstance(parts.prepare, nn.Module) else [])):
        move(module, mode)
    batch, minibatch = moved(batch, mode), moved(minibatch, mode)
    with mode:
        with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
            assert devices(parts.policy(batch[:, 0].copy())) == {"cuda"}
        assert devices(parts.prepare(batch)) == {"cuda"}
        for loss in step.losses.values():
            assert devices(loss(minibatch)) == {"cuda"}


def test_a_buffer_splits_a_batch_that_does_not_say_where_it_lies() -> None:
    mode = fake_mode()
    batch = moved(TensorDict({"x": torch.ones(4, 6, 2)}, [4, 6]), mode)
    assert batch.device is None
    buffer = OnPolicyBuffer(minibatch_frames=8)
    with mode:
        buffer.extend(batch)
        assert [devices(minibatch) for minibatch in buffer] == [{"cuda"}] * 3


def test_a_wait_and_a_mixture_are_seen() -> None:
    mode = fake_mode()
    number = moved(TensorDict({"x": torch.ones(3)}, [3]), mode)["x"]
    with mode:
        with pytest.raises(Exception, match="_local_scalar_dense"):
            number.sum().item()
        with pytest.raises(Exception, match="devices"):
            _ = number + torch.ones(3)
