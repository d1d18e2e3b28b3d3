"""Learners that share the agents of one batch against one learner: gradients, priorities and metrics."""

from __future__ import annotations

import threading
from copy import deepcopy
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.distributed import AverageGradients
from ctde_kit.distributed.dealt_agents import deal
from ctde_kit.shards import average_of_all, sharing
from ctde_kit.training import GradientStep
from tests.contracts.entry_cases import CASES, batch_of
from tests.distributed.threads import InTurn, side_by_side

# What agents learn together cannot be shared by agent.
TOGETHER = ["FACMAC", "MADDPG with beliefs", "MASAC with mutual information"]
MADDPG = [name for name in CASES if "MADDPG" in name and name not in TOGETHER]
MASAC = [name for name in CASES if "MASAC" in name and name not in TOGETHER]


def step_of(loss: nn.Module, average: Any = None) -> GradientStep:
    trainable = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    return GradientStep({"team": loss}, torch.optim.SGD(trainable, lr=0.1), 1e-2, average=average)


def learned(step: GradientStep, batch: TensorDictBase) -> dict[str, Tensor | None]:
    """Gradients, metrics and priorities, by name."""
    metrics, gradients = step.gradients(batch)
    return {**metrics, "priority": batch["td_error"], **{f"gradient {i}": g for i, g in enumerate(gradients)}}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("learners", [2, 3])
@pytest.mark.parametrize("name", [*MADDPG, "M3DDPG", "MATD3", *MASAC])
def test_learners_that_share_agents_learn_what_one_does(name: str, learners: int) -> None:
    case = CASES[name]
    loss = case.build()
    batch = batch_of(loss.entries, case.batch)
    losses = [deepcopy(loss) for _ in range(learners)]
    dealt = deal({group: spec.n_agents for group, spec in loss.groups_by_agent.items()}, learners)
    torch.manual_seed(0)
    expected = learned(step_of(loss), batch.clone())
    turn = threading.Lock()

    def learn(rank: int, average: AverageGradients) -> dict[str, Tensor | None]:
        in_turn = InTurn(average, turn)
        with turn, sharing(in_turn, dealt[rank]):
            torch.manual_seed(0)
            found = learned(step_of(losses[rank], in_turn), batch.clone())
            return {key: value if _is_whole(key) else average_of_all(value) for key, value in found.items()}

    for found in side_by_side(learners, learn):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert (found[key] is None) == (value is None), key
            if value is not None:
                torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-12, msg=key)


def _is_whole(key: str) -> bool:
    return key == "priority" or key.startswith("gradient ")
