"""Networks in which agents talk: whom they hear, in which form, and that nobody else is heard."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.graph import trace
from ctde_kit.modules import (
    BidirectionalRNN,
    MeanMessages,
    MultiAgentBiCNet,
    MultiAgentCommNet,
    MultiAgentGRU,
    MultiAgentMLP,
    MultiAgentTarMAC,
    TargetedMessages,
)

B, T, N, F, G, H = 4, 6, 5, 7, 2, 8
CHANNELS: dict[str, Any] = {
    "bicnet": MultiAgentBiCNet,
    "bicnet lstm": lambda *sizes, **options: MultiAgentBiCNet(*sizes, cell="lstm", **options),
    "commnet": MultiAgentCommNet,
    "tarmac": MultiAgentTarMAC,
}
ALIVE = torch.tensor([True, False, True, True, False])
every_channel = pytest.mark.parametrize("name", CHANNELS)
either_front = pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])

pytestmark = pytest.mark.usefixtures("float64")


def make(name: str, n_agents: int = N, recurrent: bool = False, **options: Any) -> Any:
    return CHANNELS[name](F, G, n_agents, hidden_size=H, num_cells=(9,), recurrent=recurrent, **options)


def run(network: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Outputs ``[*B, T, n, G]`` of inputs along time; a GRU starts from zero."""
    if not network.recurrent:
        return network(x, mask=mask)
    hidden = torch.zeros(*x.shape[:-3], x.shape[-2], H)
    return network.unroll(x, hidden, torch.zeros(*x.shape[:-2], 1, dtype=torch.bool), mask=mask)[0]


def moves(network: Any, *batch: int) -> Tensor:
    """Whether output ``[*batch, n]`` moves with input ``[*batch, n]``."""
    x = torch.randn(*batch, N, F)
    derivative = torch.autograd.functional.jacobian(lambda x: run(network, x), x).abs()
    return derivative.sum((len(batch) + 1, -1)) > 0


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("dead", [False, True])
def test_bicnets_layer_is_pytorchs_on_the_living(cell: Any, dead: bool) -> None:
    layer = BidirectionalRNN(F, H, cell)
    reference = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](F, H, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for direction, suffix in enumerate(("", "_reverse")):
            getattr(reference, f"weight_ih_l0{suffix}").copy_(layer.input_gates.weight[direction])
            getattr(reference, f"bias_ih_l0{suffix}").copy_(layer.input_gates.bias[direction])
            getattr(reference, f"weight_hh_l0{suffix}").copy_(layer.hidden_gates.weight[direction])
            getattr(reference, f"bias_hh_l0{suffix}").copy_(layer.hidden_gates.bias[direction])
    x = torch.randn(B, N, F)
    if not dead:
        torch.testing.assert_close(layer(x), reference(x)[0])
        return
    mask = torch.stack([ALIVE, ~ALIVE, torch.ones(N).bool(), torch.zeros(N).bool()])
    outputs = layer(x, mask)
    for env in range(B):
        assert not outputs[env, ~mask[env]].any()
        if mask[env].any():
            torch.testing.assert_close(outputs[env, mask[env]], reference(x[env, mask[env]].unsqueeze(0))[0][0])


def test_commnets_rounds_are_the_papers() -> None:
    rounds = MeanMessages(H, rounds=3)
    x = torch.randn(B, N, H)
    hidden = [x[:, i] for i in range(N)]
    for own, heard in zip(rounds.own, rounds.heard, strict=True):
        means = [torch.stack([hidden[j] for j in range(N) if j != i]).mean(0) for i in range(N)]
        hidden = [
            torch.tanh(h @ own.weight[0].T + own.bias[0] + mean @ heard.weight.T)
            for h, mean in zip(hidden, means, strict=True)
        ]
    torch.testing.assert_close(rounds(x), torch.stack(hidden, 1))


def test_tarmacs_rounds_are_the_papers() -> None:
    size = 3
    rounds = TargetedMessages(H, signature_size=size, rounds=2)
    x = torch.randn(B, N, H)
    hidden = [x[:, i] for i in range(N)]
    weight, bias = rounds.message.weight[0], rounds.message.bias[0]
    for _ in range(2):
        sent = [h @ weight.T + bias for h in hidden]
        following = []
        for own, query in [(message[:, -H:], message[:, size : 2 * size]) for message in sent]:
            scores = [(query * message[:, :size]).sum(-1) / size**0.5 for message in sent]
            total = torch.stack([score.exp() for score in scores]).sum(0)
            values = [message[:, 2 * size : -H] for message in sent]
            weights = [(score.exp() / total).unsqueeze(-1) for score in scores]
            heard = torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum(0)
            following.append(torch.tanh(own + heard @ rounds.heard.weight.T))
        hidden = following
    torch.testing.assert_close(rounds(x), torch.stack(hidden, 1))


@every_channel
def test_every_agent_hears_every_other_and_nobody_in_another_batch_entry(name: str) -> None:
    for batch in [(3,), (2, 3)]:
        size = torch.Size(batch).numel()
        same = torch.eye(size).bool().reshape(size, 1, size, 1).expand(size, N, size, N)
        assert torch.equal(moves(make(name), *batch), same.reshape(*batch, N, *batch, N))


@every_channel
def test_behind_a_gru_the_past_is_heard_and_neither_the_future_nor_another_batch_entry(name: str) -> None:
    batch = 2
    found = moves(make(name, recurrent=True), batch, 3)
    same = torch.eye(batch).bool().reshape(batch, 1, 1, batch, 1, 1)
    past = torch.ones(3, 3).tril().bool().reshape(1, 3, 1, 1, 3, 1)
    assert torch.equal(found, (same & past).expand(batch, 3, N, batch, 3, N))


@pytest.mark.parametrize("agent_network", [MultiAgentMLP, MultiAgentGRU])
def test_networks_without_a_channel_hear_nobody(agent_network: Any) -> None:
    recurrent = agent_network.recurrent
    options = {"hidden_size": H} if recurrent else {}
    network = agent_network(F, G, N, num_cells=(9,), **options)
    x = torch.randn(2, N, F)

    def outputs(x: Tensor) -> Tensor:
        return network(x) if not recurrent else network.unroll(x, torch.zeros(N, H), torch.zeros(2, 1).bool())[0]

    derivative = torch.autograd.functional.jacobian(outputs, x).abs().sum((2, 5))
    assert torch.equal(derivative.sum((0, 2)) > 0, torch.eye(N).bool())


@every_channel
@either_front
def test_alike_agents_are_equivariant_and_bicnets_are_in_order(name: str, recurrent: bool) -> None:
    network, order = make(name, recurrent=recurrent), torch.tensor([3, 0, 4, 2, 1])
    x, mask = torch.randn(B, T, N, F), torch.rand(B, T, N) < 0.7
    permuted = run(network, x[:, :, order], mask[:, :, order])
    alike = torch.allclose(permuted, run(network, x, mask)[:, :, order])
    assert alike == (not name.startswith("bicnet"))


@every_channel
@either_front
def test_for_the_living_the_dead_are_not_there(name: str, recurrent: bool) -> None:
    network = make(name, recurrent=recurrent)
    x = torch.randn(B, T, N, F)
    x[..., ~ALIVE, :] = torch.nan
    outputs = run(network, x, ALIVE.expand(B, T, N))
    torch.testing.assert_close(outputs[..., ALIVE, :], run(network, x[..., ALIVE, :]))
    assert not torch.allclose(outputs[..., ALIVE, :], run(network, x.nan_to_num())[..., ALIVE, :])
    silence = run(network, 0 * x.nan_to_num(), torch.zeros(B, T, N).bool())
    torch.testing.assert_close(outputs[..., ~ALIVE, :], silence[..., ~ALIVE, :])


@every_channel
@either_front
def test_the_dead_change_no_gradient(name: str, recurrent: bool) -> None:
    network = make(name, recurrent=recurrent)
    x = torch.randn(B, T, N, F)
    gradients = []
    for garbage in (0.0, 1e30, torch.nan):
        x[..., ~ALIVE, :] = garbage
        outputs = run(network, x, ALIVE.expand(B, T, N))
        loss = outputs[..., ALIVE, :].square().sum()
        gradients.append(list(torch.autograd.grad(loss, list(network.parameters()))))
    alone = run(network, x[..., ALIVE, :]).square().sum()
    expected = torch.autograd.grad(alone, list(network.parameters()))
    for found in gradients:
        torch.testing.assert_close(found, list(expected))


@every_channel
@pytest.mark.parametrize("living", [0, 1])
def test_one_who_is_left_alone_is_finite(name: str, living: int) -> None:
    network, mask = make(name), torch.arange(N) < living
    x = torch.randn(B, N, F, requires_grad=True)
    outputs = network(x, mask=mask.expand(B, N))
    outputs.sum().backward()
    assert outputs.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    if living:
        torch.testing.assert_close(outputs[:, mask], network(x[:, mask]))


@every_channel
@either_front
def test_what_a_receiver_learns_moves_the_senders_encoder(name: str, recurrent: bool) -> None:
    network = make(name, recurrent=recurrent)
    sent: list[Tensor] = []
    network.encoder.activation.register_forward_hook(lambda *args: args[-1].retain_grad() or sent.append(args[-1]))
    run(network, torch.randn(B, T, N, F))[..., 2, :].sum().backward()
    heard = sent[-1].grad.abs().sum((0, 1, 3))
    assert (heard > 0).all(), heard


@every_channel
@either_front
def test_weights_fit_any_number_of_agents(name: str, recurrent: bool) -> None:
    few, many = make(name, 3, recurrent), make(name, 5, recurrent)
    many.load_state_dict(few.state_dict())
    x = torch.randn(B, T, 5, F)
    torch.testing.assert_close(run(many, x), run(few, x))
    assert not torch.allclose(run(many, x)[..., :3, :], run(few, x[..., :3, :]))


@every_channel
def test_single_steps_equal_the_sequence(name: str) -> None:
    network = make(name, recurrent=True)
    x, hidden, mask = torch.randn(B, T, N, F), torch.randn(B, N, H), torch.rand(B, T, N) < 0.7
    is_init = torch.zeros(B, T, 1, dtype=torch.bool)
    is_init[0, 3] = is_init[2, 3] = is_init[2, 5] = True
    unrolled = network.unroll(x, hidden, is_init, mask=mask)
    for t in range(T):
        outputs, after, before = network(x[:, t], hidden, is_init[:, t], mask=mask[:, t])
        for stepped, part in zip((outputs, after, before), unrolled, strict=True):
            torch.testing.assert_close(stepped, part[:, t])
        hidden = after


@every_channel
def test_a_graph_takes_it_with_its_gradients_and_other_masks(name: str) -> None:
    network = make(name)
    parameters = list(network.parameters())

    def gradients(inputs: list[Tensor]) -> list[Tensor]:
        with torch.enable_grad():
            loss = run(network, inputs[0], inputs[1]).square().sum()
            return [loss.detach(), *torch.autograd.grad(loss, parameters)]

    graph = trace(gradients, [torch.randn(B, N, F), torch.rand(B, N) < 0.5], parameters)
    for mask in (ALIVE.expand(B, N), torch.zeros(B, N).bool()):
        inputs = [torch.randn(B, N, F), mask]
        torch.testing.assert_close(list(graph(inputs)), gradients(inputs))


@every_channel
def test_out_gain_scales_the_head_alone(name: str) -> None:
    network = make(name, out_gain=0.01)
    weight = network.head.weight[0]
    torch.testing.assert_close(weight @ weight.T, 1e-4 * torch.eye(G))
    assert network.encoder.network.layers[-1].weight.norm() > 1


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (lambda: MultiAgentBiCNet(F, G, N, hidden_size=7), "hidden_size=7: expected an even number"),
        (lambda: MultiAgentBiCNet(F, G, N, cell="rnn"), "cell='rnn': expected one of gru, lstm"),
        (lambda: MultiAgentCommNet(F, G, N, rounds=0), "rounds=0"),
        (lambda: MultiAgentTarMAC(F, G, N, signature_size=0), "signature_size=0"),
        (lambda: MultiAgentTarMAC(F, G, N, hidden_size=0), "hidden_size=0"),
        (lambda: make("commnet")(torch.ones(B, N, F), mask=torch.ones(B, 1).bool()), "mask: expected [4, 5]"),
    ],
)
def test_mistakes_are_one_line(make_one: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_one()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
