"""Updates in which the critics' gradient steps on a batch come first, and one step of the actors follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensordict import TensorDictBase
from torch import nn

from ctde_kit.protocols import HoldsItems, StateDict
from ctde_kit.training.gradient_step import GradientStep
from ctde_kit.training.parts import Metrics
from ctde_kit.training.target_networks import UpdateWithTargets


class CriticThenActor:
    """Two separate gradient steps, the critics' and the actors', which ``CriticEpochs`` makes one after the other.

    Called with a minibatch it makes the critics' step. Metrics are those of the step that is made; ``grad_norm``
    becomes ``grad_norm_critic`` or ``grad_norm_actor``.

    Args:
        critic: the critics' gradient step, with their target networks.
        actor: the actors' gradient step.

    >>> from ctde_kit.recipes import COMAConfig, MatrixTask
    >>> parts = COMAConfig(task=MatrixTask(n_envs=2), compile="off").build()
    >>> type(parts.update).__name__, list(parts.update.losses)
    ('CriticThenActor', ['critic', 'actor'])
    """

    def __init__(self, critic: UpdateWithTargets, actor: GradientStep):
        self.critic, self.actor = critic, actor

    @property
    def losses(self) -> nn.ModuleDict:
        """The critics' losses by group, and the actors' losses by group."""
        return nn.ModuleDict({"critic": self.critic.losses, "actor": self.actor.losses})

    @property
    def gradient_steps(self) -> list[GradientStep]:
        """The critics', then the actors'."""
        return [*self.critic.gradient_steps, *self.actor.gradient_steps]

    def __call__(self, minibatch: TensorDictBase) -> Metrics:
        return _renamed(self.critic(minibatch), "critic")

    def step_actor(self, batch: TensorDictBase) -> Metrics:
        """The actors' gradient step, on the whole batch."""
        return _renamed(self.actor(batch), "actor")

    def state_dict(self) -> StateDict:
        """The states of both steps."""
        return {"critic": self.critic.state_dict(), "actor": self.actor.state_dict()}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.critic.load_state_dict(state_dict["critic"])
        self.actor.load_state_dict(state_dict["actor"])


@dataclass(frozen=True)
class CriticEpochs:
    """A number of passes of the critics over the buffer's minibatches, then one step of the actors on the whole batch.

    Args:
        epochs: number of passes.

    >>> from ctde_kit.recipes import COMAConfig, MatrixTask
    >>> sizes = dict(frames_per_batch=12, minibatch_frames=6, epochs=3)
    >>> parts = COMAConfig(task=MatrixTask(n_envs=2), **sizes, compile="off").build()
    >>> parts.buffer.extend(parts.prepare(next(iter(parts.collector))))
    >>> names = [sorted(row)[0] for row in parts.update_schedule(parts.buffer, parts.update)]
    >>> len(names), names[0], names[-1]
    (7, 'chosen_action_value', 'advantage')
    """

    epochs: int

    def __call__(self, buffer: HoldsItems, update: CriticThenActor) -> Iterator[Metrics]:
        for _ in range(self.epochs):
            for minibatch in buffer:
                yield update(minibatch)
        yield update.step_actor(buffer.items)


def _renamed(metrics: Metrics, part: str) -> Metrics:
    """The same metrics, those of the gradient's norm with the name of the part."""
    return {f"{name}_{part}" if name.endswith("grad_norm") else name: value for name, value in metrics.items()}
