"""Which learner learns for which agents, where learners share the agents of one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from ctde_kit.capability import Capability
from ctde_kit.errors import UserError
from ctde_kit.specs import GroupSpec
from ctde_kit.training import HoldsGradientSteps
from ctde_kit.training.parts import Update


@runtime_checkable
class LearnsByAgent(Capability, Protocol):
    """A loss that is a sum over agents, each with a value of its own, such as ``MADDPGLoss`` without a mixer."""

    @property
    def groups_by_agent(self) -> Mapping[str, GroupSpec]:
        """The groups that learn, by name; none where agents learn something together."""
        ...


def agents_that_learn(update: Update) -> dict[str, int]:
    """How many agents of each group an update learns for.

    Raises:
        UserError: where its loss is not a sum over agents.

    >>> from ctde_kit.distributed.dealt_agents import agents_that_learn
    >>> from ctde_kit.recipes import MADDPGConfig, VmasTask
    >>> agents_that_learn(MADDPGConfig(task=VmasTask("vmas/navigation", n_envs=2)).build().update)
    {'agents': 4}
    """
    steps = update.gradient_steps if isinstance(update, HoldsGradientSteps) else []
    losses = [loss for step in steps for loss in step.losses.values()]
    groups = [loss.groups_by_agent for loss in losses if isinstance(loss, LearnsByAgent)]
    if not losses or len(groups) != len(losses) or not all(groups):
        raise UserError(
            "AgentLearners: expected losses that are sums over agents, as those of MADDPG (without a mixer or beliefs) "
            "and MASAC (without mutual information) are; share batches instead, as Learners do"
        )
    return {name: group.n_agents for of_loss in groups for name, group in of_loss.items()}


def deal(agents: Mapping[str, int], learners: int) -> list[dict[str, slice]]:
    """The agents of each group that are each learner's: as many for each as can be, neighbors together.

    Args:
        agents: how many each group has.
        learners: how many there are.

    Raises:
        UserError: for more learners than agents.

    >>> from ctde_kit.distributed.dealt_agents import deal
    >>> deal({"adversary": 3, "agent": 1}, 2)[1]
    {'adversary': slice(2, 3, None), 'agent': slice(0, 1, None)}
    """
    total = sum(agents.values())
    if learners > total:
        raise UserError(f"AgentLearners: learners={learners}: expected at most one per agent that learns, {total}")
    bounds = [rank * total // learners for rank in range(learners + 1)]
    dealt: list[dict[str, slice]] = [{} for _ in range(learners)]
    before = 0
    for name, count in agents.items():
        for rank, own in enumerate(dealt):
            start, stop = (min(max(bound - before, 0), count) for bound in bounds[rank : rank + 2])
            own[name] = slice(start, stop) if start < stop else slice(0, 0)
        before += count
    return dealt
