"""Agents that learn one after the other (HAPPO): their gradient steps, and the passes over a batch that each makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.protocols import HoldsItems, SequentialLoss, StateDict
from ctde_kit.training.gradient_step import GradientStep
from ctde_kit.training.parts import Metrics
from ctde_kit.training.update_schedules import Epochs

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Turn:
    """One learner's turn.

    Args:
        group: the learner's group.
        batch: what it learns from.
        agent: its index in its group; ``None`` for the critic.
    """

    group: str
    batch: TensorDictBase
    agent: int | None


class SequentialUpdate:
    """Gradient steps of learners that take turns: the agents of each group in a drawn order, then the group's critic.

    ``turns`` gives one learner after the other its turn; a call is a gradient step of the learner whose turn it is.
    Each has an optimizer of its own, with moments and a count of steps of its own. The order is drawn by torch's
    generator, anew for each batch. Between two turns all agents that are still to come get the ratio of the one that
    has just learned, as its policy is now, over the whole batch.

    Metrics are those of the losses; each is a mean over the agents' steps. The gradient's norm is ``grad_norm_actor``
    or ``grad_norm_critic``. With several groups each name starts with ``{group}/``.

    Args:
        losses: a loss for each group, such as ``HAPPOLoss``.
        optimizer: makes a learner's optimizer of its parameters.
        max_grad_norm: largest gradient norm of one network.
        compile: run gradient steps as compiled graphs, one for each learner; see ``GradientStep``.

    >>> from ctde_kit.recipes import HAPPOConfig, MatrixTask
    >>> parts = HAPPOConfig(task=MatrixTask(n_envs=20), compile="off").build()
    >>> batch = parts.prepare(next(iter(parts.collector))).reshape(-1)
    >>> [turn.agent for turn in parts.update.turns(batch)][-1] is None  # the critic comes last
    True
    """

    def __init__(
        self,
        losses: Mapping[str, SequentialLoss],
        optimizer: MakeOptimizer,
        max_grad_norm: float,
        *,
        compile: bool = False,
    ):
        self._losses = dict(losses)
        self.losses = nn.ModuleDict({name: _module(loss) for name, loss in losses.items()})

        def step(learner: object) -> GradientStep:
            module = _module(learner)
            return GradientStep({"learner": module}, optimizer(module.parameters()), max_grad_norm, compile=compile)

        self._agents = {name: [loss.for_agent(i) for i in range(loss.n_agents)] for name, loss in losses.items()}
        self._critics = {name: loss.for_critic() for name, loss in losses.items()}
        self._agent_steps = {name: [step(learner) for learner in agents] for name, agents in self._agents.items()}
        self._critic_steps = {name: step(learner) for name, learner in self._critics.items()}
        self._step: Callable[[TensorDictBase], Metrics] | None = None

    @property
    def gradient_steps(self) -> list[GradientStep]:
        """Those of all agents, group by group, then those of the critics; agents take turns in a drawn order."""
        agents = [step for steps in self._agent_steps.values() for step in steps]
        return [*agents, *self._critic_steps.values()]

    @property
    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [step.optimizer for step in self.gradient_steps]

    def turns(self, batch: TensorDictBase) -> Iterator[Turn]:
        """Give one learner after the other its turn, and yield what it learns from.

        Args:
            batch: of all agents, ``[N]`` or ``[N, T]``; the products of ratios are written into it.
        """
        try:
            for name in self._losses:
                yield from self._turns_of(name, batch)
        finally:
            self._step = None

    def _turns_of(self, name: str, batch: TensorDictBase) -> Iterator[Turn]:
        loss = self._losses[name]
        loss.begin(batch)
        order = torch.randperm(loss.n_agents).tolist()
        for place, agent in enumerate(order, 1):
            learner = self._agents[name][agent]
            self._step = self._named(self._agent_steps[name][agent], name, "actor")
            yield Turn(name, learner.select(batch), agent)
            if order[place:]:
                loss.pass_on(batch, agent, order[place:])
        self._step = self._named(self._critic_steps[name], name, "critic")
        yield Turn(name, self._critics[name].select(batch), None)

    def _named(self, step: GradientStep, group: str, network: str) -> Callable[[TensorDictBase], Metrics]:
        """The step with the names of its metrics."""
        prefix = f"{group}/" if len(self._losses) > 1 else ""

        def named(minibatch: TensorDictBase) -> Metrics:
            metrics = step(minibatch)
            metrics[f"grad_norm_{network}"] = metrics.pop("grad_norm")
            return {prefix + name: value for name, value in metrics.items()}

        return named

    def __call__(self, minibatch: TensorDictBase) -> Metrics:
        if self._step is None:
            raise UserError(
                "SequentialUpdate: no learner has its turn: iterate over turns(batch), and call it with minibatches of "
                "turn.batch, as SequentialEpochs does"
            )
        return self._step(minibatch)

    def state_dict(self) -> StateDict:
        """The states of losses (parameters, statistics) and of each learner's optimizer."""
        return {"losses": self.losses.state_dict(), "optimizers": [one.state_dict() for one in self._optimizers]}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.losses.load_state_dict(state_dict["losses"])
        for optimizer, state in zip(self._optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)


@dataclass(frozen=True)
class SequentialEpochs:
    """A fixed number of passes over a batch for each learner of a ``SequentialUpdate``, in its turn.

    Args:
        epochs: number of passes.
        target_kl: end an agent's turn once the mean ``approx_kl`` of one of its passes exceeds this; ``None`` for
            never. The critic makes all its passes.

    >>> from ctde_kit.recipes import HAPPOConfig, MatrixTask
    >>> parts = HAPPOConfig(task=MatrixTask(n_envs=20), minibatch_frames=None, epochs=3, compile="off").build()
    >>> parts.buffer.extend(parts.prepare(next(iter(parts.collector))))
    >>> len(list(parts.update_schedule(parts.buffer, parts.update)))  # three passes of two agents and the critic
    9
    """

    epochs: int
    target_kl: float | None = None

    def __call__(self, buffer: HoldsItems, update: SequentialUpdate) -> Iterator[Metrics]:
        for turn in update.turns(buffer.items):
            passes = Epochs(self.epochs, None if turn.agent is None else self.target_kl)
            yield from passes(buffer.of(turn.batch), update)


def _module(part: object) -> nn.Module:
    assert isinstance(part, nn.Module)
    return part
