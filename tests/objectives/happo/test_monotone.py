"""Exact tabular updates: with products of ratios, no agent's turn lowers the team's return (Kuba et al. 2022, thm. 2).

The batch holds every joint action in every state, and advantages carry how likely each of them is: the objective is
then an expectation, not an estimate. Returns come from the policies' tables.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from ctde_kit.modules import MultiAgentActor, MultiAgentMLP, own_observation, value_critic
from ctde_kit.objectives import HAPPOLoss
from ctde_kit.objectives.happo import AgentLearner
from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec

GAMMA = 0.9

pytestmark = pytest.mark.usefixtures("float64")


class Game:
    """A tabular team game: rewards ``[S, joint]`` and transition probabilities ``[S, joint, S]``; 0 where it ends."""

    def __init__(self, n_agents: int, n_actions: int, rewards: Tensor, follows: Tensor, clip_epsilon: float = 0.2):
        self.joint = torch.tensor(list(product(range(n_actions), repeat=n_agents)))
        self.rewards, self.follows, self.n_states = rewards, follows, len(rewards)
        group = GroupSpec("agents", n_agents, self.n_states, ActionSpec("categorical", (n_actions,)))
        network = MultiAgentMLP(self.n_states, n_actions, n_agents, share_params=False, num_cells=())
        actor = MultiAgentActor(group, own_observation(group), network)
        critic = value_critic(TeamSpec((group,)), group, MultiAgentMLP, heads="one")
        self.loss = HAPPOLoss(actor, critic, entropy_coeff=0.0, clip_epsilon=clip_epsilon)

    def log_probs(self) -> Tensor:
        """Of each agent's part in each joint action, ``[S, joint, n_agents]``."""
        rows = self._rows()
        return self.loss.actor_network.get_dist(rows).log_prob(rows["agents", "action"]).detach()

    def _rows(self) -> TensorDict:
        n_agents = self.joint.shape[-1]
        shape = (self.n_states, len(self.joint), n_agents)
        states = torch.eye(self.n_states)[:, None, None].expand(*shape, -1)
        entries = {"observation": states.clone(), "action": self.joint.expand(shape).clone()}
        return TensorDict({"agents": entries}, shape[:2])

    def solve(self) -> tuple[Tensor, Tensor]:
        """The return, and each joint action's advantage times its probability and how often its state is visited."""
        policy = self.log_probs().sum(-1).exp()
        follows = torch.einsum("sj,sjt->st", policy, self.follows)
        resolvent = torch.linalg.inv(torch.eye(self.n_states) - GAMMA * follows)
        value = resolvent @ (policy * self.rewards).sum(-1)
        advantage = self.rewards + GAMMA * self.follows @ value - value.unsqueeze(-1)
        return value[0], resolvent[0].unsqueeze(-1) * policy * advantage

    def batch(self) -> TensorDict:
        """Every joint action in every state, with what the loss reads."""
        rows = self._rows()
        weighted = self.solve()[1] * rows.numel()
        like = rows["agents", "action"].unsqueeze(-1)
        rows["agents", "advantage"] = weighted[..., None, None].expand(like.shape).clone()
        rows["agents", "action_log_prob"] = self.log_probs()
        return rows


def one_step_game(seed: int, clip_epsilon: float) -> Game:
    """Three agents whose payoffs are drawn."""
    torch.manual_seed(seed)
    return Game(3, 2, 10 * torch.randn(1, 8), torch.zeros(1, 8, 1), clip_epsilon)


def matching_game() -> Game:
    """Two agents who are paid for doing the same; one leans to the first action, the other to the second."""
    torch.manual_seed(0)
    game = Game(2, 2, torch.tensor([[10.0, -10.0, -10.0, 10.0]]), torch.zeros(1, 4, 1), clip_epsilon=5.0)
    with torch.no_grad():
        for parameter, lean in zip(game.loss.actor_network.parameters(), (0.0, 1.0), strict=True):
            parameter.copy_(lean * torch.tensor([[0.5, 0.0], [0.0, 0.5]]).reshape(2, 2, *[1] * (parameter.ndim - 2)))
    return game


def many_steps_game(seed: int) -> Game:
    """Two agents in four states, of which the next is drawn; a step in twenty ends the game."""
    torch.manual_seed(seed)
    return Game(2, 3, torch.randn(4, 9), 0.95 * torch.rand(4, 9, 4).softmax(-1))


def learn(learner: AgentLearner, part: Any, lr: float, steps: int) -> None:
    """Gradient steps that are halved until the objective does not fall, as trust regions are searched for."""
    parameters = list(learner.parameters())
    start, first = [parameter.detach().clone() for parameter in parameters], learner(part)["loss_objective"].item()
    while lr > 1e-9:
        for _ in range(steps):
            gradients = torch.autograd.grad(learner(part)["loss_objective"], parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter -= lr * gradient
        if learner(part)["loss_objective"] <= first:
            return
        with torch.no_grad():
            for parameter, value in zip(parameters, start, strict=True):
                parameter.copy_(value)
        lr /= 2


def returns(game: Game, iterations: int, lr: float, steps: int, *, with_products: bool = True) -> list[float]:
    """The exact return before the first turn and after each one."""
    loss, found = game.loss, [game.solve()[0].item()]
    for _ in range(iterations):
        batch, order = loss.begin(game.batch()), torch.randperm(loss.n_agents).tolist()
        for place, agent in enumerate(order, 1):
            learner = loss.for_agent(agent)
            learn(learner, learner.select(batch), lr, steps)
            if with_products:
                loss.pass_on(batch, agent, order[place:])
            found.append(game.solve()[0].item())
    return found


def falls(found: list[float]) -> int:
    return sum(after < before - 1e-9 for before, after in pairwise(found))


@pytest.mark.parametrize("clip_epsilon", [0.2, 5.0])
@pytest.mark.parametrize("seed", range(2))
def test_in_one_step_games_no_step_that_the_objective_likes_lowers_the_return(seed: int, clip_epsilon: float) -> None:
    """The objective is a lower bound of what the return gains, however large the step is."""
    found = returns(one_step_game(seed, clip_epsilon), iterations=4, lr=3.0, steps=3)
    assert falls(found) == 0
    assert found[-1] > found[0] + 1


def test_without_products_the_same_steps_lower_it() -> None:
    """Agents that move as if those before them had stayed as they were: each goes where the other was."""
    with_products = returns(matching_game(), iterations=2, lr=1.0, steps=3)
    assert falls(with_products) == 0
    assert with_products[-1] > 9
    without = returns(matching_game(), iterations=1, lr=1.0, steps=3, with_products=False)
    assert falls(without) == 1
    assert without[-1] < without[0] - 5


@pytest.mark.parametrize("seed", range(2))
def test_in_games_of_many_steps_small_steps_do_not_lower_the_return(seed: int) -> None:
    found = returns(many_steps_game(seed), iterations=12, lr=0.03, steps=2)
    assert falls(found) == 0
    assert found[-1] > found[0] + 0.3
