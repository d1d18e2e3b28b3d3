"""What MADDPG's actor loss must do: each agent's value moves that agent's actor alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from ctde_kit.protocols import SwapsOwnAction
from ctde_kit.testing.comparing import difference, garbage_like, gradients, moved, number
from ctde_kit.testing.deterministic_case import DeterministicCase
from ctde_kit.testing.findings import NotApplicable, Violation, rule

# The gradient of regularization is subtracted, which leaves rounding errors of up to this share.
CLOSE = 1e-5


@rule("Agent i's value tells agent i what to do; where it moves others, they learn another agent's wishes.")
def own_actor_alone(case: DeterministicCase) -> str:
    """The matrix of gradients, agents' values by agents' actions, is diagonal."""
    n_agents = case.n_agents
    # Where no value passes a gradient on, the gradient that is left is that of regularization.
    without = _output_gradients(case, torch.zeros(n_agents, 1))
    rows = []
    for agent in range(n_agents):
        keep = torch.zeros(n_agents, 1)
        keep[agent] = 1
        changes = [g - base for g, base in zip(_output_gradients(case, keep), without, strict=True)]
        sizes = [g.abs().movedim(-2, 0).flatten(1).amax(1) for g in changes]
        rows.append(torch.stack(sizes).amax(0))
    matrix = torch.stack(rows)
    if not matrix.any():
        raise NotApplicable("the critic's values cannot be told apart by agent")
    own, others = matrix.diagonal(), matrix - matrix.diagonal().diag()
    if not (own > 0).all():
        raise Violation(f"agent {int(own.argmin())}'s value does not move its own actor")
    i, j = divmod(int(others.argmax()), n_agents)
    if others[i, j] > CLOSE * own.max():
        raise Violation(
            f"agent {i}'s value moves agent {j}'s actor: gradient {number(float(others[i, j]))} beside "
            f"{number(float(own[i]))} for its own, expected 0"
        )
    return f"{n_agents} x {n_agents} gradients, none off the diagonal"


def _output_gradients(case: DeterministicCase, keep: Tensor) -> list[Tensor]:
    """The gradient of each actor output ``[*B, n_agents, ...]``, through the values of the agents in ``keep`` alone."""
    with recorded(case.actor_modules(), case.critic_modules(), keep, case) as outputs:
        total = case.total(case.batch, case.actor_losses)
    found = [output for output in outputs if output.requires_grad]
    if not found:
        raise NotApplicable("no output of an actor was seen in the loss; give actor=")
    return [
        torch.zeros_like(output) if gradient is None else gradient
        for output, gradient in zip(found, gradients(total, found), strict=True)
    ]


@contextmanager
def recorded(
    actors: list[nn.Module], critics: list[nn.Module], keep: Tensor, case: DeterministicCase
) -> Iterator[list[Tensor]]:
    """Inside the block actors' outputs are kept, and gradients pass only values of agents in ``keep`` ``[n, 1]``."""
    outputs: list[Tensor] = []

    def keep_outputs(module: nn.Module, _: object, result: object) -> None:
        if isinstance(result, TensorDictBase) and isinstance(module, TensorDictModuleBase):
            written = [result.get(key, None) for key in module.out_keys]
            outputs.extend(value for value in written if _is_output(value, case.n_agents))

    def mask_values(module: nn.Module, _: object, result: object) -> None:
        key = case.names["state_action_value"]
        if isinstance(result, TensorDictBase) and (value := result.get(key, None)) is not None:
            result.set(key, _only(value, keep))

    hooks = [part.register_forward_hook(keep_outputs) for actor in actors for part in actor.modules()]
    hooks += [critic.register_forward_hook(mask_values) for critic in critics]
    swapping = [critic for critic in critics if isinstance(critic, SwapsOwnAction)]
    for critic in swapping:
        original = critic.own_action_values
        vars(critic)["own_action_values"] = lambda *args, original=original: _only(original(*args), keep)
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
        for critic in swapping:
            del vars(critic)["own_action_values"]


def _is_output(value: object, n_agents: int) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.requires_grad and value.ndim > 1 and value.shape[-2] == n_agents


def _only(value: Tensor, keep: Tensor) -> Tensor:
    """The same values; only those of kept agents pass gradients on."""
    if value.ndim < 2 or value.shape[-2:] != keep.shape:
        raise NotApplicable(f"the critic gives values {list(value.shape)}, expected one per agent [*B, {len(keep)}, 1]")
    return torch.where(keep.bool(), value, value.detach())


@rule("The critic is evaluated at what the others did; where the actor loss never sees it, it is another algorithm.")
def others_actions_are_replayed(case: DeterministicCase) -> str:
    """The actor loss moves with the others' stored actions, where a critic sees them."""
    if case.other_actions == "current":
        raise NotApplicable("the others' actions are those of their current policies")
    n_agents, key = case.n_agents, case.names["action"]
    with torch.no_grad():
        before = case.total(case.batch, case.actor_losses)
        changed = case.batch.clone()
        action = changed.get(key)
        changed.set(key, moved(action) if action.is_floating_point() else garbage_like(action))
        gap = difference(before, case.total(changed, case.actor_losses))
    if not gap and case.other_actions == "replay":
        raise Violation(
            f"other stored actions of {n_agents} agents leave the actor loss as it is: they are not replayed"
        )
    return (
        f"moves by {number(gap)} with stored actions"
        if gap
        else "no stored action moves it: critics see agents' own actions, or current ones"
    )


@rule("The target is what the target policy would do and earn; one online network in it makes the target chase itself.")
def both_targets_are_used(case: DeterministicCase) -> str:
    """The value loss moves with the target actor and the target critic, and not with the online actor."""
    figures = []
    for what, parts in (("actor", ("actor",)), ("critic", ("critic", "value", "qvalue"))):
        tensors = case.targets(*parts)
        if not tensors:
            raise NotApplicable(f"the loss holds no state whose name has 'target' and {what!r}")
        gap = case.moves_with(tensors.values(), case.value_losses)
        if not gap:
            raise Violation(
                f"other weights of the target {what} leave the value loss as it is: the target has no target {what}"
            )
        figures.append(f"{number(gap)} with the target {what}")
    gap = case.moves_with(case.actor_parameters().values(), case.value_losses)
    if gap:
        raise Violation(f"the value loss moves by {number(gap)} with the online actor's weights, expected 0")
    return f"moves by {', '.join(figures)}, not with the online actor"


@rule("The critic learned the values of hard actions; a soft one is an action that nobody can take.")
def discrete_actions_are_hard(case: DeterministicCase) -> str:
    """In the actor loss a critic sees one-hot actions, which still have a gradient."""
    if case.batch.get(case.names["action"]).is_floating_point():
        raise NotApplicable("actions are continuous")
    seen: list[Tensor] = []
    hooks = []
    for critic in case.critic_modules():
        if isinstance(critic, SwapsOwnAction):
            original = critic.own_action_values
            vars(critic)["own_action_values"] = lambda data, action, original=original: (
                seen.append(action) or original(data, action)
            )
        hooks.append(critic.register_forward_pre_hook(lambda _, args: _keep_actions(args, case, seen)))
    try:
        case.total(case.batch, case.actor_losses)
    finally:
        for hook in hooks:
            hook.remove()
        for critic in case.critic_modules():
            critic.__dict__.pop("own_action_values", None)
    learning = [action for action in seen if action.requires_grad]
    if not learning:
        raise Violation("no action with a gradient reaches the critic: the actor cannot learn")
    for action in learning:
        soft = torch.minimum(action.abs(), (action - 1).abs()).max().item()
        if soft > 1e-5:
            raise Violation(f"the critic sees soft actions, up to {number(soft)} off 0 and 1; expected one-hot ones")
    return "one-hot actions with a gradient"


def _keep_actions(args: tuple[object, ...], case: DeterministicCase, seen: list[Tensor]) -> None:
    for argument in args:
        if isinstance(argument, TensorDictBase):
            vector = [] if case.names.group is None else [(case.names.group, "action_vector")]
            for key in (case.names["action"], *vector):
                value = argument.get(key, None)
                if value is not None and value.is_floating_point():
                    seen.append(value)
