"""COMA's bounded softmax: probabilities, log-probabilities, greedy actions, single agents, and what is saved."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.errors import UserError
from ctde_kit.modules import EpsilonFloor, MaskedCategorical
from tests.contracts.fakes import group_spec
from tests.objectives.coma.cases import make_floored, probabilities


@pytest.mark.parametrize("epsilon", [0.0, 0.02, 0.5, 1.0])
def test_probabilities_are_those_of_the_mixture(epsilon: float) -> None:
    logits, mask = 3 * torch.randn(7, 3, 6).double(), torch.rand(7, 3, 6) < 0.5
    mask[0, 0] = False  # allowed nothing: the no-op alone
    dist = EpsilonFloor(group_spec(action_mask=True), epsilon).distribution(logits, mask)
    for row in range(7):
        for i in range(3):
            expected = probabilities(logits[row, i], mask[row, i], epsilon)
            torch.testing.assert_close(dist.probs[row, i], expected.double())
    assert (dist.probs[mask] >= epsilon / 6 - 1e-9).all()
    for action in range(6):
        chosen = torch.full((7, 3), action)
        allowed = mask[..., action]
        torch.testing.assert_close(dist.log_prob(chosen)[allowed], dist.probs[..., action][allowed].log())


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_gradients_are_0_at_both_ends(epsilon: float) -> None:
    logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    dist = MaskedCategorical(logits, mask, epsilon=torch.tensor(epsilon))
    (gradient,) = torch.autograd.grad(dist.log_prob(torch.tensor([0])).sum() + dist.entropy().sum(), logits)
    assert gradient.tolist() == [[0, 0, 0]]


def test_the_greedy_action_is_that_of_the_softmax_and_samples_are_of_the_mixture() -> None:
    torch.manual_seed(0)
    group = group_spec(n_agents=2)
    actor = make_floored(group, epsilon=0.5)
    data = TensorDict({"agents": {"observation": torch.randn(1, 2, 5).expand(4_000, 2, 5)}}, [4_000])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        greedy = actor(data.copy())["agents", "action"]
    logits = actor.agent_network(data.copy())["agents", "logits"]
    assert torch.equal(greedy, logits.argmax(-1))
    with set_exploration_type(ExplorationType.RANDOM):
        sampled = actor(data.copy())
    expected = 0.5 * logits[0].softmax(-1) + 0.5 / 6
    share = torch.nn.functional.one_hot(sampled["agents", "action"], 6).float().mean(0)
    torch.testing.assert_close(share, expected, rtol=0, atol=0.03)
    chosen = expected.gather(-1, sampled["agents", "action"].T).T
    torch.testing.assert_close(sampled["agents", "action_log_prob"], chosen.log())


def test_with_uniform_choices_alone_the_greedy_action_is_still_that_of_the_softmax() -> None:
    floor = EpsilonFloor(group_spec(), 1.0)
    assert floor.distribution(torch.tensor([[0.0, 3.0, 1.0]])).mode.tolist() == [1]
    masked = floor.distribution(torch.tensor([[0.0, 3.0, 1.0]]), torch.tensor([[True, False, True]]))
    assert masked.deterministic_sample.tolist() == [2]


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, float("nan")])
def test_a_share_is_a_ratio(epsilon: float) -> None:
    with pytest.raises(UserError, match=f"EpsilonFloor: epsilon={epsilon}: expected a ratio from 0 to 1"):
        EpsilonFloor(group_spec(), epsilon)


def test_epsilon_is_saved_annealed_in_place_and_shared_with_single_agents() -> None:
    actor = make_floored(group_spec(n_agents=2), epsilon=0.5)
    assert [name for name in actor.state_dict() if name.endswith("epsilon")] == ["floor.epsilon"]
    assert actor.floor is not None
    single = actor.for_agent(1)
    actor.floor.epsilon.fill_(0.25)
    assert single.actor.floor is not None
    assert single.actor.floor.epsilon == 0.25
    observation = torch.randn(5, 2, 5)
    alone = single.get_dist(TensorDict({"agents": {"observation": observation[:, 1]}}, [5]))
    together = actor.get_dist(TensorDict({"agents": {"observation": observation}}, [5]))
    torch.testing.assert_close(alone.probs, together.probs[:, 1])


@pytest.mark.parametrize(("kind", "message"), [("continuous", "continuous actions"), ("multi_discrete", "one choice")])
def test_other_actions_are_refused(kind: str, message: str) -> None:
    with pytest.raises(UserError, match=f"group 'agents' has .*{message}"):
        EpsilonFloor(group_spec(kind=kind), 0.1)
