"""Random orders of agents that a critic asks for, drawn once per sample."""

from __future__ import annotations

from collections.abc import Iterable

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from ctde_kit.keys import Key
from ctde_kit.protocols import DrawsOrders


def order_keys(critic: object) -> list[Key]:
    """Where a critic such as ``RandomOrderCritic`` reads orders; empty for others."""
    return list(critic.order_keys) if isinstance(critic, DrawsOrders) else []


def with_orders(critics: Iterable[TensorDictModuleBase], tensordict: TensorDictBase) -> TensorDictBase:
    """``tensordict`` with a random order of each group's agents for each sample, where a critic asks for one.

    The order is written at the root and under ``next``, so that all critics and their targets see a sample in the same
    order.
    """
    for critic in critics:
        if isinstance(critic, DrawsOrders):
            tensordict = critic.draw_order(tensordict)
    return tensordict
