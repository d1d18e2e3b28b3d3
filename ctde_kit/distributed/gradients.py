"""Gradients and statistics of a batch that several learners hold a part of, added up through gloo."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  # documented

from ctde_kit.errors import LearnerLostError, UserError, one_line
from ctde_kit.training import HoldsGradientSteps, Parts, SequentialUpdate

# Seconds that learners get to meet, where `timeout` is less: names of machines are looked up, which may take long.
MEET_WITHIN = 60.0


class AverageGradients:
    """What learners add up: the gradient of each step in one all-reduce, and the statistics of batches.

    It is the ``average`` of a ``GradientStep``, and the ``Shards`` of ``ctde_kit.shards.sharing``. Each loss divides
    the sum over this learner's living agents by their number in the whole batch, so the mean over learners is the
    gradient of the whole batch, however many agents live in each part.

    Args:
        address: ``HOST:PORT`` where rank 0 listens.
        rank: of this learner.
        count: how many there are.
        timeout: seconds that it waits for the others in a step; to meet them it waits a minute or longer.
        explain: called where another learner is gone; it may raise the reason instead.

    Raises:
        LearnerLostError: where another learner is gone.

    >>> import torch
    >>> from ctde_kit.distributed import AverageGradients, free_address
    >>> alone = AverageGradients(free_address(), rank=0, count=1)
    >>> alone([torch.ones(2), None])
    [tensor([1., 1.]), None]
    """

    def __init__(
        self,
        address: str,
        *,
        rank: int,
        count: int,
        timeout: float = 60.0,
        explain: Callable[[], None] = lambda: None,
    ) -> None:
        host, _, port = address.rpartition(":")
        self.rank, self.count, self.explain = rank, count, explain
        self._timeout = timedelta(seconds=timeout)
        meet = timedelta(seconds=max(timeout, MEET_WITHIN))
        options = dist.ProcessGroupGloo._Options()  # pyright: ignore[reportAttributeAccessIssue]  # its stub
        options._timeout = meet
        # By default gloo listens where the name of the machine leads to, which is often only this machine.
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=host if rank == 0 else _own_host(host))]
        try:
            store = TCPStore(host, int(port), count, is_master=rank == 0, timeout=meet, wait_for_workers=False)
            self._group = dist.ProcessGroupGloo(store, rank, count, options)
        except RuntimeError as error:
            explain()
            raise _lost(error) from error

    def __call__(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        given = [gradient for gradient in gradients if gradient is not None]
        flat = self._reduced(torch.cat([gradient.reshape(-1) for gradient in given]), dist.ReduceOp.SUM) / self.count
        parts = iter(flat.split([gradient.numel() for gradient in given]))
        return [None if gradient is None else next(parts).view_as(gradient) for gradient in gradients]

    def sum(self, values: Tensor) -> Tensor:
        return self._reduced(values.detach().clone(), dist.ReduceOp.SUM)

    def max(self, values: Tensor) -> Tensor:
        return self._reduced(values.detach().clone(), dist.ReduceOp.MAX)

    def _reduced(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        options = dist.AllreduceOptions()
        options.reduceOp, options.timeout = dist.ReduceOp(operation), self._timeout
        try:
            self._group.allreduce([values], options).wait()  # pyright: ignore[reportAttributeAccessIssue]  # its stub
        except RuntimeError as error:
            self.explain()
            raise _lost(error) from error
        return values

    def leave(self) -> None:
        """Let the others know that this learner cannot go on: what they wait for fails."""
        vars(self).pop("_group", None)


def _lost(error: Exception) -> LearnerLostError:
    reason = one_line(error, 160)
    return LearnerLostError(f"a learner was lost while gradients were added up ({reason})")


def free_address() -> str:
    """``HOST:PORT`` of this machine, at a port that is free now.

    >>> from ctde_kit.distributed import free_address
    >>> int(free_address().rpartition(":")[2]) > 0
    True
    """
    with socket.socket() as server:
        server.bind(("", 0))
        return f"{_own_host()}:{server.getsockname()[1]}"


def _own_host(other: str = "192.0.2.1") -> str:
    """The address by which ``other``, or any other machine, reaches this one; the loopback where it has no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((other, 9))  # nothing is sent
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def average_gradients(parts: Parts, average: AverageGradients) -> None:
    """Let every gradient step of ``parts`` learn from the mean over all learners, eagerly.

    Raises:
        UserError: for an update whose steps cannot be told, such as HAPPO's, which draws an order of its own.

    >>> from ctde_kit.distributed import AverageGradients, average_gradients, free_address
    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig
    >>> parts = QMIXConfig(task=MatrixTask(n_envs=2)).build()
    >>> average_gradients(parts, AverageGradients(free_address(), rank=0, count=1))
    >>> parts.update.update.compile
    False
    """
    update = parts.update
    if isinstance(update, SequentialUpdate) or not isinstance(update, HoldsGradientSteps):
        raise UserError(
            f"Learners: several learners cannot share a {type(update).__name__}: expected gradient_steps that all of "
            "them take in the same order, as GradientStep and UpdateWithTargets have; use one learner"
        )
    for step in update.gradient_steps:
        step.average, step.compile = average, False
