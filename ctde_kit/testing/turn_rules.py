"""What learners that take turns must do: learn once each, alone, and from the ratios of those before them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor
from torchrl.modules import set_recurrent_mode

from ctde_kit.keys import PADDING_MASK, GroupKeys
from ctde_kit.testing.comparing import number
from ctde_kit.testing.findings import NotApplicable, Violation, drawing_from, rule
from ctde_kit.testing.ratio_rules import HoldsActor
from ctde_kit.training import SequentialUpdate

STEPS, LEARNING_RATE = 3, 1e-3


@dataclass(frozen=True)
class TurnRecord:
    """One agent's turn, as the group's own policy shows it.

    Args:
        group: the agent's group.
        agent: its index.
        given: the logarithm of the product of ratios that it learned with, ``[*B]``.
        before: how far each agent's log-probability of its stored action was from the stored one, ``[*B, n_agents]``.
        after: the same after the turn.
    """

    group: str
    agent: int
    given: Tensor
    before: Tensor
    after: Tensor


@dataclass
class TurnCase:
    """An update whose learners take turns, and a fresh batch for it.

    Args:
        update: gives the turns; its parameters and optimizers are put back afterwards.
        batch: with advantages and value targets, as the update's ``turns`` takes it.
    """

    update: SequentialUpdate
    batch: TensorDictBase

    @cached_property
    def learners(self) -> list[tuple[str, int | None]]:
        """Group and agent of each turn; the agent is ``None`` for the critic."""
        with drawing_from(7):
            return [(turn.group, turn.agent) for turn in self.update.turns(self.batch.clone())]

    @cached_property
    def records(self) -> list[TurnRecord]:
        """Every agent's turn of a few gradient steps, all at one learning rate."""
        state, batch, found = copy.deepcopy(self.update.state_dict()), self.batch.clone(), list[TurnRecord]()
        # A finished run has annealed them to 0; the state that is put back holds them, too.
        for group in (group for step in self.update.gradient_steps for group in step.optimizer.param_groups):
            group["lr"] = LEARNING_RATE
        try:
            with drawing_from(7):
                for turn in self.update.turns(batch):
                    before, product = self._moved(turn.group), batch.get(GroupKeys(turn.group).log_ratio_product)
                    given = product.clone()
                    for _ in range(STEPS):
                        self.update(turn.batch.clone())
                    if turn.agent is not None:
                        after = self._moved(turn.group)
                        found.append(TurnRecord(turn.group, turn.agent, given[..., turn.agent], before, after))
        finally:
            self.update.load_state_dict(state)
        return found

    @torch.no_grad()
    def _moved(self, group: str) -> Tensor:
        keys, loss = GroupKeys(group), self.update.losses[group]
        actor = loss.actor_network if isinstance(loss, HoldsActor) else None
        if not isinstance(actor, ProbabilisticTensorDictSequential):
            raise NotApplicable("the loss shows no actor_network that has get_dist")
        with set_recurrent_mode(True):
            log_prob = actor.get_dist(self.batch.copy()).log_prob(self.batch.get(keys.action))
        return (log_prob - self.batch.get(keys.action_log_prob)).masked_fill(~self._alive(group, log_prob), 0)

    def _alive(self, group: str, like: Tensor) -> Tensor:
        alive, real_steps = self.batch.get(GroupKeys(group).mask, None), self.batch.get(PADDING_MASK, None)
        found = torch.ones_like(like, dtype=torch.bool)
        found = found if alive is None else found & alive
        return found if real_steps is None else found & real_steps.reshape(*self.batch.shape, 1)


@rule("Who has no turn never learns; who has two learns from a product that leaves its own first change out.")
def each_learner_has_one_turn(case: TurnCase) -> str:
    """Each agent of a group has one turn, and the group's critic one after them."""
    by_group: dict[str, list[int | None]] = {}
    for group, agent in case.learners:
        by_group.setdefault(group, []).append(agent)
    for group, (*agents, last) in by_group.items():
        n_agents = case.batch.get(GroupKeys(group).action_log_prob).shape[-1]
        if sorted(-1 if agent is None else agent for agent in agents) != list(range(n_agents)) or last is not None:
            raise Violation(
                f"group {group!r} has the turns {[*agents, last]}, expected each agent once, then the critic"
            )
    return f"{len(case.learners)} turns"


@rule("Where one agent's turn moves another's policy, the ratios that the others were given are not what they became.")
def agents_learn_alone(case: TurnCase) -> str:
    """A turn moves the probabilities of the agent's own actions in the group's policy, and no other's."""
    for record in case.records:
        change = (record.after - record.before).abs().flatten(0, -2).amax(0)
        others = [float(value) for agent, value in enumerate(change) if agent != record.agent]
        if max(others, default=0.0) > 1e-6:
            raise Violation(
                f"agent {record.agent}'s turn moves another agent's log-probability by {number(max(others))}"
            )
        if change[record.agent] == 0:
            raise Violation(f"agent {record.agent}'s turn of {STEPS} steps moves nothing in the policy that acts")
    return f"{len(case.records)} turns"


@rule("The first agent learns as in PPO: its product is 1, and its own ratio is 1 before its first step.")
def first_learner_is_on_policy(case: TurnCase) -> str:
    """The first agent of each group has a product of 1, and every agent begins its turn with a ratio of 1."""
    firsts = [next(record for record in case.records if record.group == group) for group in case.update.losses]
    for record in firsts:
        worst = float((record.given.exp() - 1).abs().max())
        if worst > 0:
            raise Violation(f"the first agent, {record.agent}, has a product {number(worst)} off 1")
    for record in case.records:
        worst = float((record.before[..., record.agent].exp() - 1).abs().max())
        if worst > 1e-3:
            raise Violation(f"agent {record.agent} begins its turn with a ratio {number(worst)} off 1")
    return f"products 1 in {len(firsts)} groups; ratios 1 in {len(case.records)} turns"


@rule(
    "An agent's advantage is multiplied by how much likelier those before it made their actions; else it ignores them."
)
def product_is_of_those_before(case: TurnCase) -> str:
    """Each agent's product is that of the ratios that the agents before it have in the group's policy."""
    largest = 0.0
    for place, record in enumerate(case.records):
        expected = torch.zeros_like(record.given)
        for earlier in case.records[:place]:
            if earlier.group == record.group:
                expected = expected + earlier.after[..., earlier.agent]
        ratio = (record.given - expected).exp()
        worst = float((ratio - 1).abs().max())
        if worst > 1e-3:
            raise Violation(f"the product of agent {record.agent} is {number(worst)} off that of the ratios before it")
        largest = max(largest, float((expected.exp() - 1).abs().max()))
    return f"products as far as {number(largest)} from 1"
