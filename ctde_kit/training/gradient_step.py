"""One gradient step: the losses of all groups, backward, gradient clipping and the optimizer's step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.capability import Capability
from ctde_kit.entries import device_of
from ctde_kit.errors import UserError
from ctde_kit.graph import TraceError
from ctde_kit.graph.toolchain import report_fallback
from ctde_kit.protocols import StateDict
from ctde_kit.training.compiled_gradient_step import CompiledGradientStep, set_gradients
from ctde_kit.training.parts import Metrics

Case = tuple[torch.Size, float, frozenset[str]]
"""What a graph is compiled for: the minibatch's shape, the clip, and the losses that wait."""


@runtime_checkable
class HoldsGradientSteps(Capability, Protocol):
    """An update that shows the gradient steps of which it is made, such as ``UpdateWithTargets``.

    >>> from ctde_kit.recipes import COMAConfig, MatrixTask
    >>> from ctde_kit.training import HoldsGradientSteps
    >>> update = COMAConfig(task=MatrixTask(n_envs=2)).build().update
    >>> isinstance(update, HoldsGradientSteps), len(update.gradient_steps)
    (True, 2)
    """

    @property
    def gradient_steps(self) -> list[GradientStep]:
        """Those that move all parameters it trains, always in the same order."""
        ...


class GradientStep:
    """Minimizes the sum of all groups' losses on a minibatch, and returns its metrics as tensors on the device.

    Metrics are the entries that the losses return, and ``grad_norm``, the gradient's norm before clipping. With several
    groups each name starts with ``{group}/``. Gradients are clipped separately for each child network of a loss (actor,
    critic), as in the code of the MAPPO authors (Yu et al. 2022). A parameter of several networks, such as one of a
    channel between groups, is scaled by the smallest of their factors.

    Args:
        losses: a ``LossModule`` for each group; their entries that start with ``loss_`` are summed.
        optimizer: the optimizer of the losses' parameters.
        max_grad_norm: largest gradient norm of one network.
        every: losses, by name, that only every n-th step learns from: ``{"loss_actor": 2}`` is TD3's delayed policy
            (Fujimoto et al. 2018, section 5.2), which learns at the second step, the fourth, and so on. The metrics of
            each step hold these losses, too.
        compile: run loss, backward, clipping and the optimizer's step as one compiled graph per minibatch shape. An
            optimizer that cannot be traced runs eagerly after the graph. A loss that cannot be traced runs eagerly
            altogether, and one warning says why. The first step of a new optimizer, which creates its state, is always
            eager; with ``every``, so are those until each loss has been learned from.

        average: takes the gradient of each parameter, before clipping, and returns the mean over several learners,
            such as ``distributed.AverageGradients``; steps are eager then.

    Raises:
        UserError: for a number in ``every`` that is not above 0, at the first step for a name that no loss gives, and
            at a step at which all losses wait.

    >>> import torch
    >>> import ctde_kit as ck
    >>> from ctde_kit.envs.games import MatrixGameEnv
    >>> env = MatrixGameEnv(5, [[11, -30, 0], [-30, 7, 0], [0, 6, 5]])
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> actor = ck.MultiAgentQActor(group, ck.own_observation(group), ck.MultiAgentMLP(1, 3, n_agents=2))
    >>> loss = ck.QMixLoss({"agents": actor}, gamma=0.99)
    >>> step = ck.GradientStep({"agents": loss}, torch.optim.Adam(actor.parameters()), max_grad_norm=5.0)
    >>> step(env.rollout(1, actor))["grad_norm"].shape
    torch.Size([])
    """

    def __init__(
        self,
        losses: Mapping[str, nn.Module] | nn.ModuleDict,
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float,
        *,
        every: Mapping[str, int] | None = None,
        compile: bool = False,
        average: Callable[[list[Tensor | None]], list[Tensor | None]] | None = None,
    ):
        self.losses = nn.ModuleDict(dict(losses))
        self.optimizer, self.max_grad_norm = optimizer, max_grad_norm
        self.compile, self.average = compile and average is None, average
        self.parameters = list(dict.fromkeys(_trainable(self.losses)))
        self._networks = {
            group: [params for child in loss.children() if (params := _trainable(child))]
            for group, loss in losses.items()
        }
        self._compiled: dict[Case, CompiledGradientStep] = {}
        self._has_stepped = False
        self.every, self.updates = dict(every or {}), 0
        for name, steps in self.every.items():
            if steps < 1:
                raise UserError(f"GradientStep: every[{name!r}]={steps}: expected 1 or more")

    @property
    def gradient_steps(self) -> list[GradientStep]:
        """This one."""
        return [self]

    def __call__(self, minibatch: TensorDictBase) -> Metrics:
        metrics = self._step(minibatch)
        self.updates += 1
        return metrics

    def _step(self, minibatch: TensorDictBase) -> Metrics:
        if not self.compile:
            return self._eager(minibatch)
        # The optimizer has no state of a parameter before a step has learned from a loss that moves it.
        longest = max(self.every.values(), default=0)
        if (self._has_stepped or self.optimizer.state) and self.updates >= longest:
            self._compile(minibatch)
            return self._compiled[self._case(minibatch)](minibatch) if self.compile else self._eager(minibatch)
        example = minibatch.copy()
        metrics = self._eager(minibatch)
        self._has_stepped = True
        if self.updates + 1 >= longest:
            self._compile(example)
        return metrics

    def _eager(self, minibatch: TensorDictBase) -> Metrics:
        metrics, gradients = self.gradients(minibatch)
        set_gradients(self.parameters, gradients)
        self.optimizer.step()
        return metrics

    def _compile(self, minibatch: TensorDictBase) -> None:
        compiled = self._compiled.get(self._case(minibatch))
        if compiled is not None and not compiled.is_stale():
            return
        parameters_and_buffers = [*self.losses.parameters(), *self.losses.buffers()]
        try:
            self._compiled[self._case(minibatch)] = CompiledGradientStep(
                self.gradients, self.parameters, self.optimizer, minibatch, parameters_and_buffers
            )
        except TraceError as reason:
            self.compile = False
            report_fallback("the gradient step", reason)

    def _case(self, minibatch: TensorDictBase) -> Case:
        return minibatch.shape, self.max_grad_norm, self._waiting()

    def _waiting(self) -> frozenset[str]:
        """The losses that this step does not learn from."""
        return frozenset(name for name, steps in self.every.items() if (self.updates + 1) % steps)

    def gradients(self, minibatch: TensorDictBase) -> tuple[Metrics, list[Tensor | None]]:
        """The metrics, and the clipped gradient of each of ``parameters``; ``None`` for one that no loss uses."""
        metrics: Metrics = {}
        total, waiting, given = torch.zeros((), device=device_of(minibatch)), self._waiting(), set[str]()
        for group, loss in self.losses.items():
            for name, value in loss(minibatch).items():
                metrics[self._prefix(group) + name] = value.detach()
                if not name.startswith("loss_"):
                    continue
                given.add(name)
                if name not in waiting:
                    total = total + value
        if not given.issuperset(self.every):
            unknown = min(self.every.keys() - given)
            raise UserError(f"GradientStep: every[{unknown!r}]: no loss gives it; expected one of {sorted(given)}")
        if given and given <= waiting:
            raise UserError(
                f"GradientStep: every={self.every}: all losses wait at step {self.updates + 1}; leave one out"
            )
        raw = torch.autograd.grad(total, self.parameters, allow_unused=True)
        raw = [*raw] if self.average is None else self.average([*raw])
        gradients = {p: gradient for p, gradient in zip(self.parameters, raw, strict=True) if gradient is not None}
        for group, norms in self._clip(gradients).items():
            metrics[f"{self._prefix(group)}grad_norm"] = torch.stack(norms).square().sum().sqrt()
        return metrics, [gradients.get(parameter) for parameter in self.parameters]

    def _prefix(self, group: str) -> str:
        return f"{group}/" if len(self.losses) > 1 else ""

    def _clip(self, gradients: dict[nn.Parameter, Tensor]) -> dict[str, list[Tensor]]:
        """Scale each network's gradients down to ``max_grad_norm``; returns their norms before, by group."""
        norms: dict[str, list[Tensor]] = {group: [] for group in self._networks}
        factors: dict[nn.Parameter, Tensor] = {}
        for group, networks in self._networks.items():
            used = [[p for p in network if p in gradients] for network in networks]
            counted: set[nn.Parameter] = set()
            for network in filter(None, used):
                norm = torch.stack([gradients[p].norm() for p in network]).norm()
                # A group's norm has a parameter that two of its networks share once.
                own = [gradients[p].norm() for p in network if p not in counted]
                norms[group] += [norm] if len(own) == len(network) else own
                counted.update(network)
                factor = (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
                # With the smallest factor of those that share a parameter, none of their norms stays above the limit.
                factors |= {p: torch.minimum(factors[p], factor) if p in factors else factor for p in network}
        for parameter, factor in factors.items():
            gradients[parameter] = gradients[parameter] * factor
        return norms

    def state_dict(self) -> StateDict:
        """The states of losses (parameters, targets, statistics) and optimizer; with ``every`` the count of steps."""
        state = {"losses": self.losses.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state | {"updates": self.updates} if self.every else state

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.losses.load_state_dict(state_dict["losses"])
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.updates = state_dict["updates"] if self.every else self.updates


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
