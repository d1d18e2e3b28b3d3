"""Recurrent networks: one step, a sequence of steps, and where episodes begin."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.modules import set_recurrent_mode

from ctde_kit.errors import UserError
from ctde_kit.modules import MultiAgentGRU
from tests.contracts.fakes import HIDDEN, SHARINGS, group_spec, make_actor, sharing

B, T, N, F, G, H = 4, 7, 3, 5, 2, 8


def make_gru(share: Any = True) -> MultiAgentGRU:
    torch.manual_seed(0)
    return MultiAgentGRU(F, G, N, share_params=sharing(share, N), hidden_size=H, num_cells=(6,))


def sequence() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, a hidden state to start from, and resets in the middle: at step 3 and 5 of two envs."""
    torch.manual_seed(1)
    is_init = torch.zeros(B, T, 1, dtype=torch.bool)
    is_init[0, 3] = is_init[2, 3] = is_init[2, 5] = True
    return torch.randn(B, T, N, F), torch.randn(B, N, H).tanh(), is_init


def loop(gru: MultiAgentGRU, x: Tensor, hidden: Tensor, is_init: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Steps one by one: outputs, and the hidden states after and before each."""
    steps = []
    for t in range(x.shape[1]):
        outputs, hidden, before = gru(x[:, t], hidden, is_init[:, t])
        steps.append((outputs, hidden, before))
    outputs, after, before = (torch.stack(part, 1) for part in zip(*steps, strict=True))
    return outputs, after, before


@pytest.mark.parametrize("share", SHARINGS)
def test_a_sequence_equals_single_steps(share: Any) -> None:
    gru = make_gru(share)
    for stepped, unrolled in zip(loop(gru, *sequence()), gru.unroll(*sequence()), strict=True):
        torch.testing.assert_close(stepped, unrolled, rtol=0, atol=1e-5)


@pytest.mark.parametrize("share", SHARINGS)
def test_gradients_through_a_sequence_equal_those_through_single_steps(share: Any) -> None:
    gru = make_gru(share)
    gradients = []
    for run in (loop, MultiAgentGRU.unroll):
        gradients.append(torch.autograd.grad(run(gru, *sequence())[0].square().sum(), list(gru.parameters())))
    for stepped, unrolled in zip(*gradients, strict=True):
        torch.testing.assert_close(stepped, unrolled, rtol=1e-4, atol=1e-5)


def test_the_cell_is_pytorchs() -> None:
    gru = MultiAgentGRU(F, G, N, hidden_size=H, num_cells=())
    cell = nn.GRUCell(F, H)
    with torch.no_grad():
        cell.weight_ih.copy_(gru.input_gates.weight[0])
        cell.bias_ih.copy_(gru.input_gates.bias[0])
        cell.weight_hh.copy_(gru.hidden_gates.weight[0])
        cell.bias_hh.copy_(gru.hidden_gates.bias[0])
    x, hidden = torch.randn(N, F), torch.randn(N, H)
    torch.testing.assert_close(gru(x, hidden, torch.tensor([False]))[1], cell(x, hidden))


def test_a_step_zeroes_the_hidden_state_where_an_episode_begins() -> None:
    gru = make_gru()
    x, hidden, _ = sequence()
    is_init = torch.tensor([[True], [False], [True], [False]])
    outputs, _, used = gru(x[:, 0], hidden, is_init)
    assert used.flatten(1).any(1).tolist() == [False, True, False, True]
    torch.testing.assert_close(outputs[0], gru(x[0, 0], torch.zeros(N, H), torch.tensor([False]))[0])


def test_a_sequence_starts_from_the_hidden_state_given_even_where_its_start_is_marked() -> None:
    gru = make_gru()
    x, hidden, is_init = sequence()
    marked = is_init.clone()
    marked[:, 0] = True
    torch.testing.assert_close(gru.unroll(x, hidden, marked), gru.unroll(x, hidden, is_init))
    assert not torch.allclose(gru.unroll(x, 0 * hidden, marked)[0], gru.unroll(x, hidden, marked)[0])


def test_nothing_before_a_reset_matters_after_it() -> None:
    gru = make_gru()
    x, hidden, is_init = sequence()
    outputs = gru.unroll(x, hidden, is_init)[0]
    x[0, :3] = torch.nan
    torch.testing.assert_close(gru.unroll(x, hidden, is_init)[0][0, 3:], outputs[0, 3:])
    torch.testing.assert_close(gru.unroll(x[:, 3:], 0 * hidden, is_init[:, 3:])[0][0], outputs[0, 3:])


def test_agents_and_envs_do_not_mix() -> None:
    gru = make_gru(share=False)
    x, hidden, is_init = sequence()
    outputs = gru.unroll(x, hidden, is_init)[0]
    changed = x.clone()
    changed[1, :, 2] += 1
    differs = (gru.unroll(changed, hidden, is_init)[0] != outputs).flatten(-1).any(-1).any(1)
    assert differs.nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("share", SHARINGS)
def test_for_agent_is_a_slice(share: Any) -> None:
    gru = make_gru(share)
    x, hidden, is_init = sequence()
    for agent in range(N):
        one = slice(agent, agent + 1)
        alone = gru.for_agent(agent)(x[:, 0, one], hidden[:, one], is_init[:, 0])
        for ours, joint in zip(alone, gru(x[:, 0], hidden, is_init[:, 0]), strict=True):
            torch.testing.assert_close(ours, joint[:, one])


def recurrent_input(*batch: int) -> TensorDict:
    data = TensorDict({("agents", "observation"): torch.randn(*batch, N, F)}, batch)
    data.set(("agents", "actor_hidden"), torch.randn(*batch, N, HIDDEN))
    return data.set("is_init", torch.zeros(*batch, 1, dtype=torch.bool))


@pytest.mark.parametrize("missing", ["is_init", ("agents", "actor_hidden")])
@pytest.mark.parametrize("sequence_mode", [False, True])
def test_missing_entries_are_errors(missing: Any, sequence_mode: bool) -> None:
    network = make_actor(group_spec(), recurrent=True).agent_network
    with set_recurrent_mode(sequence_mode), pytest.raises(UserError, match=re.escape(f"key {missing!r} is missing")):
        network(recurrent_input(B, T).exclude(missing))


def test_the_stored_hidden_state_is_the_one_that_was_used() -> None:
    network = make_actor(group_spec(), recurrent=True).agent_network
    data = recurrent_input(B)
    data["is_init"][1] = True
    out = network(data.clone())
    assert not out["agents", "actor_hidden"][1].any()
    torch.testing.assert_close(out["agents", "actor_hidden"][0], data["agents", "actor_hidden"][0])
    assert out["next", "agents", "actor_hidden"].shape == (B, N, HIDDEN)


def test_the_last_batch_dimension_is_time_in_sequence_mode() -> None:
    network = make_actor(group_spec(), recurrent=True).agent_network
    data = recurrent_input(B, T)
    with set_recurrent_mode(True):
        unrolled = network(data.clone())["agents", "logits"]
    hidden = data["agents", "actor_hidden"][:, 0]
    for t in range(T):
        step = network(data[:, t].clone().set(("agents", "actor_hidden"), hidden))
        torch.testing.assert_close(step["agents", "logits"], unrolled[:, t], rtol=0, atol=1e-5)
        hidden = step["next", "agents", "actor_hidden"]


def test_the_primer_gives_the_hidden_state_its_shape() -> None:
    primer = make_actor(group_spec(), recurrent=True).make_tensordict_primer()
    assert primer.primers["agents", "actor_hidden"].shape == (N, HIDDEN)
    assert primer.primers["agents"].shape == (N,)
    assert make_actor(group_spec()).make_tensordict_primer().primers.is_empty()
