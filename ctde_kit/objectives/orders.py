"""The orders in which critics see agents, one a sample."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey


def order_keys(critic: TensorDictModuleBase) -> list[NestedKey]:
    """What a critic such as ``RandomOrderCritic`` reads of orders; nothing for others."""
    return list(getattr(critic, "order_keys", []))


def with_orders(critics: Iterable[Any], tensordict: TensorDictBase) -> TensorDictBase:
    """``tensordict`` with an order of each group for each sample, where a critic asks for one.

    It stands at the root and under ``next``: all critics and their targets see a sample in one order.
    """
    for critic in critics:
        if order_keys(critic):
            tensordict = critic.draw_order(tensordict)
    return tensordict
