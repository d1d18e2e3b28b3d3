"""Options that only recurrent networks have."""

from __future__ import annotations

from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.modules import AgentNetwork, MultiAgentGRU
from ctde_kit.recipes.configs.replays import ReplayConfig, TransitionForm
from ctde_kit.recipes.configs.return_forms import ReturnConfig
from ctde_kit.recipes.wiring.setting import Setting


def is_recurrent(*parts: nn.Module) -> bool:
    """Whether one of the networks in ``parts`` is recurrent."""
    return bool(_recurrent_networks(*parts))


def loops_over_steps(*parts: nn.Module) -> bool:
    """Whether a recurrent network in ``parts`` is not built on ``MultiAgentGRU``, whose sequence is one operation.

    The graph of any other recurrent network grows with the sequence and is too long to compile.
    """
    networks = _recurrent_networks(*parts)
    return not all(any(isinstance(module, MultiAgentGRU) for module in network.modules()) for network in networks)


def compiles_updates(run: Setting, *parts: nn.Module) -> bool:
    """Whether the updates of ``parts`` are compiled: where the run asks for it, and no network loops over steps."""
    return run.compiling.updates and not loops_over_steps(*parts)


def _recurrent_networks(*parts: nn.Module) -> list[AgentNetwork]:
    modules = (module for part in parts for module in part.modules())
    return [module for module in modules if isinstance(module, AgentNetwork) and module.recurrent]


def sequence_length(asked: int | None, steps_per_batch: int, recurrent: bool) -> int | None:
    """Steps per sequence of a minibatch; ``None`` for single steps, which feed-forward networks take.

    Raises:
        UserError: where the option is given and networks are feed-forward, or it does not divide the batch.
    """
    if recurrent:
        return slice_length(asked, steps_per_batch)
    if asked is not None:
        raise UserError("sequence_length: these networks are feed-forward; leave it out, or use network@actor=gru")
    return None


def slice_length(asked: int | None, steps_per_batch: int) -> int:
    """Steps per slice of a batch; ``None`` asks for the whole batch.

    Raises:
        UserError: where steps would be left over.
    """
    if asked is not None and steps_per_batch % asked:
        raise UserError(
            f"sequence_length={asked}: expected a divisor of the {steps_per_batch} steps that each env collects per "
            "batch (frames_per_batch / task.n_envs)"
        )
    return asked or steps_per_batch


def check_replay_form(replay: ReplayConfig, returns: ReturnConfig, recurrent: bool) -> None:
    """Raise ``UserError`` for single steps where sequences are learned, and for a burn-in of no hidden state."""
    needs = "recurrent networks learn" if recurrent else "these returns need"
    if isinstance(replay.form, TransitionForm) and (recurrent or returns.build().needs_sequences):
        raise UserError(f"replay=transitions: {needs} sequences; use replay=sequences or replay=episodes")
    if replay.form.burn_in_steps and not recurrent:
        raise UserError("replay.form.burn_in: these networks are feed-forward; leave it 0, or use network@actor=gru")
