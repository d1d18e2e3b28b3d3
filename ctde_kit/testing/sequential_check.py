"""``check_sequential_update``: the doctor for agents that learn one after the other (HAPPO)."""

from __future__ import annotations

from tensordict import TensorDictBase

from ctde_kit.testing import turn_rules
from ctde_kit.testing.findings import Report, examine, part_name
from ctde_kit.testing.turn_rules import TurnCase
from ctde_kit.training import SequentialUpdate

TURN_RULES = (
    turn_rules.each_learner_has_one_turn,
    turn_rules.first_learner_is_on_policy,
    turn_rules.agents_learn_alone,
    turn_rules.product_is_of_those_before,
)


def check_sequential_update(update: SequentialUpdate, batch: TensorDictBase, *, raises: bool = True) -> Report:
    """Check an update whose agents learn one after the other, by a few gradient steps of each that are undone again.

    Args:
        update: before the first step on ``batch``.
        batch: fresh experience that the current policy collected, with advantages and value targets, ``[N]`` or
            ``[N, T]``.
        raises: whether a broken rule is an error; else the report says so.

    Raises:
        RuleBroken: where a rule is broken.

    >>> from ctde_kit.recipes import HAPPOConfig, VmasTask
    >>> from ctde_kit.testing import check_sequential_update
    >>> task = VmasTask("vmas/balance", n_envs=10)
    >>> parts = HAPPOConfig(task=task, frames_per_batch=400, device="cpu", compile="off").build()
    >>> parts.buffer.extend(parts.prepare(parts.collector.rollout()))
    >>> check_sequential_update(parts.update, parts.buffer.items)["product_is_of_those_before"].verdict
    'passed'
    """
    case = TurnCase(update, batch.detach())
    return examine(f"check_sequential_update: {part_name(update)}", TURN_RULES, case, raises)
