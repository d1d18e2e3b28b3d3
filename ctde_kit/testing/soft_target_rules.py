"""What soft actor-critic's targets must be: of target critics, and of what the current policy would do."""

from __future__ import annotations

from ctde_kit.testing.comparing import number
from ctde_kit.testing.deterministic_case import DeterministicCase
from ctde_kit.testing.findings import NotApplicable, Violation, rule


@rule("SAC values what its policy would do now. Stored next actions are another policy's, without its entropy.")
def targets_of_the_current_policy(case: DeterministicCase) -> str:
    """The value loss moves with the target critic, and with the actor that acts."""
    tensors = case.targets("critic", "value", "qvalue")
    if not tensors:
        raise NotApplicable("the loss holds no state whose name has 'target' and 'critic'")
    of_critic = case.moves_with(tensors.values(), case.value_losses)
    if not of_critic:
        raise Violation("other weights of the target critic leave the value loss as it is: the target has none")
    of_actor = case.moves_with(case.actor_parameters().values(), case.value_losses)
    if not of_actor:
        raise Violation("other weights of the actor leave the value loss as it is: next actions are not its own")
    return f"moves by {number(of_critic)} with the target critic, {number(of_actor)} with the actor"
